/**
 * Leavers behind a backlog of 100,000 changes of their own tenant: from the moment PATCH active=false leaves the
 * identity provider until the transaction that suspended the member had committed, as PostgreSQL recorded it. Only
 * those count that left while most of the backlog was still there.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Bench, Section } from '../bench.ts';
import { patchInactive } from '../operations.ts';
import { amount, median } from '../report.ts';
import { copyPeople, type Filled, pendingChanges, untilEffective } from '../seed.ts';

const TARGET_SECONDS = 1;
const LEAVERS = 10;

export const leaver: Section = {
  name: 'A leaver behind a backlog of the same tenant',
  seconds: { quick: 25, full: 60 },
  async run(bench) {
    const lockstep = await bench.lockstep('all');
    const times = bench.quick ? 3 : 10;
    await untilEffective(bench.postgres);
    bench.note('seeding the backlog');
    const target = await lockstep.createTenant(bench.slug());
    const staff = await copyPeople(bench.postgres, bench.template, target, LEAVERS, { members: true });
    await copyPeople(bench.postgres, bench.template, target, 10_000, {
      times,
      pending: true,
      strangers: true,
    });
    const backlog = 10_000 * times;
    const seconds: number[] = [];
    const behind: number[] = [];
    // The lane has begun when the first batch is through.
    while ((await pendingChanges(bench.postgres, target.tenantId)) >= backlog) await sleep(20);
    for (const person of staff.people) {
      bench.note(`leaver ${seconds.length + 1} of ${LEAVERS}`);
      const left = await pendingChanges(bench.postgres, target.tenantId);
      const sentAt = performance.timeOrigin + performance.now();
      await patchInactive(lockstep.port, staff, person.id);
      seconds.push(((await suspendedAt(bench, staff, person.id)) - sentAt) / 1000);
      behind.push(left);
      await sleep(200);
    }
    const name = `${backlog.toLocaleString('en-US')} changes`;
    const slowest = Math.max(...seconds);
    bench.report.add({
      section: leaver.name,
      name: `effective, behind ${name}, median of ${LEAVERS}`,
      value: median(seconds) * 1000,
      unit: 'ms',
    });
    bench.report.add({
      section: leaver.name,
      name: `effective, behind ${name}, slowest of ${LEAVERS}`,
      value: slowest * 1000,
      unit: 'ms',
      targets: [
        {
          words: `≤ ${TARGET_SECONDS} s`,
          reached: slowest <= TARGET_SECONDS && Math.min(...behind) > 0,
          measured: amount(slowest * 1000, 'ms'),
        },
      ],
    });
    bench.report.add({
      section: leaver.name,
      name: 'changes still before the last of them',
      value: Math.min(...behind),
      unit: 'changes',
    });
  },
};

async function suspendedAt(bench: Bench, tenant: Filled, userId: string): Promise<number> {
  for (const until = Date.now() + 60_000; Date.now() < until; await sleep(5)) {
    const { rows } = await bench.postgres.sql.query<{ at: number }>(
      `select extract(epoch from pg_xact_commit_timestamp(m.xmin))::float8 * 1000 as at
       from link l join member m on m.id = l.member_id
       where l.tenant_id = $1 and l.user_id = $2 and m.status = 'suspended'`,
      [tenant.tenantId, userId],
    );
    if (rows[0]) return rows[0].at;
  }
  throw new Error('a leaver still has access after a minute');
}
