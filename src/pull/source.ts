/**
 * From what a connector says to rows of the mirror. Pure. Promises: ids are deterministic, so that who comes back under
 * the same id is the same one; every user becomes a row, however odd what the source says of them, so that nothing at the
 * source can stop a pull or keep a leaver in; what PostgreSQL cannot store never reaches it.
 */
import { hash } from 'node:crypto';
import type { MemberRef, SourceGroup, SourceStatus, SourceUser } from '../../connectors/connector.ts';
import { normalise } from '../directory/directory.ts';
import { type PulledGroupRow, type PulledUserRow, pulledUserRow } from '../directory/pulled.ts';
import type { JsonObject } from '../scim/body.ts';
import { indexable, userFacts } from '../scim/user.ts';

/** Moves when rows are made differently, so that every user is written anew by the next snapshot. */
const DERIVATION = '1';

/** Makes the mirror's ids of one directory: UUIDv5 (RFC 9562 §5.5) of the source's id in the directory's namespace. */
export function mirrorIds(directoryId: string): (sourceId: string) => string {
  // One buffer for all: a snapshot asks for hundreds of thousands of ids, and buffers are slow to be collected.
  let input = Buffer.alloc(16 + 1_024);
  const namespace = Buffer.from(directoryId.replaceAll('-', ''), 'hex');
  namespace.copy(input);
  return (sourceId) => {
    if (sourceId.length * 3 > input.length - 16) {
      input = Buffer.alloc(16 + sourceId.length * 3);
      namespace.copy(input);
    }
    const end = 16 + input.write(sourceId, 16, 'utf8');
    const hex = hash('sha1', input.subarray(0, end), 'hex');
    const variant = ((Number.parseInt(hex.charAt(16), 16) & 0x3) | 0x8).toString(16);
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-5${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
  };
}

export interface MirrorUser {
  row: PulledUserRow;
  /** What of the user could not be kept, in words; null where all was. */
  problem: string | null;
}

/** What the source says, in 32 hexadecimal digits. The order of attributes counts: at worst equal users differ. */
export function userDigest(status: SourceStatus, attributes: Record<string, unknown>): string {
  return hash('sha256', JSON.stringify([DERIVATION, status, attributes]), 'hex').slice(0, 32);
}

/**
 * @param user not one that was removed
 * @param id in the mirror
 * @param digest null when the row is made of less than a whole user
 */
export function mirrorUser(user: SourceUser, id: string, digest: string | null): MirrorUser {
  const active = user.status === 'active';
  const stored = storable(user.attributes) as JsonObject;
  const facts = userFacts({ ...stored, externalId: user.id, active }, active);
  if (facts.ok) {
    return {
      row: pulledUserRow({ ...facts.value, id }, { digest, changedAt: user.changedAt }),
      problem: null,
    };
  }
  // A person all the same, who can be denied: by the userName, or by the source's id where even that is of no use.
  const { userName } = stored;
  const name =
    typeof userName === 'string' && userName.trim() !== '' && indexable(userName) ? userName : user.id;
  const least = { userName: name, externalId: user.id, active };
  const row = pulledUserRow(
    {
      id,
      userName: name,
      externalId: user.id,
      displayName: null,
      active,
      email: null,
      emailKeys: [],
      doc: least,
    },
    { digest, changedAt: user.changedAt },
  );
  return { row, problem: facts.error.detail };
}

export function groupDigest(group: Pick<SourceGroup, 'displayName'>): string {
  return hash('sha256', JSON.stringify([DERIVATION, group.displayName]), 'hex').slice(0, 32);
}

export function mirrorGroup(group: SourceGroup, id: string, digest: string | null): PulledGroupRow {
  const said = String(storable(group.displayName)).trim();
  const displayName = said === '' ? group.id : indexable(said) ? said : said.slice(0, 200);
  return {
    id,
    display_name: displayName,
    display_name_key: normalise(displayName),
    external_id: group.id,
    doc: {},
    digest,
    changed_at: group.changedAt?.toISOString() ?? null,
  };
}

/** Each member once. */
export function distinctMembers(members: readonly MemberRef[]): MemberRef[] {
  return [...new Map(members.map((m) => [m.id, m])).values()];
}

/** JSON Merge Patch (RFC 7396 §2) of an object; the target is not changed. */
export function mergePatch(
  target: Record<string, unknown>,
  patch: Record<string, unknown>,
): Record<string, unknown> {
  const merged = { ...target };
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete merged[name];
    else if (isObject(value)) {
      const before = merged[name];
      merged[name] = mergePatch(isObject(before) ? before : {}, value);
    } else merged[name] = value;
  }
  return merged;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Without NUL, which PostgreSQL has no place for, and without lone surrogates, which are no text. */
function storable(value: unknown): unknown {
  if (typeof value === 'string') {
    const text = value.isWellFormed() ? value : value.toWellFormed();
    return text.includes('\0') ? text.replaceAll('\0', '') : text;
  }
  if (Array.isArray(value)) return value.map(storable);
  if (!isObject(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [storable(name), storable(inner)]));
}
