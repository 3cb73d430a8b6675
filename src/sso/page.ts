/** The pages of a sign-in: small, without script or anything from elsewhere, everything that is shown escaped. */
import { createHash } from 'node:crypto';
import type { Response } from 'express';
import { Fragment, html } from '../http/html.ts';
import { type RefusalReason, refusals } from './refusal.ts';

export interface Page {
  status: number;
  title: string;
  body: Fragment;
}

export interface PageHeaders {
  /** Where forms of the page may go: an origin or URL; default nowhere. */
  formAction?: string;
  /** An inline script of the page; without it none runs. */
  script?: string;
}

/**
 * Sends a page that nothing caches, frames or learns the address of. Style and script are allowed by their hashes, so that
 * two pages that say the same are the same bytes.
 */
export function sendPage(res: Response, page: Page, headers: PageHeaders = {}): void {
  const scripts = headers.script === undefined ? '' : `script-src ${hashOf(headers.script)}; `;
  res
    .status(page.status)
    .set({
      'cache-control': 'no-store',
      'content-security-policy':
        `default-src 'none'; style-src ${hashOf(style)}; ${scripts}img-src data:; base-uri 'none'; ` +
        `form-action ${headers.formAction ?? "'none'"}; frame-ancestors 'none'`,
      'referrer-policy': 'no-referrer',
      'x-content-type-options': 'nosniff',
      'x-frame-options': 'DENY',
    })
    .type('html')
    .send(shell(page, headers.script).markup);
}

function hashOf(inline: string): string {
  return `'sha256-${createHash('sha256').update(inline).digest('base64')}'`;
}

