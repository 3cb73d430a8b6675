/**
 * Who is whom: ties directory users to members, in the order of docs/architecture.md, and stops at the first rule that
 * answers. Pure, no I/O. It depends on the facts alone and not on the order in which changes are worked: claimants of one
 * e-mail are ranked by when they claimed it at the source.
 */
import type { FormerKeys, SourceUser } from './desired.ts';

/** What ties a member to a user that is gone: of a directory, or of a connection. */
export interface RememberedLink {
  memberId: string;
  directoryId: string;
  login: boolean;
  provider: string;
  pulled: boolean;
  externalId: string | null;
  userNameKey: string | null;
  emailKey: string | null;
  /** As of a {@link SourceUser}, where the lane has not heard yet that the user is gone. */
  firstSeen?: number;
  former?: readonly FormerKeys[];
}

export interface WhoFacts {
  /** Every user in question, and every present user that shares a key with one of them. */
  users: readonly SourceUser[];
  /** Directory user id → member id, for users already linked. */
  linked: ReadonlyMap<string, string>;
  /** Links without a present user that share a key with a user that is not yet linked. */
  remembered: readonly RememberedLink[];
  provedDomains: ReadonlySet<string>;
}

/** What tied a user to its member: see "Who is whom". `new`: nothing did, and a member is made for it. */
export type TieRule = 'link' | 'stable_id' | 'provider' | 'proved_domain' | 'new';

export interface Identity {
  /** New links, directory user id → member id. */
  links: Map<string, string>;
  /** Which rule made each of them. */
  rules: Map<string, TieRule>;
  /** Users whose e-mail another user claimed first without a tie: user id → the rival's id. */
  disputed: Map<string, { rivalId: string | null; reason: string }>;
}

interface Candidate {
  memberId: string;
  /** The present user behind the candidate, if there is one. */
  userId: string | null;
}

/** @param newMemberId makes the id of a member that does not exist yet, from the user it is made for */
export function whoIsWhom(facts: WhoFacts, newMemberId: (user: SourceUser) => string): Identity {
  const links = new Map<string, string>();
  const rules: Identity['rules'] = new Map();
  const disputed: Identity['disputed'] = new Map();
  const memberOf = (user: SourceUser) => facts.linked.get(user.id) ?? links.get(user.id);

  const byFirstSight = [...facts.users].sort((a, b) => a.firstSeen - b.firstSeen);
  // Again as long as somebody gets a member: who had a rival and no tie may be tied to one who comes later.
  for (let linked = -1; linked < links.size; ) {
    linked = links.size;
    for (const user of byFirstSight) {
      if (memberOf(user) !== undefined) continue;
      const { candidates, taken, rule } = firstAnswer(user, facts, memberOf);
      if (candidates.length === 1 && candidates[0]) {
        links.set(user.id, candidates[0].memberId);
        rules.set(user.id, rule);
        disputed.delete(user.id);
      } else if (user.login && candidates.length === 0 && taken) {
        // A member of its own would outlive the one that the directory knows.
        disputed.set(user.id, {
          rivalId: taken.userId,
          reason:
            'somebody else signs in already as the member whom the directory has under its name or e-mail address',
        });
      } else if (candidates.length > 1) {
        disputed.set(user.id, {
          rivalId: candidates[0]?.userId ?? null,
          reason: `it matches ${candidates.length} members at once`,
        });
      } else if (!rivalOf(user, facts.users, memberOf)) {
        links.set(user.id, newMemberId(user));
        rules.set(user.id, 'new');
      }
    }
  }
  for (const user of byFirstSight) {
    const rival = rivalOf(user, facts.users, memberOf);
    if (rival) {
      disputed.set(user.id, {
        rivalId: rival.id,
        reason: 'its e-mail address was claimed first by a user of another identity provider',
      });
    }
  }
  return { links, rules, disputed };
}

/**
 * The user that claimed this one's e-mail first: present, of another identity provider, not the same member.
 * A rename into a taken e-mail is a second claim as well: it loses its grants until one of the two moves.
 */
function rivalOf(
  user: SourceUser,
  users: readonly SourceUser[],
  memberOf: (user: SourceUser) => string | undefined,
): SourceUser | undefined {
  if (user.emailKey === null) return undefined;
  const member = memberOf(user);
  let first: SourceUser | undefined;
  for (const other of users) {
    if (other.emailKey !== user.emailKey || other.provider === user.provider) continue;
    if (other.claimed >= user.claimed) continue;
    if (member !== undefined && memberOf(other) === member) continue;
    if (!first || other.claimed < first.claimed) first = other;
  }
  return first;
}

/**
 * The members that the first answering rule names; several of them are an ambiguity. `taken`: a rule names somebody whom
 * a directory has, but another user of this source is that member already.
 */
