/**
 * The reading SQL of converge, each statement with the indexes that it relies on. `$1` is always the tenant, which is
 * set on the transaction as well; arrays make every statement one for a whole batch. Functions stand in lifecycle.sql.
 * `===` (policies.sql) where an id is looked up: an index by tenant would walk the tenant.
 */
import type { ChangeSource, MemberStatus } from '../database/entities.ts';
import type { Mapping } from './desired.ts';
import type { AttributePath, Profile, UserDocument } from './profile.ts';
import { type ClaimMapping, SIGN_IN_POLICY, type SignInPolicy } from './sign-in-policy.ts';

/** What holds for the whole tenant: read once a batch. */
export const POLICY = `
  select
    (select coalesce(json_agg(json_build_object('id', m.id, 'directoryId', m.directory_id, 'groupKey', m.group_key,
       'role', m.role, 'priority', m.priority)), '[]') from role_mapping m where m.tenant_id = $1) as mappings,
    (select coalesce(json_agg(json_build_object('directoryId', a.directory_id, 'field', a.field, 'path', a.path)), '[]')
       from attribute_mapping a where a.tenant_id = $1) as attributes,
    (select coalesce(json_agg(json_build_object('id', d.id, 'provider', d.provider, 'pulled', d.kind <> 'scim')), '[]')
       from directory d where d.tenant_id = $1) as directories,
    (select coalesce(json_agg(json_build_object('id', c.id, 'provider', c.provider, 'defaultRole', c.default_role)), '[]')
       from connection c where c.tenant_id = $1) as connections,
    (select coalesce(json_agg(json_build_object('id', m.id, 'connectionId', m.connection_id, 'claim', m.claim,
       'value', m.value, 'role', m.role)), '[]') from claim_mapping m where m.tenant_id = $1) as claims,
    ${SIGN_IN_POLICY} as "signIn",
    (select coalesce(json_agg(n.name), '[]') from domain n
       where n.tenant_id = $1 and n.use = 'email' and n.proved_at is not null) as domains,
    exists (select from mirror_gone g where g.tenant_id = $1) as gone,
    exists (select from mismatch x where x.tenant_id = $1 and x.kind = 'disputed') as disputes`;

export interface PolicyRow {
  mappings: Mapping[];
  attributes: { directoryId: string; field: string; path: AttributePath }[];
  directories: { id: string; provider: string; pulled: boolean }[];
  connections: { id: string; provider: string; defaultRole: string | null }[];
  claims: ClaimMapping[];
  signIn: SignInPolicy | null;
  domains: string[];
  /** Somebody is gone and not forgotten. */
  gone: boolean;
  disputes: boolean;
}

/** $2 users: disputes that hang on one of them are reopened with it. Index: mismatch_rival. */
export const REOPENED = `select subject_id as id from mismatch
  where tenant_id = $1 and kind = 'disputed' and rival_id = any ($2)`;

/** $2 users: those with a dispute on record. Index: primary key. */
export const DISPUTED = `select subject_id as id from mismatch
  where tenant_id = $1 and subject_kind = 'user' and kind = 'disputed' and subject_id = any ($2)`;

const USER_COLUMNS = `u.id, u.directory_id, u.active, u.user_name, u.user_name_key, u.external_id, u.display_name,
  u.email, u.email_key, u.first_seen, u.claimed`;

export interface KeysRow {
  id: string;
  directory_id: string;
  user_name: string;
  user_name_key: string;
  external_id: string | null;
  display_name: string | null;
  email: string | null;
  email_key: string | null;
  first_seen: string;
  claimed: string;
}

export interface UserRow extends KeysRow {
  active: boolean;
}

/** $2 users. Index: primary key. */
export const USERS_BY_ID = `select ${USER_COLUMNS} from mirror_user u where u.id = any ($2) and u.tenant_id === $1`;

/**
 * $2 e-mail keys, $3 userName keys, $4 directories, $5 external ids: everybody who has one of these now, or had one of the
 * keys before. Indexes: mirror_user_email, unique (directory_id, user_name_key) and mirror_user_external_id once a
 * directory, mirror_former_email, …_user_name.
 */
export const SHARERS = `
  select ${USER_COLUMNS} from mirror_user u where u.tenant_id = $1 and u.email_key = any ($2)
  union
  select ${USER_COLUMNS} from unnest($4::uuid[]) d
    join mirror_user u on u.directory_id = d and u.user_name_key = any ($3)
  union
  select ${USER_COLUMNS} from unnest($4::uuid[]) d
    join mirror_user u on u.directory_id = d and u.external_id = any ($5)
  union
  select ${USER_COLUMNS} from mirror_user u where u.tenant_id = $1 and u.id in (
    select f.user_id from mirror_former_key f
    where f.tenant_id === $1 and (f.email_key = any ($2) or f.user_name_key = any ($3)))`;

const GONE_COLUMNS = `g.user_id as id, g.directory_id, g.provider, g.pulled, g.login, g.user_name, g.user_name_key,
  g.external_id, g.display_name, g.email, g.email_key, g.first_seen, g.claimed, g.gone`;

export interface GoneRow extends KeysRow {
  provider: string;
  pulled: boolean;
  login: boolean;
  gone: string;
}

/** $2 users: those who are gone and not forgotten. Index: primary key. */
export const GONE_BY_ID = `select ${GONE_COLUMNS} from mirror_gone g
  where g.user_id = any ($2) and g.tenant_id === $1 and not exists (select from mirror_user u where u.id = g.user_id)`;

/**
 * $2 external ids, $3 userName keys, $4 e-mail keys, $5 users: of those who are gone and not forgotten, everybody who had
 * one of these at the end or before. Indexes: mirror_gone_external_id, …_user_name, …_email, mirror_former_email, …_user_name.
 */