function shell(page: Page, script: string | undefined): Fragment {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>${page.title}</title>
<link rel="icon" href="data:,">
<style>${new Fragment(style)}</style>
</head>
<body>
<main>
<h1>${page.title}</h1>
${page.body}
</main>
${script === undefined ? '' : html`<script>${new Fragment(script)}</script>`}
</body>
</html>
`;
}

/** What went wrong, what to do, and what to quote. @param more see Refusal */
export function refusalPage(
  reason: RefusalReason,
  requestId: string,
  more: { said?: string | undefined; advice?: string | undefined } = {},
): Page {
  const { status, what, next } = refusals[reason];
  return {
    status,
    title: 'You are not signed in',
    body: html`<p>${what}</p>
${more.said === undefined ? '' : html`<p class="note">The identity provider says: ${more.said}</p>`}
<p>${next}</p>
${more.advice === undefined ? '' : html`<p class="note">${more.advice}</p>`}
<dl><dt>Reason</dt><dd><code>${reason}</code></dd><dt>Request id</dt><dd><code>${requestId}</code></dd></dl>`,
  };
}

/** For who came without an application to go back to. */
export function signedInPage(who: string | null): Page {
  return {
    status: 200,
    title: 'You are signed in',
    body: html`<p>${who === null ? 'Your sign-in was accepted.' : html`Your sign-in as <strong>${who}</strong> was accepted.`}</p>
<p>Open your application to go on. You can close this page.</p>`,
  };
}

/** Sends the browser on: by a redirect, or with fields by POST, which a form on a page does by itself. */
export function sendOn(res: Response, to: { location: string; fields?: Record<string, string> }): void {
  const { location, fields } = to;
  if (!fields) {
    res.status(303).set({ location, 'cache-control': 'no-store', 'referrer-policy': 'no-referrer' }).end();
    return;
  }
  const page: Page = {
    status: 200,
    title: 'One moment',
    body: html`<form method="post" action="${location}">${Object.entries(fields).map(
      ([name, value]) => html`<input type="hidden" name="${name}" value="${value}">`,
    )}<p><button>Go on</button></p></form>`,
  };
  // Browsers hold the redirects of whom a form goes to against form-action as well.
  sendPage(res, page, { formAction: 'https: http:', script: 'document.forms[0].submit();' });
}

/** The identity provider has ended the sessions here, and does not ask to be told. */
export function signedOutPage(): Page {
  return { status: 200, title: 'You are signed out', body: html`<p>You can close this page.</p>` };
}

/** Which of several ways to sign in. @param ways each with the address that begins it */
export function choicePage(ways: { name: string; href: string }[]): Page {
  return {
    status: 200,
    title: 'Sign in',
    body: html`<p id="ways">Choose how to sign in.</p>
<nav aria-labelledby="ways"><ul class="ways">${ways.map(
      ({ name, href }) => html`<li><a href="${href}">${name}</a></li>`,
    )}</ul></nav>`,
  };
}

/** What a test sign-in received and would have made. */
export interface TestResult {
  connection: string;
  issuer: string | null;
  /** What Lockstep read: name → value, null where nothing was said. */
  profile: Record<string, string | null>;
  /** As the identity provider sent it. */
  received: Record<string, unknown>;
  verdict: TestVerdict;
  /** What an administrator should know of what was received. */
  notes: string[];
}

export type TestVerdict =
  | { kind: 'refused'; reason: RefusalReason }
  | { kind: 'admitted'; member: string; how: string; roles: { role: string; because: string }[] };

export function testPage(result: TestResult): Page {
  const { verdict } = result;
  return {
    status: 200,
    title: 'Test of a sign-in',
    body: html`<p>Nothing was written: no member, no role, no session. Connection <strong>${result.connection}</strong>${
      result.issuer === null ? '' : html`, identity provider <code>${result.issuer}</code>`
    }.</p>
${verdictPart(verdict)}
${result.notes.map((note) => html`<p class="note">${note}</p>`)}
<h2>What was read</h2>
<table><tbody>${Object.entries(result.profile).map(
      ([name, value]) =>
        html`<tr><th scope="row">${name}</th><td>${value === null ? html`<em>not said</em>` : html`<code>${value}</code>`}</td></tr>`,
    )}</tbody></table>
<h2>What was received</h2>
<table><thead><tr><th scope="col">Claim</th><th scope="col">Value</th></tr></thead><tbody>${Object.entries(
      result.received,
    ).map(
      ([name, value]) => html`<tr><th scope="row">${name}</th><td><code>${shown(value)}</code></td></tr>`,
    )}</tbody></table>`,
  };
}

function verdictPart(verdict: TestVerdict): Fragment {
  if (verdict.kind === 'refused') {
    const { what, next } = refusals[verdict.reason];
    return html`<h2>It would be refused</h2>
<p>${what} (<code>${verdict.reason}</code>)</p><p>${next}</p>`;
  }
  return html`<h2>It would be let in</h2>
<p>As <strong>${verdict.member}</strong>: ${verdict.how}.</p>
${
  verdict.roles.length === 0
    ? html`<p>Without any role.</p>`
    : html`<table><thead><tr><th scope="col">Role</th><th scope="col">Because</th></tr></thead><tbody>${verdict.roles.map(
        ({ role, because }) => html`<tr><th scope="row">${role}</th><td>${because}</td></tr>`,
      )}</tbody></table>`
}`;
}

function shown(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? '');
}

const style = `
:root { --bg:#f6f7f9; --panel:#fff; --ink:#16191f; --soft:#5d6675; --line:#e3e6eb; --accent:#3457d5; --code:#f1f3f7; }
@media (prefers-color-scheme: dark) { :root { --bg:#101216; --panel:#181b21; --ink:#e8eaee; --soft:#98a1b0;
  --line:#2a2f38; --accent:#8ea6ff; --code:#111419; } }
* { box-sizing:border-box; }
body { margin:0; background:var(--bg); color:var(--ink); font:16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width:620px; margin:10vh auto 64px; padding:28px 28px 24px; background:var(--panel); border:1px solid var(--line);
  border-radius:12px; overflow-wrap:anywhere; }
h1 { font-size:22px; letter-spacing:-.02em; margin:0 0 12px; } h2 { font-size:15px; margin:24px 0 8px; }
p { margin:0 0 12px; } .note { border-left:3px solid var(--accent); padding-left:12px; }
dl { display:grid; grid-template-columns:auto 1fr; gap:2px 14px; margin:20px 0 0; font-size:14px; color:var(--soft); }
dd { margin:0; } code { font:13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background:var(--code);
  border-radius:4px; padding:1px 4px; }
table { border-collapse:collapse; width:100%; font-size:14px; } th, td { text-align:left; vertical-align:top;
  padding:6px 12px 6px 0; border-top:1px solid var(--line); } th { font-weight:500; color:var(--soft); }
.ways { list-style:none; margin:0; padding:0; } .ways a { display:block; padding:12px 16px; margin:0 0 8px; color:var(--ink);
  border:1px solid var(--line); border-radius:8px; text-decoration:none; font-weight:500; }
.ways a:hover, .ways a:focus-visible { border-color:var(--accent); }
label { font-weight:500; } input[type=email] { width:100%; padding:10px 12px; font:inherit; color:var(--ink); background:var(--bg);
  border:1px solid var(--line); border-radius:8px; } button { padding:10px 18px; font:inherit; font-weight:500; color:#fff;
  background:#3457d5; border:0; border-radius:8px; cursor:pointer; }
@media (max-width:680px) { main { margin:0; min-height:100vh; border:0; border-radius:0; } }
`;
