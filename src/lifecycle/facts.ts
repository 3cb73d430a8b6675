/**
 * Loads what converge needs to know about a set of directory users, set-based: a constant number of statements whatever
 * the number of users. Reads only.
 */
import type pg from 'pg';
import type { MemberStatus } from '../database/entities.ts';
import type { Group, Mapping, SourceUser } from './desired.ts';
import type { RememberedLink } from './who.ts';

export interface ActualMember {
  id: string;
  email: string | null;
  displayName: string | null;
  status: MemberStatus;
}

export interface ActualGrant {
  id: string;
  memberId: string;
  role: string;
  mappingId: string | null;
  groupId: string | null;
  because: string;
}

export interface LinkedUser {
  memberId: string;
  userId: string;
  /** The keys that the link remembers; renewed when the user's have moved. */
  keys: string;
}

export interface Directory {
  id: string;
  name: string;
  provider: string;
  pulled: boolean;
}

export interface Facts {
  /** The users to converge: those asked for, those disputed because of them, and unlinked sharers of their keys. */
  subjects: Set<string>;
  /** Present users by id: the subjects, whoever shares a key with one, and all sources of their members. */
  users: Map<string, SourceUser>;
  /** Links by directory user id, of present and of gone users. */
  links: Map<string, LinkedUser>;
  remembered: RememberedLink[];
  members: Map<string, ActualMember>;
  /** Grants that directories gave, by member. */
  grants: Map<string, ActualGrant[]>;
  /** Groups that some mapping names, by user, nested ones included. */
  groups: Map<string, Group[]>;
  mappings: Mapping[];
  provedDomains: Set<string>;
  /** Users with an open dispute on record. */
  disputedOnRecord: Set<string>;
}

/** What holds for the whole tenant: read once a batch. */
const POLICY = `
  select
    (select coalesce(json_agg(json_build_object('id', m.id, 'directoryId', m.directory_id, 'groupKey', m.group_key,
       'role', m.role, 'priority', m.priority)), '[]') from role_mapping m where m.tenant_id = $1) as mappings,
    (select coalesce(json_agg(json_build_object('id', d.id, 'name', d.name, 'provider', d.provider,
       'pulled', d.kind <> 'scim')), '[]') from directory d where d.tenant_id = $1) as directories,
    exists (select from mismatch x where x.tenant_id = $1 and x.kind = 'disputed') as disputes,
    (select coalesce(json_agg(n.name), '[]') from domain n where n.tenant_id = $1 and n.proved_at is not null) as domains`;

const USER_COLUMNS = `u.id, u.directory_id, u.active, u.user_name, u.user_name_key, u.external_id, u.display_name,
  u.email, u.email_key, u.first_seen, u.claimed`;

/** $1 tenant, $2 users. Disputes that hang on one of them are reopened with it. Index: mismatch_rival. */
const REOPENED = `select subject_id as id from mismatch where tenant_id = $1 and kind = 'disputed' and rival_id = any ($2)`;

/**
 * $1 tenant, $2 users, $3 directories: these, and every user of another directory with the same e-mail or userName. Two
 * present users of one directory are two people, so they never matter to each other.
 * Indexes: primary key, mirror_user_email, unique (directory_id, user_name_key) once a directory.
 */
const USERS = `
  with asked as (select * from mirror_user where id = any ($2) and tenant_id = $1)
  select ${USER_COLUMNS} from asked u
  union
  select ${USER_COLUMNS} from (select distinct directory_id, email_key from asked where email_key is not null) k
    join mirror_user u on u.tenant_id = $1 and u.email_key = k.email_key and u.directory_id <> k.directory_id
  union
  select ${USER_COLUMNS} from (select distinct directory_id, user_name_key from asked) k
    join unnest($3::uuid[]) d on d <> k.directory_id
    join mirror_user u on u.directory_id = d and u.user_name_key = k.user_name_key`;

const LINK_AND_MEMBER = `l.member_id, l.user_id, concat_ws(E'\\n', l.external_id, l.user_name_key, l.email_key) as keys,
  m.email, m.display_name, m.status`;

/** $1 tenant, $2 users: the links of their members, all of them, with the member. Indexes: link_user, link_member. */
const LINKS_BY_USER = `select ${LINK_AND_MEMBER} from (
    select distinct member_id from link where tenant_id = $1 and user_id = any ($2)) of
  join link l on l.member_id = of.member_id and l.tenant_id = $1 join member m on m.id = l.member_id`;

/** $1 tenant, $2 members. Index: link_member. */
const LINKS_BY_MEMBER = `select ${LINK_AND_MEMBER} from link l join member m on m.id = l.member_id
  where l.member_id = any ($2) and l.tenant_id = $1`;

