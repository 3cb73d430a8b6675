/**
 * Access at the end, from outside: members against the simulated directories, what the directories were told against what
 * they have, what the product itself calls a mismatch, and whether sessions are as good as the people they are of.
 */
import type pg from 'pg';
import type { Member } from '../../src/demo/outside.ts';
import type { Backend } from '../backend.ts';
import type { Tenant } from '../tenant.ts';
import type { Check } from './check.ts';

/** The newest of each tenant; older ones only of people who are out. */
const MOST_SESSIONS = 150;

export async function checkMembers(backend: Backend, tenants: readonly Tenant[]): Promise<Check[]> {
  const violations: string[] = [];
  const lost: string[] = [];
  let [compared, rows] = [0, 0];
  for (const tenant of tenants) {
    const members = await backend.all<Member>(`/tenants/${tenant.slug}/members`);
    const result = tenant.compare(members);
    compared += result.compared;
    violations.push(...result.differences.map((words) => `${tenant.slug}: ${words}`));
    const mirror = await tenant.compareMirror();
    rows += mirror.compared;
    lost.push(...mirror.differences.map((words) => `${tenant.slug}: ${words}`));
  }
  return [
    { name: 'members are as the sources say', words: `${compared} people recomputed`, violations },
    {
      name: 'no acknowledged write is lost',
      words: `${rows} users and groups read back`,
      violations: [
        ...lost,
        ...tenants.flatMap((t) => t.offences.filter((o) => o.startsWith('never acknowledged'))),
      ],
    },
    {
      name: 'nobody was let in or refused wrongly',
      words: `${tenants.reduce((sum, t) => sum + t.rules.sessions.length, 0)} sign-ins`,
      violations: tenants.flatMap((t) =>
        t.offences.filter((o) => !o.startsWith('never acknowledged')).map((o) => `${t.slug}: ${o}`),
      ),
    },
  ];
}

/** The product's own words: /v1, and what its metrics count. */
export async function checkReported(
  backend: Backend,
  tenants: readonly Tenant[],
  processes: readonly string[],
): Promise<Check> {
  const violations: string[] = [];
  for (const { slug } of tenants) {
    const found = await backend.all<{ kind: string; state: string; side: string; detail: string }>(
      `/tenants/${slug}/mismatches`,
    );
    violations.push(...found.map((m) => `${slug}: ${m.state} ${m.kind} (${m.side}): ${m.detail}`));
    const parked = await backend.all<{ error: string | null }>(`/tenants/${slug}/changes?state=parked`);
    violations.push(...parked.map((change) => `${slug}: parked: ${change.error}`));
  }
  let counted = 0;
  for (const url of processes) {
    const text = await (await fetch(`${url}/metrics`)).text();
    for (const [line, value] of text.matchAll(
      /^lockstep_(?:mismatch|parked_changes)(?:\{[^}]*\})? (\S+)$/gm,
    )) {
      counted += 1;
      if (Number(value) !== 0) violations.push(line);
    }
  }
  if (counted === 0) violations.push('no process exports lockstep_mismatch');
  return {
    name: 'the product reports no mismatch',
    words: `/v1 of ${tenants.length} tenants, ${counted} gauges`,
    violations,
  };
}

export async function checkSessions(
  backend: Backend,
  sql: pg.Pool,
  tenants: readonly Tenant[],
): Promise<Check> {
  // Before anything is refreshed. Introspection looks at the member as well, so that only the rows show an end that was missed.
  const open = await sql.query<{ id: string; status: string }>(
    `select s.id, m.status from session s join member m on m.id = s.member_id
     where s.revoked_at is null and s.expires_at > now() and m.status <> 'active'`,
  );
  const violations = open.rows.map((s) => `session ${s.id} has not ended, and its member is ${s.status}`);
  const seen = { out: 0, in: 0, 'out meanwhile': 0 };
  const introspect = (token: string) =>
    backend.call<{ active: boolean; roles?: string[] }>('POST', '/sessions/introspect', { token });
  for (const tenant of tenants) {
    const { sessions } = tenant.rules;
    const newest = Math.max(0, sessions.length - MOST_SESSIONS);
    for (const [n, { key, at, accessToken, refreshToken }] of sessions.entries()) {
      const out = tenant.isOut(key);
      if (out === undefined || (n < newest && !out)) continue;
      const before = await introspect(accessToken);
      const refreshed = await backend.ask<{ accessToken: string }>('POST', '/sessions/refresh', {
        refreshToken,
      });
      const who = `${tenant.slug}: session of ${key}`;
      if (out) {
        seen.out += 1;
        if (before.active) violations.push(`${who}, who is out, is active`);
        if (refreshed.status === 200) violations.push(`${who}, who is out, was refreshed`);
        continue;
      }
      const stayed = tenant.lastOutAt(key) < at;
      seen[stayed ? 'in' : 'out meanwhile'] += 1;
      if (refreshed.status !== 200) {
        if (stayed)
          violations.push(
            `${who}, who was in all the time: ${refreshed.status} ${JSON.stringify(refreshed.body)}`,
          );
        continue;
      }
      const now = await introspect(refreshed.body.accessToken);
      const [is, want] = [[...(now.roles ?? [])].sort().join(', '), tenant.rolesOf(key).join(', ')];
      if (!now.active) violations.push(`${who} was refreshed and is not active`);
      else if (is !== want && !tenant.rules.uncertain(key))
        violations.push(`${who}: roles ${is} instead of ${want}`);
    }
  }
  return {
    name: 'sessions are as good as their people',
    words: `${seen.in} of people who stayed, ${seen.out} of people who are out, ${seen['out meanwhile']} of people who were out meanwhile`,
    violations,
  };
}
