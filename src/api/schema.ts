/** The building blocks of the bodies, queries and answers of /v1, among them cursors: every long list is a keyset. */
import { z } from 'zod';

/** Text of a person: trimmed, not empty, no control characters (PostgreSQL takes no NUL). */
export function text(max: number) {
  return z
    .string()
    .trim()
    .min(1, 'must not be empty')
    .max(max, `must have at most ${max} characters`)
    .refine((value) => !/\p{Cc}/u.test(value), 'must not contain control characters');
}

export const uuid = z.uuid({ error: 'must be a UUID' }).toLowerCase();
/** A change's id: what a PostgreSQL bigint takes. */
export const changeId = z.string().refine((v) => /^[1-9]\d{0,18}$/.test(v) && BigInt(v) < 2n ** 63n);
export const time = z.iso.datetime({ offset: true });

/** A time ahead of us: RFC 3339 with an offset. */
export const expiry = z.iso
  .datetime({ offset: true, error: 'must be a time like 2030-01-31T00:00:00Z' })
  .refine((value) => Date.parse(value) > Date.now(), 'must be in the future')
  .transform((value) => new Date(value));

export const role = text(100).meta({ description: 'A role of your product; "owner" is reserved' });

export const limit = z.coerce
  .number({ error: 'must be a number from 1 to 200' })
  .int('must be a whole number')
  .min(1, 'must be at least 1')
  .max(200, 'must be at most 200')
  .default(50)
  .meta({ description: 'Items in one answer at most' });

const scalar = z.union([z.string(), z.number(), z.boolean()]);
/** Field → value, as attribute mappings fill it. */
export const profile = z.record(z.string(), z.union([scalar, z.array(scalar)]));

/** A page's place in its list, opaque to clients. @param key what the cursor holds once decoded */
export function cursor<Key extends z.ZodType>(key: Key) {
  return z
    .string()
    .max(300)
    .transform((value, context): z.output<Key> => {
      const read = key.safeParse(decode(value));
      if (read.success) return read.data;
      context.addIssue({
        code: 'custom',
        message: 'is not a cursor of this list; send the nextCursor of an earlier answer as it was',
      });
      return z.NEVER;
    })
    .optional()
    .meta({ description: 'nextCursor of the answer before' });
}

function decode(value: string): unknown {
  try {
    return JSON.parse(Buffer.from(value, 'base64url').toString('utf8'));
  } catch {
    return undefined;
  }
}

/** A list's answer. */
export function pageOf<Item extends z.ZodType>(item: Item) {
  return z.strictObject({
    items: z.array(item),
    nextCursor: z
      .string()
      .nullable()
      .meta({ description: 'Send as `cursor` for the next page; null at the end' }),
  });
}

/**
 * One page of `rows`, which were read with one more than `size` to see whether there is a next.
 * @param key what the cursor after an item holds
 */
export function page<Row, Item>(
  rows: Row[],
  size: number,
  item: (row: Row) => Item,
  key: (row: Row) => unknown,
): { items: Item[]; nextCursor: string | null } {
  const shown = rows.slice(0, size);
  const last = shown.at(-1);
  return {
    items: shown.map(item),
    nextCursor: rows.length > size && last !== undefined ? cursorOf(key(last)) : null,
  };
}

/** A cursor as clients get it. */
export function cursorOf(key: unknown): string {
  return Buffer.from(JSON.stringify(key)).toString('base64url');
}

/** The plan of a removal. */
export const removalPlan = z
  .strictObject({
    hash: z.string(),
    counts: z.record(z.string(), z.int()),
  })
  .meta({ id: 'RemovalPlan', description: 'What would go; repeat the request with `?hash=` to do it' });

/** `?hash=` of a removal. */
export const removalQuery = z.strictObject({
  hash: z
    .string()
    .regex(/^[0-9a-f]{64}$/, 'must be the hash of a plan')
    .optional()
    .meta({ description: 'The hash of the plan that is to be done' }),
});

export function iso(date: Date): string {
  return date.toISOString();
}

export function isoOrNull(date: Date | null): string | null {
  return date?.toISOString() ?? null;
}
