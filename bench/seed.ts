/**
 * Tenants full of people. The first one is filled over SCIM; the others are copies of it that the superuser makes
 * row by row in PostgreSQL, so that each measurement starts on a fresh tenant of the size it speaks of.
 */
import type { Generator } from './generator.ts';
import type { Lockstep, Target } from './lockstep.ts';
import type { BenchPostgres } from './postgres.ts';

export interface Person {
  id: string;
  name: string;
}

/** A directory full of people, on whatever server. */
export interface Ground {
  path: string;
  headers: Record<string, string>;
  people: Person[];
}

/** One that also has groups, named by their size, and people who are in none of them. */
export interface GroupedGround extends Ground {
  outsiders: Person[];
  groups: Record<number, string>;
}

export type Filled = Target & Ground;

/** A user as an identity provider sends one: about 700 bytes. `{n}` is the number that makes it different. */
export const USER = JSON.stringify({
  schemas: [
    'urn:ietf:params:scim:schemas:core:2.0:User',
    'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User',
  ],
  externalId: '00u{n}',
  userName: 'person.{n}@bench.example',
  name: { givenName: 'Katherine', familyName: 'Johnson {n}', formatted: 'Katherine Johnson {n}' },
  displayName: 'Katherine Johnson {n}',
  title: 'Senior Engineer',
  locale: 'en-US',
  active: true,
  emails: [{ value: 'person.{n}@bench.example', type: 'work', primary: true }],
  phoneNumbers: [{ value: '+1 555 0100', type: 'work' }],
  groups: [],
  'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User': {
    department: 'Engineering',
    employeeNumber: '{n}',
  },
});

export async function fillOverScim(
  lockstep: Lockstep,
  generator: Generator,
  postgres: BenchPostgres,
  slug: string,
  count: number,
): Promise<Filled> {
  const target = await lockstep.createTenant(slug);
  await generator.run({
    port: lockstep.port,
    concurrency: 32,
    requests: count,
    plan: {
      method: 'POST',
      path: `${target.path}/Users`,
      bodies: [USER],
      headers: target.headers,
      expect: [201],
    },
  });
  await postgres.sql.query('analyze');
  return { ...target, people: await peopleOf(postgres, target) };
}

export interface CopyOptions {
  /** Also the members and links of those who have them, so that converge finds them there. */
  members?: boolean;
  /** Copies each person so often, under different names each time. */
  times?: number;
  /** Names that the people of the first copy do not have either, for a tenant that has those already. */
  strangers?: boolean;
  /** The number of the first copy where a tenant gets several lots; default 1. */
  firstCopy?: number;
  /** Puts everybody into one group of this name. */
  group?: string;
  /** A pending change for everybody, and no members. */
  pending?: boolean;
  /** These changes wait until their `retry_at` is taken away, so that several lots begin at once. */
  held?: boolean;
}

/** Fills a new tenant with the first `count` people of another; one transaction, so a lane sees all or nothing. */
export async function copyPeople(
  postgres: BenchPostgres,
  from: Target,
  to: Target,
  count: number,
  options: CopyOptions = {},
): Promise<Filled> {
  const client = await postgres.sql.connect();
  try {
    await client.query('begin');
    await client.query(
      `create temp table copy on commit drop as
       select u.id as old_id, gen_random_uuid() as new_id, n from
         (select id from mirror_user where directory_id = $1 order by id limit $2) u,
         generate_series($4::int, $4::int + $3::int - 1) n`,
      [from.directoryId, count, options.times ?? 1, options.firstCopy ?? (options.strangers ? 2 : 1)],
    );
    await client.query(
      `insert into mirror_user select r.* from copy c join mirror_user u on u.id = c.old_id
       cross join lateral jsonb_populate_record(u, jsonb_build_object('id', c.new_id, 'tenant_id', $1::uuid,
         'directory_id', $2::uuid, 'first_seen', nextval('mirror_order')) || case when c.n = 1 then '{}'::jsonb else
         jsonb_build_object('user_name', c.n || '.' || u.user_name, 'user_name_key', c.n || '.' || u.user_name_key,
           'email', c.n || '.' || u.email, 'email_key', c.n || '.' || u.email_key,
           'external_id', u.external_id || '.' || c.n) end) r`,
      [to.tenantId, to.directoryId],
    );
    if (options.members) {
      await client.query(
        `create temp table copy_member on commit drop as
         select c.new_id as user_id, l.id as old_link, l.member_id as old_id, gen_random_uuid() as new_id
         from copy c join link l on l.tenant_id = $1 and l.user_id = c.old_id`,
        [from.tenantId],
      );
      await client.query(
        `insert into member select r.* from copy_member c join member m on m.id = c.old_id
         cross join lateral jsonb_populate_record(m, jsonb_build_object('id', c.new_id, 'tenant_id', $1::uuid)) r`,
        [to.tenantId],
      );
      await client.query(
        `insert into link select r.* from copy_member c join link l on l.id = c.old_link
         cross join lateral jsonb_populate_record(l, jsonb_build_object('id', gen_random_uuid(), 'tenant_id', $1::uuid,
           'directory_id', $2::uuid, 'user_id', c.user_id, 'member_id', c.new_id)) r`,
        [to.tenantId, to.directoryId],
      );
    }
    if (options.group !== undefined) {
      await client.query(
        `with made as (
           insert into mirror_group (id, tenant_id, directory_id, display_name, display_name_key, doc)
           values (gen_random_uuid(), $1, $2, $3, lower($3), '{"schemas":["urn:ietf:params:scim:schemas:core:2.0:Group"]}')
           returning id)
         insert into mirror_group_member (tenant_id, directory_id, group_id, member_id, member_kind)
         select $1, $2, made.id, c.new_id, 'user' from made, copy c`,
        [to.tenantId, to.directoryId, options.group],
      );
    }
    if (options.pending) {
      await client.query(
        `insert into change (tenant_id, directory_id, source, class, kind, user_id, source_at, retry_at)
         select $1, $2, 'scim', 2, 'user', new_id, clock_timestamp(), $3 from copy`,
        [to.tenantId, to.directoryId, options.held ? 'infinity' : null],
      );
    }
    await client.query('commit');
  } catch (error) {
    await client.query('rollback').catch(() => {});
    throw error;
  } finally {
    client.release();
  }
  return { ...to, people: await peopleOf(postgres, to) };
}

