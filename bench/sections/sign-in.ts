/**
 * Sign-ins, from the request to the session's tokens: with nothing else to do, while another tenant works off a backlog,
 * and while the same tenant does. And leavers: from the commit of the push that lets somebody go until introspection, asked
 * as fast as it answers, says no, with joiners pushed at half of what the machine can do.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Bench, Section } from '../bench.ts';
import type { Lockstep } from '../lockstep.ts';
import { patchInactive, postUser } from '../operations.ts';
import { amount, median, percentile } from '../report.ts';
import { copyPeople, type Filled, pendingChanges, untilEffective } from '../seed.ts';

const TIMES_IDLE = 3;
const FLOOR_MS = 250;
const DENIAL_SECONDS = 1;
const MEMBERS = 1_000;

export const signIn: Section = {
  name: 'Sign-in',
  seconds: { quick: 60, full: 180 },
  async run(bench) {
    const lockstep = await bench.lockstep('all');
    await untilEffective(bench.postgres);
    await besideBacklogs(bench, lockstep);
    await denials(bench, lockstep);
  },
};

async function besideBacklogs(bench: Bench, lockstep: Lockstep): Promise<void> {
  const people = bench.quick ? 100 : 300;
  const copies = bench.quick ? 3 : 10;
  const name = `${(10_000 * copies).toLocaleString('en-US')} changes`;
  const add = (what: string, times: number[], idleP99?: number) => {
    const p99 = percentile(times, 0.99);
    const limit = idleP99 === undefined ? undefined : Math.max(TIMES_IDLE * idleP99, FLOOR_MS);
    bench.report.add({
      section: signIn.name,
      name: `sign-in to session p50, ${what}`,
      value: median(times),
      unit: 'ms',
    });
    bench.report.add({
      section: signIn.name,
      name: `sign-in to session p99, ${what}`,
      value: p99,
      unit: 'ms',
      ...(limit === undefined
        ? {}
        : {
            targets: [
              {
                words: `≤ the larger of ${TIMES_IDLE} × idle and ${FLOOR_MS} ms`,
                reached: p99 <= limit,
                measured: amount(p99, 'ms'),
              },
            ],
          }),
    });
    return p99;
  };

  bench.note('signing in, nothing else to do');
  const staff = async () =>
    copyPeople(bench.postgres, bench.template, await lockstep.createTenant(bench.slug()), MEMBERS, {
      members: true,
    });
  const idle = await staff();
  await signIns(lockstep, idle, 0, 20);
  const idleP99 = add('nothing else to do', await signIns(lockstep, idle, 20, people));

  bench.note('seeding another tenant’s backlog');
  const beside = await staff();
  await signIns(lockstep, beside, 0, 20);
  const other = await lockstep.createTenant(bench.slug());
  await backlog(bench, other, copies);
  const whileOther = await signIns(lockstep, beside, 20, people, () =>
    pendingChanges(bench.postgres, other.tenantId),
  );
  add(`another tenant works off ${name}`, whileOther, idleP99);
  await untilEffective(bench.postgres);

  bench.note('seeding the same tenant’s backlog');
  const same = await staff();
  await signIns(lockstep, same, 0, 20);
  await backlog(bench, same, copies);
  const whileSame = await signIns(lockstep, same, 20, people, () =>
    pendingChanges(bench.postgres, same.tenantId),
  );
  add(`the same tenant works off ${name}`, whileSame, idleP99);
  bench.report.add({
    section: signIn.name,
    name: 'changes still before the last of them',
    value: await pendingChanges(bench.postgres, same.tenantId),
    unit: 'changes',
  });
  await untilEffective(bench.postgres);
}

async function denials(bench: Bench, lockstep: Lockstep): Promise<void> {
  const leavers = bench.quick ? 20 : 100;
  const fresh = async (count: number) =>
    copyPeople(bench.postgres, bench.template, await lockstep.createTenant(bench.slug()), count, {
      members: true,
    });
  bench.note('end-to-end capacity');
  const flooded = await fresh(MEMBERS);
  const startedAt = Date.now();
  const flood = await bench.generator.run({
    port: lockstep.port,
    concurrency: 64,
    seconds: bench.quick ? 2 : 6,
    plan: postUser(flooded),
  });
  await untilEffective(bench.postgres, flooded.tenantId);
  const capacity = flood.done / ((Date.now() - startedAt) / 1000);

  bench.note(`leavers at ${Math.round(capacity / 2)} joiners a second`);
  const staff = await fresh(MEMBERS);
  const steady = await fresh(MEMBERS);
  const { key } = await lockstep.call<{ key: string }>('POST', '/keys', { scopes: ['sessions:introspect'] });
  let over = false;
  const load = (async () => {
    while (!over) {
      await bench.generator.run({
        port: lockstep.port,
        concurrency: 64,
        seconds: 2,
        rate: capacity / 2,
        plan: postUser(steady),
      });
    }
  })();
  const seconds: number[] = [];
  for (const person of staff.people.slice(0, leavers)) {
    const token = await signInOf(lockstep, staff, person.name);
    await patchInactive(lockstep.port, staff, person.id);
    const deniedAt = await untilDenied(lockstep.port, key, token);
    seconds.push(Math.max(0, deniedAt - (await committedAt(bench, person.id))) / 1000);
  }
  over = true;
  await load;
  const p99 = percentile(seconds, 0.99);
  const rate = `${Math.round(capacity / 2).toLocaleString('en-US')} joiners a second`;
  bench.report.add({
    section: signIn.name,
    name: `leaver commit to denial p50, ${rate}`,
    value: median(seconds) * 1000,
    unit: 'ms',
  });
  bench.report.add({
    section: signIn.name,
    name: `leaver commit to denial p99, ${rate}`,
    value: p99 * 1000,
    unit: 'ms',
    targets: [
      { words: `< ${DENIAL_SECONDS} s`, reached: p99 < DENIAL_SECONDS, measured: amount(p99 * 1000, 'ms') },
    ],
  });
}

/** A backlog whose lane has begun: the first batch is through. */
async function backlog(
  bench: Bench,
  target: { tenantId: string } & Parameters<typeof copyPeople>[2],
  copies: number,
) {
  await copyPeople(bench.postgres, bench.template, target, 10_000, {
    times: copies,
    pending: true,
    strangers: true,
  });
  while ((await pendingChanges(bench.postgres, target.tenantId)) >= 10_000 * copies) await sleep(20);
}

