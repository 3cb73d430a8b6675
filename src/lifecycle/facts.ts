/**
 * Loads what converge needs to know about a set of directory users, set-based: a constant number of statements whatever
 * the number of users. Reads only.
 */
import type pg from 'pg';
import type { MemberStatus } from '../database/entities.ts';
import type { FormerKeys, Group, Mapping, Policy, SourceUser } from './desired.ts';
import {
  type AttributeMapping,
  type AttributeMappings,
  namesRead,
  type Profile,
  type UserDocument,
} from './profile.ts';
import { claimNames, defaultSignInPolicy, type SignInRules } from './sign-in-policy.ts';
import * as sql from './statements.ts';
import { keysAt, objectIdForm, type RememberedLink } from './who.ts';

export interface ActualMember {
  id: string;
  email: string | null;
  displayName: string | null;
  profile: Profile;
  status: MemberStatus;
  operatorStatus: 'suspended' | 'removed' | null;
}

export interface ActualGrant {
  id: string;
  memberId: string;
  role: string;
  origin: 'mapping' | 'login';
  mappingId: string | null;
  groupId: string | null;
  because: string;
}

export interface LinkedUser {
  memberId: string;
  userId: string;
  login: boolean;
  /** The keys that the link remembers; renewed when the user's have moved. */
  keys: string;
}

/** A user of whom the lane has not heard yet that it is gone; as it was at the end, not active. */
export interface GoneUser extends SourceUser {
  /** The order in which they went. */
  gone: number;
}

export interface Facts {
  /** The users to converge: those asked for and everybody on whom a decision about them depends. */
  subjects: Set<string>;
  /** Present users by id. */
  users: Map<string, SourceUser>;
  /** Users who are gone and not forgotten yet, for as far as they matter here. */
  gone: Map<string, GoneUser>;
  /** The tenant has such users. */
  goneInTenant: boolean;
  /** Links by directory user id, of present and of gone users. */
  links: Map<string, LinkedUser>;
  remembered: RememberedLink[];
  members: Map<string, ActualMember>;
  /** Grants that directories and sign-ins gave, by member. */
  grants: Map<string, ActualGrant[]>;
  /** Groups that some mapping names, by user, nested ones included. */
  groups: Map<string, Group[]>;
  mappings: Mapping[];
  attributes: AttributeMappings;
  signIn: SignInRules;
  /** What mappings read of the users of their directories, and of the claims of sign-ins; empty for a tenant without any. */
  documents: Map<string, UserDocument>;
  provedDomains: Set<string>;
  /** Subjects with a dispute on record. */
  disputedOnRecord: Set<string>;
}

/** Of a connection without `pulled`. */
type Directories = Map<string, { provider: string; pulled?: boolean }>;

type Ask = <T extends pg.QueryResultRow>(name: string, text: string, ...values: unknown[]) => Promise<T[]>;

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** What holds for the whole tenant; the tenant must be set on the client's transaction by then. */
export async function askPolicy(client: pg.ClientBase, tenantId: string): Promise<sql.PolicyRow | undefined> {
  const { rows } = await client.query<sql.PolicyRow>({
    name: 'facts_policy',
    text: sql.POLICY,
    values: [tenantId],
  });
  return rows[0];
}

/**
 * @param userIds directory users, present or gone; the tenant must be set on the client's transaction
 * @param also mappings beside the tenant's own for which groups and documents are to be loaded (a plan's)
 * @param given the policy, where it was asked for already, in the same transaction
 */