/** $1 tenant, $2 external ids, $3 userName keys, $4 e-mail keys of users without a link. Indexes: link_external_id … */
const REMEMBERED = `
  select l.member_id, l.directory_id, l.provider, l.external_id, l.user_name_key, l.email_key, l.user_id
  from link l where l.tenant_id = $1
    and (l.external_id = any ($2) or l.user_name_key = any ($3) or l.email_key = any ($4))
    and not exists (select from mirror_user u where u.id = l.user_id)`;

const USERS_BY_ID = `select ${USER_COLUMNS} from mirror_user u where u.id = any ($2) and u.tenant_id = $1`;

const GRANTS = `select id, member_id, role, mapping_id, group_id, because from role_grant
  where member_id = any ($2) and tenant_id = $1 and origin = 'mapping'`;

/**
 * $1 tenant, $2 users, $3 mapped group keys, $4 the same as ids: their groups upwards through nesting, mapped ones only.
 * UNION ends cycles. Index: mirror_group_member_of.
 */
const GROUPS = `
  with recursive up (user_id, group_id) as (
    select m.member_id, m.group_id from mirror_group_member m where m.member_id = any ($2)
    union
    select up.user_id, m.group_id from up join mirror_group_member m on m.member_id = up.group_id
  )
  select up.user_id, g.id, g.display_name, g.display_name_key from up join mirror_group g on g.id = up.group_id
  where g.tenant_id = $1 and (g.display_name_key = any ($3) or g.id = any ($4))`;

const DISPUTED = `select subject_id as id from mismatch
  where tenant_id = $1 and subject_kind = 'user' and kind = 'disputed' and subject_id = any ($2)`;

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

interface UserRow {
  id: string;
  directory_id: string;
  active: boolean;
  user_name: string;
  user_name_key: string;
  external_id: string | null;
  display_name: string | null;
  email: string | null;
  email_key: string | null;
  first_seen: string;
  claimed: string;
}

interface LinkRow {
  member_id: string;
  user_id: string | null;
  keys: string;
  email: string | null;
  display_name: string | null;
  status: MemberStatus;
}

interface PolicyRow {
  mappings: Mapping[];
  directories: Directory[];
  domains: string[];
  disputes: boolean;
}

interface RememberedRow {
  member_id: string;
  directory_id: string | null;
  provider: string;
  external_id: string | null;
  user_name_key: string | null;
  email_key: string | null;
  user_id: string | null;
}

interface GrantRow {
  id: string;
  member_id: string;
  role: string;
  mapping_id: string | null;
  group_id: string | null;
  because: string;
}

type Ask = <T extends pg.QueryResultRow>(name: string, text: string, ...values: unknown[]) => Promise<T[]>;

/**
 * @param userIds directory users, present or gone; the tenant must be set on the client's transaction
 * @param also mappings beside the tenant's own whose groups are to be loaded (a plan's)
 */
export async function loadFacts(
  client: pg.ClientBase,
  tenantId: string,
  userIds: string[],
  also: readonly Mapping[] = [],
): Promise<Facts> {
  const ask: Ask = async (name, text, ...values) =>
    (await client.query({ name: `facts_${name}`, text, values: [tenantId, ...values] })).rows;

  const [policy] = await ask<PolicyRow>('policy', POLICY);
  const facts: Facts = {
    subjects: new Set(userIds),
    users: new Map(),
    links: new Map(),
    remembered: [],
    members: new Map(),
    grants: new Map(),
    groups: new Map(),
    mappings: policy?.mappings ?? [],
    provedDomains: new Set(policy?.domains ?? []),
    disputedOnRecord: new Set(),
  };
  const directories = new Map((policy?.directories ?? []).map((d) => [d.id, d]));
  if (policy?.disputes) {
    for (const r of await ask<{ id: string }>('reopened', REOPENED, userIds)) facts.subjects.add(r.id);
  }
  await closeSubjects(ask, facts, directories);
  if (policy?.disputes) {
    for (const r of await ask<{ id: string }>('disputed', DISPUTED, [...facts.subjects])) {
      facts.disputedOnRecord.add(r.id);
    }
  }
  if (facts.members.size > 0) {
    for (const g of await ask<GrantRow>('grants', GRANTS, [...facts.members.keys()])) {
      push(facts.grants, g.member_id, {
        id: g.id,
        memberId: g.member_id,
        role: g.role,
        mappingId: g.mapping_id,
        groupId: g.group_id,
        because: g.because,
      });
    }
  }
  const keys = [...new Set([...facts.mappings, ...also].map((m) => m.groupKey))];
  if (keys.length > 0 && facts.users.size > 0) {
    facts.groups = await loadGroups(client, tenantId, [...facts.users.keys()], keys);
  }
  return facts;
}