export const GONE_SHARERS = `
  select ${GONE_COLUMNS} from mirror_gone g where g.tenant_id === $1
    and (g.external_id = any ($2) or g.user_name_key = any ($3) or g.email_key = any ($4) or g.user_id = any ($5))
    and not exists (select from mirror_user u where u.id = g.user_id)
  union
  select ${GONE_COLUMNS} from mirror_former_key f join mirror_gone g on g.user_id = f.user_id
  where f.tenant_id === $1 and (f.user_name_key = any ($3) or f.email_key = any ($4))
    and not exists (select from mirror_user u where u.id = g.user_id)`;

/** $2 users, $3 names: as DOCUMENTS, of those who are gone and not forgotten. Index: primary key. */
export const GONE_DOCUMENTS = `
  select g.user_id as id, coalesce((select jsonb_object_agg(name, g.doc -> name) from unnest($3::text[]) name
    where g.doc ? name), '{}') as document
  from mirror_gone g where g.user_id = any ($2) and g.tenant_id === $1`;

/** $2 users, $3 names: what stands under these names in their documents. Index: primary key. */
export const DOCUMENTS = `
  select u.id, coalesce((select jsonb_object_agg(name, u.doc -> name) from unnest($3::text[]) name
    where u.doc ? name), '{}') as document
  from mirror_user u where u.id = any ($2) and u.tenant_id === $1`;

export interface DocumentRow {
  id: string;
  document: UserDocument;
}

/** $2 users. Index: primary key. */
export const FORMER_KEYS = `select user_id, user_name_key, email_key, since, until from mirror_former_key
  where user_id = any ($2) and tenant_id === $1`;

export interface FormerKeyRow {
  user_id: string;
  user_name_key: string;
  email_key: string | null;
  since: string;
  until: string;
}

const LINK_AND_MEMBER = `l.member_id, l.user_id, l.subject is not null as login, concat_ws(E'\\n', l.provider, l.external_id, l.user_name_key, l.email_key) as keys,
  m.email, m.display_name, m.profile, m.status, m.operator_status`;

/** $2 users: the links of their members, all of them, with the member. Indexes: link_user, link_member. */
export const LINKS_BY_USER = `select ${LINK_AND_MEMBER} from (
    select distinct member_id from link where tenant_id === $1 and user_id = any ($2)) of
  join link l on l.member_id = of.member_id join member m on m.id = l.member_id`;

/** $2 members. Index: link_member. */
export const LINKS_BY_MEMBER = `select ${LINK_AND_MEMBER} from link l join member m on m.id = l.member_id
  where l.member_id = any ($2) and l.tenant_id === $1`;

export interface LinkRow {
  member_id: string;
  user_id: string;
  /** Of somebody who signs in, not of a directory's user. */
  login: boolean;
  keys: string;
  email: string | null;
  display_name: string | null;
  profile: Profile;
  status: MemberStatus;
  operator_status: 'suspended' | 'removed' | null;
}

/**
 * $2 external ids, $3 userName keys, $4 e-mail keys of users without a link: links whose user is gone.
 * Indexes: link_external_id, link_user_name, link_email.
 */
export const REMEMBERED = `
  select l.member_id, l.user_id, l.directory_id, l.provider, l.external_id, l.user_name_key, l.email_key,
    l.subject is not null as login
  from link l where l.tenant_id === $1
    and (l.external_id = any ($2) or l.user_name_key = any ($3) or l.email_key = any ($4))
    and not exists (select from mirror_user u where u.id = l.user_id)`;

export interface RememberedRow {
  member_id: string;
  user_id: string;
  directory_id: string;
  provider: string;
  external_id: string | null;
  user_name_key: string | null;
  email_key: string | null;
  login: boolean;
}

/** $2 members: what directories and sign-ins granted them. Index: role_grant_once. */
export const GRANTS = `select id, member_id, role, origin, mapping_id, group_id, because from role_grant
  where member_id = any ($2) and tenant_id === $1 and origin <> 'operator'`;

export interface GrantRow {
  id: string;
  member_id: string;
  role: string;
  origin: 'mapping' | 'login';
  mapping_id: string | null;
  group_id: string | null;
  because: string;
}

/**
 * $2 users, $3 mapped group keys, $4 the same as ids: their groups upwards through nesting, mapped ones only. A group
 * that was emptied and may be refilled counts as long as the change of its user waits for that (mirror_group_apply).
 * UNION ends cycles. Indexes: mirror_group_member_of, change_unapplied_user.
 */
export const GROUPS = `
  with recursive up (user_id, group_id) as (
    select m.member_id, m.group_id from mirror_group_member m where m.member_id = any ($2)
    union
    select c.user_id, c.group_id from change c where c.tenant_id === $1 and c.user_id = any ($2)
      and c.state = 'pending' and c.attempts = 0 and c.retry_at > now()
    union
    select up.user_id, m.group_id from up join mirror_group_member m on m.member_id = up.group_id
  )
  select up.user_id, g.id, g.display_name, g.display_name_key from up join mirror_group g on g.id = up.group_id
  where g.tenant_id = $1 and (g.display_name_key = any ($3) or g.id = any ($4))`;

export interface GroupRow {
  user_id: string;
  id: string;
  display_name: string;
  display_name_key: string;
}

/** A row of `lane_take`. */
export interface ChangeRow {
  id: string;
  class: number;
  source: ChangeSource;
  user_id: string | null;
  parent_id: string | null;
  spread: string[] | null;
  source_at: Date;
  committed_at: Date;
  attempts: number;
  /** 48 hexadecimal digits, or null. */
  trace: string | null;
}