export async function loadFacts(
  client: pg.ClientBase,
  tenantId: string,
  userIds: string[],
  also: Partial<Policy> = {},
  given?: sql.PolicyRow | undefined,
): Promise<Facts> {
  const ask: Ask = async (name, text, ...values) =>
    (await client.query({ name: `facts_${name}`, text, values: [tenantId, ...values] })).rows;

  const policy = given ?? (await askPolicy(client, tenantId));
  const facts: Facts = {
    subjects: new Set(userIds),
    users: new Map(),
    gone: new Map(),
    goneInTenant: policy?.gone ?? false,
    links: new Map(),
    remembered: [],
    members: new Map(),
    grants: new Map(),
    groups: new Map(),
    mappings: policy?.mappings ?? [],
    attributes: byDirectory(policy?.attributes ?? []),
    signIn: {
      policy: policy?.signIn ?? defaultSignInPolicy,
      claims: policy?.claims ?? [],
      connections: new Map((policy?.connections ?? []).map((c) => [c.id, { defaultRole: c.defaultRole }])),
    },
    documents: new Map(),
    provedDomains: new Set(policy?.domains ?? []),
    disputedOnRecord: new Set(),
  };
  if (policy?.disputes) {
    for (const r of await ask<{ id: string }>('reopened', sql.REOPENED, userIds)) facts.subjects.add(r.id);
  }
  const sources: Directories = new Map();
  for (const d of policy?.directories ?? []) sources.set(d.id, d);
  for (const c of policy?.connections ?? []) sources.set(c.id, { provider: c.provider });
  const keys = [...new Set([...facts.mappings, ...(also.mappings ?? [])].map((m) => m.groupKey))];
  const groupsOf = async (users: string[]) => {
    if (keys.length === 0 || users.length === 0) return [];
    return ask<sql.GroupRow>(
      'groups',
      sql.GROUPS,
      users,
      keys,
      keys.filter((k) => UUID.test(k)),
    );
  };
  // Most tenants need nobody beside those who were asked for: their groups are asked for with them.
  const asked = new Set(facts.subjects);
  const [groups, closed] = await Promise.allSettled([
    groupsOf([...asked]),
    closeSubjects(ask, facts, sources),
  ]);
  // Not before both have ended: a statement that follows a failure would run in the connection's next transaction.
  for (const part of [groups, closed]) if (part.status === 'rejected') throw part.reason;
  const further = [...facts.users.keys()].filter((id) => !asked.has(id));
  const [grants, disputed, moreGroups] = await Promise.all([
    facts.members.size > 0 ? ask<sql.GrantRow>('grants', sql.GRANTS, [...facts.members.keys()]) : [],
    policy?.disputes ? ask<{ id: string }>('disputed', sql.DISPUTED, [...facts.subjects]) : [],
    groupsOf(further),
    loadDocuments(ask, facts, [facts.attributes, also.attributes ?? new Map()], also.signIn),
  ]);
  for (const r of disputed) facts.disputedOnRecord.add(r.id);
  for (const g of grants) {
    push(facts.grants, g.member_id, {
      id: g.id,
      memberId: g.member_id,
      role: g.role,
      origin: g.origin,
      mappingId: g.mapping_id,
      groupId: g.group_id,
      because: g.because,
    });
  }
  for (const r of [...(groups.status === 'fulfilled' ? groups.value : []), ...moreGroups]) {
    push(facts.groups, r.user_id, {
      id: r.id,
      displayName: r.display_name,
      displayNameKey: r.display_name_key,
    });
  }
  return facts;
}

async function loadDocuments(
  ask: Ask,
  facts: Facts,
  mappings: AttributeMappings[],
  also: SignInRules | undefined,
): Promise<void> {
  const claims = [facts.signIn, ...(also ? [also] : [])].flatMap(claimNames);
  const mapped = (user: SourceUser) =>
    user.login ? claims.length > 0 : mappings.some((of) => of.has(user.directoryId));
  const names = [...mappings.flatMap(namesRead), ...claims];
  const documentsOf = async (name: string, text: string, of: Iterable<SourceUser>) => {
    const ids = [...of].filter(mapped).map((user) => user.id);
    return ids.length === 0 ? [] : ask<sql.DocumentRow>(name, text, ids, names);
  };
  const found = await Promise.all([
    documentsOf('documents', sql.DOCUMENTS, facts.users.values()),
    documentsOf('gone_documents', sql.GONE_DOCUMENTS, facts.gone.values()),
  ]);
  for (const r of found.flat()) facts.documents.set(r.id, r.document);
}

function byDirectory(rows: sql.PolicyRow['attributes']): AttributeMappings {
  const mappings = new Map<string, AttributeMapping[]>();
  for (const { directoryId, field, path } of rows) push(mappings, directoryId, { field, path });
  return mappings;
}

/**
 * Loads users and links until nobody is missing on whom a decision about a subject depends: who shares a key with one,
 * and the other sources of its member, are subjects themselves. One round for a tenant with one directory.
 */
