/** The markup of the status page. Everything that is shown goes through `html`, which escapes it. */

import { Fragment, html } from '../http/html.ts';
import { type ChangeLine, type DirectoryLine, type StatusFacts, USERS_COUNTED } from './facts.ts';
import { script, style } from './style.ts';

export interface Frame {
  nonce: string;
  /** Scheme and authority under which the reader reached us. */
  baseUrl: string;
  startedAt: Date;
  roles?: readonly string[] | undefined;
  version?: string | undefined;
}

/** The promise that the bars are measured against, in seconds. */
const PROMISED_P99 = 0.25;

/** The whole page, or with `liveOnly` the part that moves, which the page's script puts in place. */
export function statusPage(facts: StatusFacts, frame: Frame, liveOnly: boolean): Fragment {
  const live = livePart(facts, frame);
  return liveOnly ? live : shell(frame, live, connectSection(facts, frame));
}

function livePart(facts: StatusFacts, frame: Frame): Fragment {
  const mismatched = facts.mismatches.reduce((sum, m) => sum + m.count, 0);
  return html`
      ${heading(facts, frame, mismatched)}
      <section class="cards" aria-label="Headline figures">
        ${lagCard(facts)}
        ${card(
          'Mismatch',
          String(mismatched),
          mismatched === 0
            ? html`access is what the directories say`
            : html`${facts.mismatches.map((m) => html`<span class="tag">${m.kind.replaceAll('_', ' ')} ${m.count}</span> `)}`,
          mismatched > 0 ? 'bad' : 'good',
        )}
        ${card(
          'Unapplied',
          facts.unapplied.toLocaleString('en'),
          facts.oldestUnapplied === null
            ? html`every change is effective`
            : html`oldest waits ${duration(facts.oldestUnapplied)}`,
          (facts.oldestUnapplied ?? 0) > 5 ? 'bad' : facts.unapplied > 0 ? 'busy' : 'good',
        )}
        ${card(
          'Parked',
          facts.parked.toLocaleString('en'),
          facts.parked === 0 ? html`none set aside` : html`set aside for a person; replay them by the API`,
          facts.parked > 0 ? 'bad' : 'good',
        )}
      </section>
      ${changesSection(facts)} ${directoriesSection(facts)}
    `;
}

export function awayPage(frame: Frame, liveOnly: boolean): Fragment {
  const live = html`<header>
        ${wordmark()}
        <p class="state bad">the database does not answer</p>
      </header>
      <p>
        Nothing is lost: what was acknowledged is in the database and becomes effective when it is back. This page looks
        again by itself. <code>/readyz</code> says what is missing.
      </p>`;
  return liveOnly ? live : shell(frame, live);
}