function firstAnswer(
  user: SourceUser,
  facts: WhoFacts,
  memberOf: (user: SourceUser) => string | undefined,
): { candidates: Candidate[]; taken: Candidate | undefined; rule: TieRule } {
  // The keys of the moment of first sight, on both sides: what came later is a rename, which changes nobody.
  const born = keysAt(user, user.firstSeen);
  const rules: [TieRule, (key: Keys) => boolean][] = [
    [
      'stable_id',
      (key) => user.externalId !== null && key.externalId === user.externalId && sameStableId(user, key),
    ],
    [
      'provider',
      (key) =>
        key.provider === user.provider && !contradicts(user, key) && sameKey(user.directoryId, born, key),
    ],
    [
      'proved_domain',
      (key) =>
        born.emailKey !== null &&
        key.emailKey === born.emailKey &&
        key.directoryId !== user.directoryId &&
        facts.provedDomains.has(born.emailKey.slice(born.emailKey.indexOf('@') + 1)),
    ],
  ];
  const known: (Keys & Candidate)[] = [];
  for (const other of facts.users) {
    const memberId = other.id === user.id ? undefined : memberOf(other);
    // Two present users of one directory are two people, whatever they share.
    if (memberId !== undefined && other.directoryId !== user.directoryId) {
      known.push({ ...other, ...keysAt(other, user.firstSeen), memberId, userId: other.id });
    }
  }
  for (const link of facts.remembered) {
    known.push({ ...link, ...keysAt(link, user.firstSeen), userId: null });
  }
  let taken: Candidate | undefined;
  for (const [rule, answers] of rules) {
    const members = new Map<string, Candidate>();
    for (const key of known) {
      if (!answers(key)) continue;
      if (occupied(key.memberId, user, facts, memberOf)) {
        if (!key.login) taken ??= key;
      } else if (members.get(key.memberId)?.userId == null) members.set(key.memberId, key);
    }
    if (members.size === 0) continue;
    const candidates = [...members.values()];
    // Who signs in under an address that has gone to a new person is the one whom a directory has now.
    const present = candidates.filter((c) => c.userId !== null);
    return { candidates: user.login && present.length > 0 ? present : candidates, taken, rule };
  }
  return { candidates: [], taken, rule: 'new' };
}

interface Keys {
  directoryId: string;
  login: boolean;
  provider: string;
  pulled: boolean;
  externalId: string | null;
  userNameKey: string | null;
  emailKey: string | null;
}

/** External ids are comparable within one provider, or between a push and the pull of the object that it names. */
function sameStableId(user: SourceUser, key: Keys): boolean {
  return key.provider === user.provider || key.pulled !== user.pulled;
}

/** What a user was called at a moment; its first keys for a moment before it was seen. */
export function keysAt<K extends string | null>(
  user: { userNameKey: K; emailKey: string | null; firstSeen?: number; former?: readonly FormerKeys[] },
  moment: number,
): { userNameKey: K | string; emailKey: string | null } {
  const at = Math.max(moment, user.firstSeen ?? 0);
  const former = user.former?.find((f) => f.since <= at && at < f.until);
  return { userNameKey: (former ?? user).userNameKey, emailKey: (former ?? user).emailKey };
}

/** Within a directory only the userName, which is unique there, tells that somebody came back under a new id. */
function sameKey(
  directoryId: string,
  born: Pick<FormerKeys, 'userNameKey' | 'emailKey'>,
  key: Keys,
): boolean {
  if (key.userNameKey === born.userNameKey) return true;
  return key.directoryId !== directoryId && born.emailKey !== null && key.emailKey === born.emailKey;
}

/**
 * One directory gave both ids and they differ: an address that went to a new person. So it is when the object id that a
 * sign-in shows is not the one that the provider's directory has.
 */
function contradicts(user: SourceUser, key: Keys): boolean {
  if (key.externalId === null || user.externalId === null || key.externalId === user.externalId) return false;
  if (key.directoryId === user.directoryId) return true;
  const form = user.login !== key.login ? objectIdForm(user.externalId) : undefined;
  return form !== undefined && form === objectIdForm(key.externalId) && (user.login ? user : key).pulled;
}

/** Whose object ids look like this one; no two providers give one twice. */
export function objectIdForm(id: string | null): 'okta' | 'entra' | undefined {
  if (id === null) return undefined;
  if (/^00u[A-Za-z0-9]{17}$/.test(id)) return 'okta';
  return /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/i.test(id) ? 'entra' : undefined;
}

/** A member has at most one present user of a directory. */
function occupied(
  memberId: string,
  user: SourceUser,
  facts: WhoFacts,
  memberOf: (user: SourceUser) => string | undefined,
): boolean {
  return facts.users.some(
    (other) => other.id !== user.id && other.directoryId === user.directoryId && memberOf(other) === memberId,
  );
}
