/**
 * A member's profile: fields that attribute mappings fill with what a directory says of a person. Pure, no I/O. It
 * knows documents and paths as data and nothing of SCIM; whoever saves a mapping resolves its path against the
 * directory's schemas first. Promises: a value is taken whole or not at all, never cut; the order of keys means nothing.
 */
import { isDeepStrictEqual } from 'node:util';
import { normalise } from '../directory/directory.ts';

type Scalar = string | number | boolean;

export type ProfileValue = Scalar | Scalar[];

/** Field → value; a field without a value is absent. */
export type Profile = Record<string, ProfileValue>;

/** What a directory says of a user: `mirror_user.doc`, or those of its attributes that are mapped. */
export type UserDocument = Readonly<Record<string, unknown>>;

/** A place in a document, as `attribute_mapping.path` keeps it. */
export interface AttributePath {
  /** Names from the top of the document: `["title"]`, `["urn:…:User", "department"]`. */
  attribute: readonly [string, ...string[]];
  /** Only values of which every condition holds; absent for all values. */
  where?: readonly Condition[];
  /** The part of each value that is taken; absent for the value itself. */
  part?: string;
  /** True takes all values as a list, false the first. */
  list: boolean;
}

/** A part of a value that must equal something. */
export interface Condition {
  part: string;
  equals: Scalar;
  /** Text without regard to case; `equals` is normalised then. */
  anyCase?: boolean;
}

export interface AttributeMapping {
  field: string;
  path: AttributePath;
}

/** By directory. */
export type AttributeMappings = ReadonlyMap<string, readonly AttributeMapping[]>;

/** Bytes of a field's value as JSON. Photos and certificates are larger; addresses and lists of addresses are not. */
export const VALUE_BYTES = 2048;

/**
 * The value at `path`. Empty text, null and objects are no values.
 * @returns undefined where there is none; `tooLarge` where it has more than {@link VALUE_BYTES} and so gives none
 */
export function valueAt(
  document: UserDocument,
  path: AttributePath,
): { value: ProfileValue } | { tooLarge: true } | undefined {
  let found: unknown = document;
  for (const name of path.attribute) found = partOf(found, name);
  const values = (Array.isArray(found) ? found : [found])
    .filter((value) => path.where?.every((condition) => meets(value, condition)) ?? true)
    .flatMap((value): unknown => (path.part === undefined ? value : partOf(value, path.part)))
    .filter(isScalar);
  const [first] = values;
  if (first === undefined) return undefined;
  const value = path.list ? values : first;
  return Buffer.byteLength(JSON.stringify(value)) > VALUE_BYTES ? { tooLarge: true } : { value };
}

/** @param sources in the order in which they speak: a field is the first one's that has a value for it */
export function profileOf(
  sources: Iterable<{ document: UserDocument; mappings: readonly AttributeMapping[] }>,
): Profile {
  const profile: Profile = {};
  for (const { document, mappings } of sources) {
    for (const { field, path } of mappings) {
      if (Object.hasOwn(profile, field)) continue;
      const found = valueAt(document, path);
      if (found && 'value' in found) profile[field] = found.value;
    }
  }
  return profile;
}

/** A field as it was and is; null where it has no value. */
export interface Moved {
  from: ProfileValue | null;
  to: ProfileValue | null;
}

/** The fields that differ, in alphabetical order. */
export function movedFields(before: Profile, after: Profile): Map<string, Moved> {
  const moved = new Map<string, Moved>();
  for (const field of [...new Set([...Object.keys(before), ...Object.keys(after)])].sort()) {
    const from = fieldOf(before, field);
    const to = fieldOf(after, field);
    if (!isDeepStrictEqual(from, to)) moved.set(field, { from, to });
  }
  return moved;
}

/** The names at the top of a document under which a mapping looks. */
export function namesRead(mappings: AttributeMappings): string[] {
  const names = [...mappings.values()].flatMap((of) => of.map(({ path }) => path.attribute[0]));
  return [...new Set(names)];
}

function fieldOf(profile: Profile, field: string): ProfileValue | null {
  return Object.hasOwn(profile, field) ? (profile[field] ?? null) : null;
}

function meets(value: unknown, { part, equals, anyCase }: Condition): boolean {
  const found = partOf(value, part);
  return (anyCase && typeof found === 'string' ? normalise(found) : found) === equals;
}

function partOf(value: unknown, name: string): unknown {
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined;
  return (value as Record<string, unknown>)[name];
}

function isScalar(value: unknown): value is Scalar {
  return (
    (typeof value === 'string' && value !== '') || typeof value === 'number' || typeof value === 'boolean'
  );
}
