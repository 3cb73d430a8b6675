/**
 * Converge as a function: from what the directories say of one person to the member that should stand. Pure, no I/O;
 * the lane, the comparison, the mapping plan and the property tests all call it.
 */
import type { MemberStatus } from '../database/entities.ts';
import { type AttributeMappings, type Profile, profileOf, type UserDocument } from './profile.ts';
import { rolesOfSignIn, type SignInRules } from './sign-in-policy.ts';

/** A user of the mirror, present now: a directory's, or somebody who has signed in at a connection. */
export interface SourceUser {
  id: string;
  /** The directory, or the connection. */
  directoryId: string;
  /** True for somebody who signed in. */
  login: boolean;
  /** Identity provider of the directory; 'primary' is the tenant's own. */
  provider: string;
  /** The external id is known to be the provider's own object id: of a pulled directory, or shown by a sign-in. */
  pulled: boolean;
  active: boolean;
  userName: string;
  userNameKey: string;
  externalId: string | null;
  displayName: string | null;
  email: string | null;
  emailKey: string | null;
  /** Order of first sight in the tenant, and of the latest change of userName or e-mail. */
  firstSeen: number;
  claimed: number;
  /** The keys it held before, for as far as they were loaded. */
  former: readonly FormerKeys[];
}

/** userName and e-mail of a user from `since` (inclusive) to `until` (exclusive), in the order of first sight. */
export interface FormerKeys {
  userNameKey: string;
  emailKey: string | null;
  since: number;
  until: number;
}

export interface Group {
  id: string;
  displayName: string;
  displayNameKey: string;
}

export interface Mapping {
  id: string;
  directoryId: string | null;
  /** A normalised display name or a group's id. */
  groupKey: string;
  role: string;
  priority: number | null;
}

export interface Policy {
  mappings: readonly Mapping[];
  attributes: AttributeMappings;
  signIn: SignInRules;
}

export interface DesiredGrant {
  role: string;
  origin: 'mapping' | 'login';
  /** Null for the default role of sign-ins. */
  mappingId: string | null;
  /** The group; of a sign-in, who signed in. */
  groupId: string;
  because: string;
}

export interface DesiredMember {
  status: MemberStatus;
  email: string | null;
  displayName: string | null;
  profile: Profile;
  /** Roles given by directories and by sign-ins; an operator's are not touched by them. */
  grants: DesiredGrant[];
}

export interface PersonFacts {
  /** Users linked to the member, present in the mirror: of directories, and of those who sign in. */
  sources: readonly SourceUser[];
  /** A directory had this person and has let them go. */
  letGo: boolean;
  /** Users linked to the member who have gone and of whom the lane has not heard that yet; the last to go first. */
  gone: readonly SourceUser[];
  operatorStatus: 'suspended' | 'removed' | null;
  /** Those of `sources` whose e-mail somebody else claimed first: they give nothing. */
  disputed: ReadonlySet<string>;
  /** Groups of each source, direct and through nesting. */
  groupsOf(userId: string): readonly Group[];
  /** What a source's directory says of it, or the claims of a sign-in, for as far as a mapping reads it. */
  documentOf(userId: string): UserDocument;
  /** The member's e-mail, name and profile as they stand: kept when no source is left to say, nor has just gone. */
  email: string | null;
  displayName: string | null;
  profile: Profile;
}

/**
 * What the member should be.
 *
 * Status: of one identity provider every present source must be active, so that the sooner of a push and a pull cuts;
 * of several providers one is enough, since each gives membership by its own right. No source left: removed. Where a
 * directory has, or had, the person, it alone decides: a sign-in makes only those members whom no directory knows, and
 * where the tenant's policy lets it. What an operator said counts where it is the stricter.
 */
export function desired(facts: PersonFacts, policy: Policy): DesiredMember {
  const { given, giving, heard, last } = hear(facts, policy);
  const sayers = heard.length > 0 || !last ? heard : [last];
  const [owner] = sayers;
  const status = stricter(given, facts.operatorStatus);
  const signedIn = facts.sources.filter((s) => s.login && !facts.disputed.has(s.id));
  return {
    status,
    email: owner ? emailOf(owner) : facts.email,
    displayName: owner ? (owner.displayName ?? owner.userName) : facts.displayName,
    profile: owner ? profileFrom(sayers, facts, policy) : facts.profile,
    grants:
      status === 'active'
        ? [...grantsOf(giving, facts, policy), ...signedIn.flatMap((s) => signInGrants(s, facts, policy))]
        : [],
  };
}