/**
 * Loads users and links until nobody is missing on whom a decision about a subject depends: who shares a key with one,
 * and the other sources of its member, are subjects themselves.
 */
async function closeSubjects(ask: Ask, facts: Facts, directories: Map<string, Directory>): Promise<void> {
  const directoryIds = [...directories.keys()];
  const rememberedFor = new Set<string>();
  for (let asked = [...facts.subjects]; asked.length > 0; ) {
    const found =
      directoryIds.length > 1
        ? await ask<UserRow>('users', USERS, asked, directoryIds)
        : await ask<UserRow>('users_by_id', USERS_BY_ID, asked);
    for (const row of found) {
      const directory = directories.get(row.directory_id);
      if (directory) facts.users.set(row.id, sourceUser(row, directory));
    }
    const seen = new Set([...asked, ...found.map((u) => u.id)]);
    keepLinks(facts, await ask<LinkRow>('links_by_user', LINKS_BY_USER, [...seen]));

    const unlinked = [...seen].flatMap((id) => {
      const user = facts.users.get(id);
      return user && !facts.links.has(id) && !rememberedFor.has(id) ? [user] : [];
    });
    if (unlinked.length > 0) {
      for (const user of unlinked) rememberedFor.add(user.id);
      const remembered = await ask<RememberedRow>(
        'remembered',
        REMEMBERED,
        present(unlinked.map((u) => u.externalId)),
        unlinked.map((u) => u.userNameKey),
        present(unlinked.map((u) => u.emailKey)),
      );
      facts.remembered.push(...remembered.map((l) => rememberedLink(l, directories)));
      const members = remembered.map((l) => l.member_id).filter((id) => !facts.members.has(id));
      if (members.length > 0) {
        keepLinks(facts, await ask<LinkRow>('links_by_member', LINKS_BY_MEMBER, [...new Set(members)]));
      }
    }
    asked = [...facts.users.keys(), ...facts.links.keys()].filter((id) => !facts.subjects.has(id));
    for (const id of asked) facts.subjects.add(id);
  }
}

function keepLinks(facts: Facts, found: LinkRow[]): void {
  for (const l of found) {
    if (l.user_id !== null)
      facts.links.set(l.user_id, { memberId: l.member_id, userId: l.user_id, keys: l.keys });
    facts.members.set(l.member_id, {
      id: l.member_id,
      email: l.email,
      displayName: l.display_name,
      status: l.status,
    });
  }
}

function rememberedLink(l: RememberedRow, directories: Map<string, Directory>): RememberedLink {
  return {
    memberId: l.member_id,
    directoryId: l.directory_id,
    provider: l.provider,
    pulled: l.directory_id !== null && directories.get(l.directory_id)?.pulled === true,
    gone: l.user_id !== null,
    externalId: l.external_id,
    userNameKey: l.user_name_key,
    emailKey: l.email_key,
  };
}

/** Mapped groups of users, through nesting. @param keys display-name keys or group ids */
async function loadGroups(
  client: pg.ClientBase,
  tenantId: string,
  userIds: string[],
  keys: string[],
): Promise<Map<string, Group[]>> {
  const { rows } = await client.query<{
    user_id: string;
    id: string;
    display_name: string;
    display_name_key: string;
  }>({
    name: 'facts_groups',
    text: GROUPS,
    values: [tenantId, userIds, keys, keys.filter((k) => UUID.test(k))],
  });
  const groups = new Map<string, Group[]>();
  for (const r of rows) {
    push(groups, r.user_id, { id: r.id, displayName: r.display_name, displayNameKey: r.display_name_key });
  }
  return groups;
}

function sourceUser(row: UserRow, directory: Directory): SourceUser {
  return {
    id: row.id,
    directoryId: row.directory_id,
    provider: directory.provider,
    pulled: directory.pulled,
    active: row.active,
    userName: row.user_name,
    userNameKey: row.user_name_key,
    externalId: row.external_id,
    displayName: row.display_name,
    email: row.email,
    emailKey: row.email_key,
    firstSeen: Number(row.first_seen),
    claimed: Number(row.claimed),
  };
}

function present(values: (string | null)[]): string[] {
  return values.filter((v) => v !== null);
}

function push<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const list = map.get(key);
  if (list) list.push(value);
  else map.set(key, [value]);
}