async function closeSubjects(ask: Ask, facts: Facts, directories: Directories): Promise<void> {
  const lookedBack = new Set<string>();
  const linksOf = (ids: string[]) => ask<sql.LinkRow>('links_by_user', sql.LINKS_BY_USER, ids);
  for (let asked = [...facts.subjects]; asked.length > 0; ) {
    const seen = new Set(asked);
    const [users, links, gone] = await Promise.all([
      ask<sql.UserRow>('users_by_id', sql.USERS_BY_ID, asked),
      linksOf(asked),
      facts.goneInTenant ? ask<sql.GoneRow>('gone_by_id', sql.GONE_BY_ID, asked) : [],
    ]);
    keepLinks(facts, links);
    await keepUsers(ask, facts, directories, users);
    await keepGone(ask, facts, gone);
    if (directories.size > 1) {
      const sharers = await sharersOf(ask, facts, asked, directories);
      await keepUsers(ask, facts, directories, sharers);
      for (const u of sharers) seen.add(u.id);
      const others = [...seen].filter((id) => !facts.links.has(id));
      if (sharers.length > 0) keepLinks(facts, await linksOf(others));
    }

    const unlinked = [...seen].flatMap((id) => {
      const user = facts.users.get(id);
      return user && !facts.links.has(id) && !lookedBack.has(id) ? [user] : [];
    });
    for (const user of unlinked) lookedBack.add(user.id);
    if (unlinked.length > 0) await lookBack(ask, facts, unlinked, directories);

    asked = [...facts.users.keys(), ...facts.links.keys()].filter((id) => !facts.subjects.has(id));
    for (const id of asked) facts.subjects.add(id);
  }
}

async function keepUsers(
  ask: Ask,
  facts: Facts,
  directories: Directories,
  found: sql.UserRow[],
): Promise<void> {
  const fresh = found.filter((row) => !facts.users.has(row.id));
  const former = await formerKeys(ask, fresh);
  for (const row of fresh) {
    const directory = directories.get(row.directory_id);
    if (!directory) continue;
    facts.users.set(row.id, {
      ...sourceUser(row, former),
      login: directory.pulled === undefined,
      provider: directory.provider,
      pulled:
        directory.pulled ?? (directory.provider === 'primary' && objectIdForm(row.external_id) !== undefined),
      active: row.active,
    });
  }
}

/** Who was read as present, by a statement before this one, counts as that. */
async function keepGone(ask: Ask, facts: Facts, found: sql.GoneRow[]): Promise<void> {
  const fresh = found.filter((row) => !facts.users.has(row.id) && !facts.gone.has(row.id));
  const former = await formerKeys(ask, fresh);
  for (const row of fresh) {
    facts.gone.set(row.id, {
      ...sourceUser(row, former),
      login: row.login,
      provider: row.provider,
      pulled: row.pulled,
      active: false,
      gone: Number(row.gone),
    });
  }
}

async function formerKeys(ask: Ask, of: sql.KeysRow[]): Promise<Map<string, FormerKeys[]>> {
  const former = new Map<string, FormerKeys[]>();
  const renamed = of.filter((row) => row.claimed !== row.first_seen).map((row) => row.id);
  if (renamed.length === 0) return former;
  for (const r of await ask<sql.FormerKeyRow>('former_keys', sql.FORMER_KEYS, renamed)) {
    push(former, r.user_id, {
      userNameKey: r.user_name_key,
      emailKey: r.email_key,
      since: Number(r.since),
      until: Number(r.until),
    });
  }
  return former;
}

function sourceUser(row: sql.KeysRow, former: Map<string, FormerKeys[]>) {
  return {
    id: row.id,
    directoryId: row.directory_id,
    userName: row.user_name,
    userNameKey: row.user_name_key,
    externalId: row.external_id,
    displayName: row.display_name,
    email: row.email,
    emailKey: row.email_key,
    firstSeen: Number(row.first_seen),
    claimed: Number(row.claimed),
    former: former.get(row.id) ?? [],
  };
}