/** Which source gives each attribute: `email`, `displayName`, `profile.<field>`; null where nobody is left who says it. */
export function provenance(facts: PersonFacts, policy: Policy): Map<string, SourceUser | null> {
  const { heard } = hear(facts, policy);
  const [owner] = heard;
  const from = new Map<string, SourceUser | null>([
    ['email', owner ?? null],
    ['displayName', owner ?? null],
  ]);
  if (!owner) for (const field of Object.keys(facts.profile)) from.set(`profile.${field}`, null);
  for (const source of heard) {
    for (const field of Object.keys(profileFrom([source], facts, policy))) {
      if (!from.has(`profile.${field}`)) from.set(`profile.${field}`, source);
    }
  }
  return from;
}

/**
 * Whose word counts: `giving` give membership, `heard` say who the member is, the first of them before the others; where
 * nobody is left who does, `last` was the last to say it.
 */
function hear(facts: PersonFacts, policy: Policy) {
  const directories = facts.sources.filter((s) => !s.login);
  const owned = directories.length > 0 || facts.letGo;
  const sources = owned ? directories : facts.sources;
  const speaking = sources.filter((s) => !facts.disputed.has(s.id)).sort(bySpeakingOrder);
  const cutBy = new Set(speaking.filter((s) => !s.active).map((s) => s.provider));
  const mayGive = owned || policy.signIn.policy.membership === 'jit';
  const giving = mayGive ? speaking.filter((s) => !cutBy.has(s.provider)) : [];
  // Who gives membership says who the member is; where nobody does, those who would.
  const heard = giving.length > 0 ? giving : speaking;
  const given: MemberStatus = giving.length > 0 ? 'active' : sources.length > 0 ? 'suspended' : 'removed';
  const last = facts.gone.find((s) => !(owned && s.login) && !facts.disputed.has(s.id));
  return { given, giving, heard, last };
}

const STRICTNESS = { active: 0, suspended: 1, removed: 2 } as const;

function stricter(given: MemberStatus, said: 'suspended' | 'removed' | null): MemberStatus {
  return said !== null && STRICTNESS[said] > STRICTNESS[given] ? said : given;
}

function signInGrants(source: SourceUser, facts: PersonFacts, policy: Policy): DesiredGrant[] {
  const roles = rolesOfSignIn(policy.signIn, source.directoryId, facts.documentOf(source.id));
  return roles.map((given) => ({ ...given, origin: 'login', groupId: source.id }));
}

/** The tenant's own provider speaks first, then who was seen first. */
function bySpeakingOrder(a: SourceUser, b: SourceUser): number {
  const primary = Number(b.provider === 'primary') - Number(a.provider === 'primary');
  return primary !== 0 ? primary : a.firstSeen - b.firstSeen;
}

function profileFrom(heard: readonly SourceUser[], facts: PersonFacts, policy: Policy): Profile {
  return profileOf(
    heard.flatMap((source) => {
      const mappings = policy.attributes.get(source.directoryId);
      return mappings ? [{ document: facts.documentOf(source.id), mappings }] : [];
    }),
  );
}

function grantsOf(giving: readonly SourceUser[], facts: PersonFacts, policy: Policy): DesiredGrant[] {
  const matches: { mapping: Mapping; group: Group }[] = [];
  for (const source of giving) {
    for (const group of facts.groupsOf(source.id)) {
      for (const mapping of policy.mappings) {
        if (mapping.directoryId !== null && mapping.directoryId !== source.directoryId) continue;
        if (mapping.groupKey !== group.displayNameKey && mapping.groupKey !== group.id) continue;
        matches.push({ mapping, group });
      }
    }
  }
  const top = Math.max(...matches.map((m) => m.mapping.priority ?? Number.NEGATIVE_INFINITY));
  const grants = new Map<string, DesiredGrant>();
  for (const { mapping, group } of matches) {
    // Of the mappings with a priority only the highest grants; those without one always do.
    if (mapping.priority !== null && mapping.priority < top) continue;
    grants.set(grantKey(mapping.role, mapping.id, group.id), {
      role: mapping.role,
      origin: 'mapping',
      mappingId: mapping.id,
      groupId: group.id,
      because: `group "${group.displayName}"`,
    });
  }
  return [...grants.values()];
}

/** Identity of a grant that a directory or a sign-in gave. */
export function grantKey(role: string, mappingId: string | null, groupId: string | null): string {
  return `${role}\n${mappingId}\n${groupId}`;
}

function emailOf(source: SourceUser): string | null {
  return source.email ?? addressOf(source.userName);
}

function addressOf(userName: string): string | null {
  return /^[^@\s]+@[^@\s]+$/.test(userName) ? userName : null;
}