async function peopleOf(postgres: BenchPostgres, target: Target): Promise<Person[]> {
  const { rows } = await postgres.sql.query<Person>(
    'select id, user_name as name from mirror_user where directory_id = $1 order by id',
    [target.directoryId],
  );
  return rows;
}

/** Gives a tenant groups of these sizes and 200 people who are in none of them; both straight into PostgreSQL. */
export async function withGroups(
  postgres: BenchPostgres,
  filled: Filled,
  sizes: number[],
): Promise<Filled & GroupedGround> {
  const { rows: outsiders } = await postgres.sql.query<Person>(
    `with r as (select r.* from mirror_user u cross join lateral jsonb_populate_record(u, jsonb_build_object(
         'id', gen_random_uuid(), 'user_name', 'x.' || u.user_name, 'user_name_key', 'x.' || u.user_name_key)) r
       where u.directory_id = $1 limit 200)
     insert into mirror_user select * from r returning id, user_name as name`,
    [filled.directoryId],
  );
  const groups: Record<number, string> = {};
  for (const size of sizes) {
    const { rows } = await postgres.sql.query<{ id: string }>(
      `with made as (
         insert into mirror_group (id, tenant_id, directory_id, display_name, display_name_key, doc)
         values (gen_random_uuid(), $1, $2, 'Group of ' || $3::int, 'group of ' || $3::int,
           '{"schemas":["urn:ietf:params:scim:schemas:core:2.0:Group"]}')
         returning id),
       joined as (
         insert into mirror_group_member (tenant_id, directory_id, group_id, member_id, member_kind)
         select $1, $2, made.id, u.id, 'user' from made, unnest($4::uuid[]) u (id))
       select id from made`,
      [filled.tenantId, filled.directoryId, size, filled.people.slice(0, size).map((p) => p.id)],
    );
    groups[size] = rows[0]?.id ?? '';
  }
  await postgres.sql.query('analyze mirror_user, mirror_email, mirror_group, mirror_group_member');
  return { ...filled, outsiders, groups };
}

/** A lane that stands still for so long is no measurement. */
const STANDSTILL_SECONDS = 30;

/**
 * Resolves when a tenant (or, without one, nobody) has an unapplied change.
 * @throws Error when their number does not fall any more
 */
export async function untilEffective(postgres: BenchPostgres, tenantId?: string): Promise<void> {
  const filter = `state in ('pending', 'spread') and ($1::uuid is null or tenant_id = $1)`;
  let left = Number.POSITIVE_INFINITY;
  for (let since = Date.now(); ; ) {
    const { rows } = await postgres.sql.query<{ some: boolean }>(
      `select exists (select from change where ${filter}) as some`,
      [tenantId ?? null],
    );
    if (!rows[0]?.some) return;
    if (Date.now() - since > STANDSTILL_SECONDS * 1000) {
      const counted = await postgres.sql.query<{ n: string }>(
        `select count(*) as n from change where ${filter}`,
        [tenantId ?? null],
      );
      const now = Number(counted.rows[0]?.n);
      if (now >= left)
        throw new Error(`${now} changes stay unapplied for ${STANDSTILL_SECONDS} s: no worker takes them`);
      left = now;
      since = Date.now();
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Changes of a tenant that are not yet effective. */
export async function pendingChanges(postgres: BenchPostgres, tenantId: string): Promise<number> {
  const { rows } = await postgres.sql.query<{ n: string }>(
    `select count(*) as n from change where tenant_id = $1 and state = 'pending'`,
    [tenantId],
  );
  return Number(rows[0]?.n ?? 0);
}