/** Users of other directories that share a key, now or before, or an external id with those asked for. */
async function sharersOf(
  ask: Ask,
  facts: Facts,
  asked: string[],
  directories: Directories,
): Promise<sql.UserRow[]> {
  const askers = new Map<string, Set<string>>();
  const emails = new Set<string>();
  const userNames = new Set<string>();
  const externalIds = new Set<string>();
  const asId = (externalId: string | null) => `id ${externalId}`;
  const asks = (key: string, user: SourceUser) =>
    askers.set(key, (askers.get(key) ?? new Set()).add(user.directoryId));
  for (const id of asked) {
    const user = facts.users.get(id);
    if (!user) continue;
    for (const keys of [user, ...user.former]) {
      userNames.add(keys.userNameKey);
      if (keys.emailKey !== null) emails.add(keys.emailKey);
      for (const key of [keys.userNameKey, keys.emailKey ?? '']) asks(key, user);
    }
    if (user.externalId !== null) {
      externalIds.add(user.externalId);
      asks(asId(user.externalId), user);
    }
  }
  if (userNames.size === 0) return [];
  const found = await ask<sql.UserRow>(
    'sharers',
    sql.SHARERS,
    [...emails],
    [...userNames],
    [...directories.keys()],
    [...externalIds],
  );
  // Two present users of one directory are two people: only another directory's user matters.
  return found.filter((row) => {
    const keys = [row.user_name_key, row.email_key ?? '', asId(row.external_id)];
    const from = new Set(keys.flatMap((key) => [...(askers.get(key) ?? [])]));
    from.delete(row.directory_id);
    const byFormerKey = !keys.some((key) => askers.has(key));
    return !facts.users.has(row.id) && (from.size > 0 || byFormerKey);
  });
}

/** Links of users who are gone by which somebody who is seen for the first time may be recognised, with their members. */
async function lookBack(
  ask: Ask,
  facts: Facts,
  unlinked: SourceUser[],
  directories: Directories,
): Promise<void> {
  const born = unlinked.map((u) => keysAt(u, u.firstSeen));
  const keys = [
    present(unlinked.map((u) => u.externalId)),
    born.map((k) => k.userNameKey),
    present(born.map((k) => k.emailKey)),
  ];
  const found = await ask<sql.RememberedRow>('remembered', sql.REMEMBERED, ...keys);
  if (facts.goneInTenant) await lookBackAtGone(ask, facts, keys, found);
  for (const l of found) {
    // What its link remembers is not the last word on somebody of whom the lane has not heard it.
    if (facts.gone.has(l.user_id)) continue;
    facts.remembered.push({
      memberId: l.member_id,
      directoryId: l.directory_id,
      provider: l.provider,
      login: l.login,
      pulled: directories.get(l.directory_id)?.pulled === true,
      externalId: l.external_id,
      userNameKey: l.user_name_key,
      emailKey: l.email_key,
    });
  }
  const members = [...new Set(found.map((l) => l.member_id))].filter((id) => !facts.members.has(id));
  if (members.length > 0) {
    keepLinks(facts, await ask<sql.LinkRow>('links_by_member', sql.LINKS_BY_MEMBER, members));
  }
}

/** The same by what those were called, up to the end and at each moment before, who are gone and not forgotten yet. */
async function lookBackAtGone(
  ask: Ask,
  facts: Facts,
  keys: string[][],
  found: sql.RememberedRow[],
): Promise<void> {
  const ids = found.map((l) => l.user_id);
  const gone = await ask<sql.GoneRow>('gone_sharers', sql.GONE_SHARERS, ...keys, ids);
  await keepGone(ask, facts, gone);
  const unknown = gone.map((row) => row.id).filter((id) => facts.gone.has(id) && !facts.links.has(id));
  if (unknown.length > 0) {
    keepLinks(facts, await ask<sql.LinkRow>('links_by_user', sql.LINKS_BY_USER, unknown));
  }
  for (const { id } of gone) {
    const user = facts.gone.get(id);
    const memberId = facts.links.get(id)?.memberId;
    if (user && memberId !== undefined) facts.remembered.push({ ...user, memberId });
  }
}

function keepLinks(facts: Facts, found: sql.LinkRow[]): void {
  for (const l of found) {
    facts.links.set(l.user_id, {
      memberId: l.member_id,
      userId: l.user_id,
      login: l.login,
      keys: l.keys,
    });
    facts.members.set(l.member_id, {
      id: l.member_id,
      email: l.email,
      displayName: l.display_name,
      profile: l.profile,
      status: l.status,
      operatorStatus: l.operator_status,
    });
  }
}

function present(values: (string | null)[]): string[] {
  return values.filter((v) => v !== null);
}

function push<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const list = map.get(key);
  if (list) list.push(value);
  else map.set(key, [value]);
}