/**
 * Signs members of a tenant in, one after the other, each for the first time.
 * @param left how much of a backlog is still there; a sign-in after its end does not count
 * @returns milliseconds of each
 */
async function signIns(
  lockstep: Lockstep,
  tenant: Filled,
  from: number,
  count: number,
  left?: () => Promise<number>,
): Promise<number[]> {
  const times: number[] = [];
  for (const person of tenant.people.slice(from, from + count)) {
    const startedAt = performance.now();
    await signInOf(lockstep, tenant, person.name);
    times.push(performance.now() - startedAt);
    if (left && times.length % 20 === 0 && (await left()) === 0) {
      times.splice(-20);
      break;
    }
  }
  return times;
}

async function signInOf(lockstep: Lockstep, tenant: Filled, email: string): Promise<string> {
  const { accessToken } = await lockstep.call<{ accessToken: string }>(
    'POST',
    `/tenants/${tenant.tenantId}/sign-ins`,
    { subject: email, email },
  );
  return accessToken;
}

/** @returns when the first answer that says no was there, in milliseconds since 1970 */
async function untilDenied(port: number, key: string, token: string): Promise<number> {
  for (const until = Date.now() + 60_000; Date.now() < until; ) {
    const response = await fetch(`http://127.0.0.1:${port}/v1/sessions/introspect`, {
      method: 'POST',
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
      body: JSON.stringify({ token }),
    });
    const { active } = (await response.json()) as { active: boolean };
    if (!active) return performance.timeOrigin + performance.now();
  }
  throw new Error('a leaver is still let in after a minute');
}

/** When the push was committed, as PostgreSQL recorded it. */
async function committedAt(bench: Bench, userId: string): Promise<number> {
  const { rows } = await bench.postgres.sql.query<{ at: number }>(
    `select extract(epoch from pg_xact_commit_timestamp(xmin))::float8 * 1000 as at from mirror_user where id = $1`,
    [userId],
  );
  return rows[0]?.at ?? Number.NaN;
}
