/**
 * Groups of 10, 1,000, 10,000 and 50,000: one member added and removed, and the group read without its members. The
 * cost must not grow with the group. The groups take turns, so that the machine's moods hit them alike. Workers
 * stopped, one caller.
 */
import { perSecond, rounds, type Section } from '../bench.ts';
import type { Plan } from '../generator.ts';
import { patchMember } from '../operations.ts';
import { atMost, median } from '../report.ts';
import { copyPeople, type GroupedGround, withGroups } from '../seed.ts';

const SIZES = [10, 1_000, 10_000, 50_000];
const [SMALLEST = 0] = SIZES;
const LARGEST = Math.max(...SIZES);
const TARGET = 1.5;

const OPERATIONS: Record<string, (ground: GroupedGround, size: number) => Plan> = {
  'PATCH one member': (ground, size) => patchMember(ground, size, 1),
  'GET, excludedAttributes=members': (ground, size) => ({
    method: 'GET',
    path: `${ground.path}/Groups/${ground.groups[size]}?excludedAttributes=members`,
    headers: ground.headers,
    expect: [200],
  }),
};

export const group: Section = {
  name: 'Groups by size, workers stopped, c=1',
  seconds: { quick: 20, full: 100 },
  async run(bench) {
    const { postgres, template } = bench;
    const lockstep = await bench.lockstep('api');
    bench.note(`filling a tenant with ${LARGEST} users`);
    const target = await lockstep.createTenant(bench.slug());
    const times = LARGEST / template.people.length;
    const filled = await copyPeople(postgres, template, target, template.people.length, { times });
    const ground = await withGroups(postgres, filled, SIZES);

    const seconds = bench.quick ? 0.5 : 2;
    const all = (duration: number) => {
      const measurements: Record<string, () => Promise<number>> = {};
      for (const [name, plan] of Object.entries(OPERATIONS)) {
        for (const size of SIZES) {
          measurements[`${name} ${size}`] = async () => {
            bench.note(`${name}, group of ${size}`);
            const order = {
              port: lockstep.port,
              concurrency: 1,
              seconds: duration,
              plan: plan(ground, size),
            };
            return 1000 / perSecond(await bench.generator.run(order));
          };
        }
      }
      return measurements;
    };
    await rounds(1, all(0.3));
    const found = await rounds(bench.quick ? 3 : 5, all(seconds));
    for (const name of Object.keys(OPERATIONS)) {
      const beside = {
        name: `group of ${SMALLEST}`,
        value: median(found[`${name} ${SMALLEST}`] ?? []),
      };
      for (const size of SIZES) {
        const value = median(found[`${name} ${size}`] ?? []);
        bench.report.add({
          section: group.name,
          name: `${name}, group of ${size.toLocaleString('en-US')}`,
          value,
          unit: 'ms',
          beside: [beside],
          targets: size === LARGEST ? [atMost(TARGET, value, beside)] : [],
        });
      }
    }
  },
};
