/**
 * One member added to and removed from a group of 10, 1,000 and 10,000: the cost of a membership must not grow with
 * the group. The groups take turns, so that the machine's moods hit them alike. Workers stopped.
 */
import { perSecond, rounds, type Section } from '../bench.ts';
import { median } from '../report.ts';
import { copyPeople } from '../seed.ts';

const SIZES = [10, 1_000, 10_000];
const TARGET = 1.5;

export const group: Section = {
  name: 'Group PATCH of one member, workers stopped, c=1',
  seconds: { quick: 10, full: 40 },
  async run(bench) {
    const lockstep = await bench.lockstep('api');
    const tenant = await copyPeople(
      bench.postgres,
      bench.template,
      await lockstep.createTenant(bench.slug()),
      10_000,
    );
    const outsiders = await copyOutsiders();
    const groups = new Map<number, string>();
    for (const size of SIZES) groups.set(size, await makeGroup(size));
    await bench.postgres.sql.query('analyze mirror_group_member');

    async function copyOutsiders() {
      const { rows } = await bench.postgres.sql.query<{ id: string; name: string }>(
        `with r as (select r.* from mirror_user u cross join lateral jsonb_populate_record(u, jsonb_build_object(
             'id', gen_random_uuid(), 'user_name', 'x.' || u.user_name, 'user_name_key', 'x.' || u.user_name_key)) r
           where u.directory_id = $1 limit 200)
         insert into mirror_user select * from r returning id, user_name as name`,
        [tenant.directoryId],
      );
      return rows;
    }

    async function makeGroup(size: number): Promise<string> {
      const response = await fetch(`http://127.0.0.1:${lockstep.port}${tenant.path}/Groups`, {
        method: 'POST',
        headers: tenant.headers,
        body: JSON.stringify({
          schemas: ['urn:ietf:params:scim:schemas:core:2.0:Group'],
          displayName: `Group of ${size}`,
          members: tenant.people.slice(0, size).map((p) => ({ value: p.id })),
        }),
      });
      if (response.status !== 201)
        throw new Error(`POST /Groups: ${response.status} ${await response.text()}`);
      return ((await response.json()) as { id: string }).id;
    }

    const patch = (operation: unknown) =>
      JSON.stringify({ schemas: ['urn:ietf:params:scim:api:messages:2.0:PatchOp'], Operations: [operation] });
    const measure = (size: number, seconds: number) => async () => {
      bench.note(`PATCH one member, group of ${size}`);
      const result = await bench.generator.run({
        port: lockstep.port,
        concurrency: 1,
        seconds,
        plan: {
          method: 'PATCH',
          path: `${tenant.path}/Groups/${groups.get(size)}`,
          bodies: [
            patch({ op: 'Add', path: 'members', value: [{ $ref: null, value: '{id}' }] }),
            patch({ op: 'Remove', path: 'members[value eq "{id}"]' }),
          ],
          order: 'pairs',
          values: outsiders,
          headers: tenant.headers,
          expect: [200, 204],
        },
      });
      return 1000 / perSecond(result);
    };
    const seconds = bench.quick ? 0.5 : 2;
    const all = (duration: number) =>
      Object.fromEntries(SIZES.map((size) => [String(size), measure(size, duration)]));
    await rounds(1, all(0.3));
    const found = await rounds(bench.quick ? 3 : 5, all(seconds));
    const small = median(found['10'] ?? []);
    for (const size of SIZES) {
      const value = median(found[String(size)] ?? []);
      bench.report.add({
        section: group.name,
        name: `PATCH one member, group of ${size.toLocaleString('en-US')}`,
        value,
        unit: 'ms',
        beside: { name: 'group of 10', value: small },
        ...(size === 10_000
          ? { target: { words: `≤ ${TARGET} × group of 10`, reached: value / small <= TARGET } }
          : {}),
      });
    }
  },
};
