/** Reads the parts of a request of /v1: path, query and body, each to a value or to a problem that says what is wrong. */
import express, { type Request, type Response } from 'express';
import { z } from 'zod';
import { type FieldError, invalid, type Noun, notFound, notJson, type Problem } from './problem.ts';
import { changeId, text, uuid } from './schema.ts';

export type Read<T> = { ok: true; value: T } | { ok: false; error: Problem };

/** 2 MB. */
const BODY_LIMIT = 2 * 1024 * 1024;

const id = (noun: Noun) => ({ noun, schema: uuid });

/** The parts of a path that there are, and what each must look like. */
export const pathParts: Record<string, { noun: Noun; schema: z.ZodType<string> }> = {
  tenant: { noun: 'tenant', schema: text(63).toLowerCase() },
  directory: id('directory'),
  token: id('token'),
  client: id('client'),
  member: id('member'),
  key: id('key'),
  change: { noun: 'change', schema: changeId },
  request: id('request'),
  pull: id('pull'),
  reconciliation: id('reconciliation'),
  product: id('product'),
  connection: id('connection'),
  use: { noun: 'domain', schema: z.enum(['email', 'host']) },
  name: { noun: 'domain', schema: text(253) },
  session: id('session'),
  role: { noun: 'role', schema: text(100) },
};

/** An id that cannot be one is as unknown as any other unknown id. */
export function readParams(path: string, sent: Record<string, unknown>): Read<Record<string, string>> {
  const value: Record<string, string> = {};
  for (const [, name] of path.matchAll(/\{(\w+)\}/g)) {
    const part = name === undefined ? undefined : pathParts[name];
    if (name === undefined || !part)
      throw new Error(`the path ${path} has a part that request.ts does not know`);
    const read = part.schema.safeParse(sent[name]);
    if (!read.success) {
      return {
        ok: false,
        error: part.noun === 'role' ? invalid(errorsOf(read.error, name)) : notFound(part.noun),
      };
    }
    value[name] = read.data;
  }
  return { ok: true, value };
}

const noQuery = z.strictObject({});

/** @param schema absent for a route that takes no parameters */
export function readQuery(schema: z.ZodObject | undefined, sent: unknown): Read<unknown> {
  const read = (schema ?? noQuery).safeParse({ ...(sent as Record<string, unknown>) });
  if (read.success) return { ok: true, value: read.data };
  return { ok: false, error: invalid(errorsOf(read.error, '')) };
}

const parse = express.json({ limit: BODY_LIMIT, type: () => true });

/** @throws what body-parser throws for a body that is too large or no JSON (see failure.ts) */
export async function readBody(schema: z.ZodType, req: Request, res: Response): Promise<Read<unknown>> {
  const empty = req.get('transfer-encoding') === undefined && Number(req.get('content-length') ?? 0) === 0;
  if (!empty) {
    if (!req.is(['application/json', '+json'])) return { ok: false, error: notJson };
    await new Promise<void>((resolve, reject) => {
      parse(req, res, (error?: unknown) => (error ? reject(error) : resolve()));
    });
  }
  const read = schema.safeParse(empty ? undefined : req.body);
  if (read.success) return { ok: true, value: read.data };
  return { ok: false, error: invalid(errorsOf(read.error, '/')) };
}

/** @param prefix '/' for JSON pointers into a body, '' for parameters, or the name of the one that was read */
function errorsOf(error: z.ZodError, prefix: string): FieldError[] {
  const at = (parts: readonly PropertyKey[]) => {
    const names = parts.map((part) => String(part).replaceAll('~', '~0').replaceAll('/', '~1'));
    if (names.length === 0) return prefix === '/' ? '' : prefix;
    return `${prefix}${names.join('/')}`;
  };
  return error.issues
    .flatMap((issue): FieldError[] =>
      issue.code === 'unrecognized_keys'
        ? issue.keys.map((key) => ({ path: at([...issue.path, key]), message: 'is not known here' }))
        : [{ path: at(issue.path), message: wordsOf(issue) }],
    )
    .slice(0, 50);
}

function wordsOf(issue: z.core.$ZodIssue): string {
  if (issue.code === 'invalid_type') return `must be of type ${issue.expected}`;
  if (issue.code === 'invalid_value') return `must be one of ${issue.values.map(String).join(', ')}`;
  return issue.message;
}
