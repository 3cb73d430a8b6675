/**
 * Memory of one worker process while it works off a backlog of 10,000 changes and one of a hundred times as many: a
 * lane takes batches, so its memory follows the batch and not the backlog. Beside it the rate of both, which must not
 * fall as the backlog grows.
 */
import type { Bench, Section } from '../bench.ts';
import { amount, atLeast } from '../report.ts';
import { copyPeople, untilEffective } from '../seed.ts';

const SMALL = 10_000;
const COPIED_AT_ONCE = 100_000;
const MORE_MB = 30;

export const backlog: Section = {
  name: 'Converge, memory by backlog',
  seconds: { quick: 60, full: 420 },
  async run(bench) {
    const large = bench.quick ? 100_000 : 1_000_000;
    const small = await work(bench, SMALL);
    const big = await work(bench, large);
    const section = backlog.name;
    for (const [count, found] of [
      [SMALL, small],
      [large, big],
    ] as const) {
      bench.report.add({
        section,
        name: `resident at its highest, backlog of ${count.toLocaleString('en-US')}`,
        value: found.peakMb,
        unit: 'MB',
        ...(count === large && {
          targets: [
            {
              words: `≤ ${MORE_MB} MB more than with ${SMALL.toLocaleString('en-US')}`,
              reached: big.peakMb - small.peakMb <= MORE_MB,
              measured: `${amount(big.peakMb - small.peakMb, 'MB')} more`,
            },
          ],
        }),
      });
    }
    const first = { name: 'its first tenth', value: big.firstTenth };
    bench.report.add({
      section,
      name: `last tenth of ${large.toLocaleString('en-US')}`,
      value: big.lastTenth,
      unit: 'changes/s',
      beside: [first],
      targets: [atLeast(0.8, big.lastTenth, first)],
    });
  },
};

/** A worker of its own, warm from a small backlog, works off `count` changes of one tenant. */
async function work(
  bench: Bench,
  count: number,
): Promise<{ peakMb: number; firstTenth: number; lastTenth: number }> {
  const fleet = await bench.fleet({ workers: 1 });
  const [worker] = fleet.workers;
  const fill = async (n: number) => {
    const target = await fleet.createTenant(bench.slug(), [{ group: 'Everybody', role: 'viewer' }]);
    for (let from = 0; from < n; from += COPIED_AT_ONCE) {
      const part = Math.min(COPIED_AT_ONCE, n - from);
      const people = Math.min(part, bench.template.people.length);
      bench.note(`seeding ${from.toLocaleString('en-US')} of ${n.toLocaleString('en-US')}`);
      await copyPeople(bench.postgres, bench.template, target, people, {
        pending: true,
        held: true,
        times: part / people,
        firstCopy: from / people + 1,
      });
    }
    await bench.postgres.sql.query('analyze mirror_user, change');
    await bench.postgres.sql.query(
      `update change set retry_at = null where tenant_id = $1 and retry_at = 'infinity'`,
      [target.tenantId],
    );
    return target;
  };
  await fill(2_000);
  await untilEffective(bench.postgres);
  const target = await fill(count);
  bench.note(`converging ${count.toLocaleString('en-US')} changes`);
  await untilEffective(bench.postgres);
  const { rows } = await bench.postgres.sql.query<{ tenth: number; seconds: number; n: string }>(
    `with done as (select pg_xact_commit_timestamp(xmin) as at, ntile(10) over (order by id) as tenth
       from change where tenant_id = $1 and state = 'applied' and kind = 'user')
     select tenth, extract(epoch from max(at) - min(at))::float8 as seconds, count(*) as n from done
     group by 1 order by 1`,
    [target.tenantId],
  );
  const rate = (tenth: number) => {
    const row = rows.find((r) => r.tenth === tenth);
    return row ? Number(row.n) / row.seconds : Number.NaN;
  };
  return { peakMb: worker?.memory()?.peakMb ?? Number.NaN, firstTenth: rate(1), lastTenth: rate(10) };
}