function shell(frame: Frame, live: Fragment, rest: Fragment = html``): Fragment {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Lockstep</title>
<link rel="icon" href="data:,">
<noscript><meta http-equiv="refresh" content="5"></noscript>
<style nonce="${frame.nonce}">${new Fragment(style)}</style>
</head>
<body>
<main><div id="live">${live}</div>${rest}</main>
<script nonce="${frame.nonce}">${new Fragment(script)}</script>
</body>
</html>
`;
}

function wordmark(): Fragment {
  return html`<h1>
    <svg viewBox="0 0 24 24" width="26" height="26" aria-hidden="true">
      <rect class="mark-a" x="3" y="4" width="7" height="16" rx="2" />
      <rect class="mark-b" x="14" y="4" width="7" height="16" rx="2" />
    </svg>
    Lockstep
  </h1>`;
}

function heading(facts: StatusFacts, frame: Frame, mismatched: number): Fragment {
  const [tone, words] =
    mismatched > 0
      ? ['bad', `${count(mismatched, 'member does', 'members do')} not match`]
      : facts.parked > 0
        ? ['bad', `${count(facts.parked, 'change is', 'changes are')} parked`]
        : facts.unapplied > 0
          ? ['busy', `${count(facts.unapplied, 'change', 'changes')} on the way`]
          : ['good', 'in lockstep'];
  const uptime = duration((facts.readAt.getTime() - frame.startedAt.getTime()) / 1000);
  return html`<header>
    ${wordmark()}
    <p class="state ${tone}">${words}</p>
    <p class="about">
      ${frame.roles ? html`${frame.roles.join(' · ')} · ` : ''}up ${uptime}${frame.version ? html` · ${frame.version}` : ''}
      · ${count(facts.tenants, 'tenant', 'tenants')} · read ${facts.readAt.toISOString().slice(11, 19)} UTC
    </p>
  </header>`;
}

function card(title: string, figure: string, note: Fragment, tone: string): Fragment {
  return html`<article class="card ${tone}">
    <h2>${title}</h2>
    <p class="figure">${figure}</p>
    <p class="note">${note}</p>
  </article>`;
}

function lagCard(facts: StatusFacts): Fragment {
  const { lag } = facts;
  const tone = lag === null ? 'idle' : lag.p99 > 1 ? 'bad' : lag.p99 > PROMISED_P99 ? 'busy' : 'good';
  return html`<article class="card wide ${tone}">
    <h2>Sync lag</h2>
    <p class="figure">
      ${lag === null ? '–' : html`${duration(lag.p50)} <small>p50</small> ${duration(lag.p99)} <small>p99</small>`}
    </p>
    ${
      lag === null
        ? html`<p class="note">no change of a directory has been applied yet</p>`
        : html`${sparkline(facts.lags)}
            <p class="note">from the source to effective, latest ${count(lag.count, 'change', 'changes')}; promised p99 250 ms</p>`
    }
  </article>`;
}

/** One bar a change, the newest at the right; full height is twice the promise or the slowest, the line is the promise. */
function sparkline(lags: number[]): Fragment {
  const height = 36;
  const top = Math.max(2 * PROMISED_P99, ...lags);
  const y = (seconds: number) => height - Math.max(1.5, (seconds / top) * height);
  const step = 240 / 60;
  const from = 240 - lags.length * step;
  const line = height - (PROMISED_P99 / top) * height;
  return html`<svg class="spark" viewBox="0 0 240 ${height}" preserveAspectRatio="none" role="img"
    aria-label="Lag of the latest ${lags.length} changes">
    <line x1="0" x2="240" y1="${line.toFixed(1)}" y2="${line.toFixed(1)}" />
    ${lags.map(
      (seconds, i) =>
        html`<rect class="${toneOf(seconds)}" x="${(from + i * step).toFixed(1)}" y="${y(seconds).toFixed(1)}"
          width="${step - 1}" height="${(height - y(seconds)).toFixed(1)}"><title>${duration(seconds)}</title></rect>`,
    )}
  </svg>`;
}

function toneOf(lagSeconds: number): string {
  return lagSeconds > 1 ? 'bad' : lagSeconds > PROMISED_P99 ? 'busy' : 'good';
}

const CLASSES = ['leaver', 'sign-in', '', 'backfill'];

function changesSection(facts: StatusFacts): Fragment {
  if (facts.changes.length === 0) {
    return html`<section>
      <h2>Newest changes</h2>
      <p class="empty">None yet. Connect an identity provider below and assign somebody to the application.</p>
    </section>`;
  }
  return html`<section>
    <h2>Newest changes</h2>
    <div class="scroll"><table>
      <thead><tr><th>Who or what</th><th class="extra">Source</th><th class="extra">Tenant</th><th class="extra">When</th><th>State</th><th class="lag">Lag</th></tr></thead>
      <tbody>${facts.changes.map((change) => changeRow(change, facts.readAt))}</tbody>
    </table></div>
  </section>`;
}

function changeRow(change: ChangeLine, now: Date): Fragment {
  const end = change.appliedAt ?? now;
  const seconds = Math.max(0, (end.getTime() - change.sourceAt.getTime()) / 1000);
  const applied = change.state === 'applied';
  const label = CLASSES[change.class];
  const tone = change.state === 'parked' ? 'bad' : applied ? 'good' : 'busy';
  return html`<tr>
    <td class="who">${label ? html`<span class="tag">${label}</span> ` : ''}${
      change.who ?? (change.kind === 'user' ? 'a user who is gone' : change.kind)
    }${change.error ? html`<small class="error">${change.error.slice(0, 140)}</small>` : ''}</td>
    <td class="extra">${change.directory ?? change.source}</td>
    <td class="extra">${change.slug}</td>
    <td class="extra">${ago(change.sourceAt, now)}</td>
    <td><span class="dot ${tone}"></span>${change.state}</td>
    <td class="lag">${change.state === 'parked' ? '' : lagBar(seconds, applied)}</td>
  </tr>`;
}

/** Logarithmic from 1 ms to 100 s, so that 50 ms and 5 s can both be seen. */
function lagBar(seconds: number, applied: boolean): Fragment {
  const share = Math.min(1, Math.max(0.04, (Math.log10(Math.max(seconds, 0.001)) + 3) / 5));
  return html`<svg class="bar" viewBox="0 0 60 6" width="60" height="6" aria-hidden="true">
      <rect class="rail" width="60" height="6" rx="3" />
      <rect class="${applied ? toneOf(seconds) : 'idle'}" width="${(60 * share).toFixed(1)}" height="6" rx="3" />
    </svg><span class="num">${applied ? duration(seconds) : '…'}</span>`;
}

function directoriesSection(facts: StatusFacts): Fragment {
  return html`<section>
    <h2>Directories</h2>
    ${
      facts.directories.length === 0
        ? html`<p class="empty">None yet.</p>`
        : html`<div class="scroll"><table>
      <thead><tr><th>Directory</th><th>Tenant</th><th class="extra">Kind</th><th class="num">Users</th><th>Last change</th></tr></thead>
      <tbody>${facts.directories.map((d) => directoryRow(d, facts.readAt))}</tbody>
    </table></div>`
    }
    ${facts.furtherDirectories > 0 ? html`<p class="note">and ${facts.furtherDirectories.toLocaleString('en')} more</p>` : ''}
  </section>`;
}

function directoryRow(directory: DirectoryLine, now: Date): Fragment {
  const users =
    directory.users >= USERS_COUNTED
      ? `${USERS_COUNTED.toLocaleString('en')}+`
      : directory.users.toLocaleString('en');
  return html`<tr>
    <td class="who">${directory.name} ${directory.paused ? html`<span class="tag warn">paused</span>` : ''}</td>
    <td>${directory.tenant}</td>
    <td class="extra">${directory.kind}</td>
    <td class="num">${users}</td>
    <td>${
      directory.lastChangeAt === null
        ? html`<span class="faint">none yet</span>`
        : ago(directory.lastChangeAt, now)
    }</td>
  </tr>`;
}

function connectSection(facts: StatusFacts, frame: Frame): Fragment {
  const directory = facts.directories.find((d) => d.kind === 'scim');
  const base = `${frame.baseUrl}/scim/v2/${directory?.id ?? '{directory}'}`;
  const tokens = `${frame.baseUrl}/v1/tenants/${directory?.slug ?? '{tenant}'}/directories/${directory?.id ?? '{directory}'}/tokens`;
  return html`<section class="connect">
    <h2>Connect an identity provider</h2>
    <p>It takes two values: the SCIM base URL${directory ? html` of “${directory.name}”` : ''}, and a token of that directory.</p>
    <pre><code>${base}</code></pre>
    <pre><code>curl -X POST ${tokens} \\
  -H "Authorization: Bearer $LOCKSTEP_OPERATOR_KEY"</code></pre>
    <div class="columns">
      <article>
        <h3>Okta</h3>
        <ol>
          <li>In the application: <b>General</b>, tick <b>Enable SCIM provisioning</b>.</li>
          <li><b>Provisioning → Integration</b>: the base URL goes into <b>SCIM connector base URL</b>; the unique identifier is <code>userName</code>; tick push of users, of profile updates and of groups.</li>
          <li>Authentication mode <b>HTTP Header</b>: paste the token. <b>Test</b>, then save.</li>
          <li><b>To App</b>: tick create, update and deactivate. Then assign people, and push groups.</li>
        </ol>
      </article>
      <article>
        <h3>Entra ID</h3>
        <ol>
          <li>In the enterprise application: <b>Provisioning</b>, mode <b>Automatic</b>.</li>
          <li>The base URL goes into <b>Tenant URL</b>, the token into <b>Secret Token</b>.</li>
          <li><b>Test Connection</b>, then save and <b>Start provisioning</b>.</li>
          <li>Assign users and groups. Entra pushes about every 40 minutes; <b>Provision on demand</b> pushes one person now.</li>
        </ol>
      </article>
    </div>
    <p class="note">An IdP in the cloud needs a public HTTPS address that leads here. <a href="/v1/openapi.json">API</a> · <a href="/metrics">metrics</a> · <a href="/readyz">readiness</a></p>
  </section>`;
}

function ago(at: Date, now: Date): string {
  const seconds = (now.getTime() - at.getTime()) / 1000;
  return seconds < 1 ? 'just now' : `${duration(seconds)} ago`;
}

function count(n: number, one: string, many: string): string {
  return `${n.toLocaleString('en')} ${n === 1 ? one : many}`;
}

/** A length of time for people. @param seconds never negative on the page */
export function duration(seconds: number): string {
  const s = Math.max(0, seconds);
  if (s < 0.9995) return `${Math.round(s * 1000)} ms`;
  if (s < 9.95) return `${s.toFixed(1)} s`;
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 90 * 60) return `${Math.round(s / 60)} min`;
  if (s < 36 * 3600) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86_400)} d`;
}
