/**
 * Errors of /v1 as RFC 9457 problem documents. Each says what happened, to which thing and what to do next. What a
 * caller may not see is told in the same bytes as what does not exist.
 */
import { z } from 'zod';

export const problemSchema = z
  .strictObject({
    type: z.string().meta({ description: 'urn:lockstep:problem:… ; names the kind of problem' }),
    title: z.string(),
    status: z.int(),
    detail: z.string().meta({ description: 'What happened, to which thing, and what to do next' }),
    instance: z.string().meta({ description: 'urn:uuid: of this occurrence; the request id' }),
    requestId: z.string(),
    errors: z
      .array(z.strictObject({ path: z.string(), message: z.string() }))
      .optional()
      .meta({ description: 'What is wrong with the body or the query, by JSON pointer or parameter' }),
    plan: z
      .unknown()
      .optional()
      .meta({ description: 'The current plan, where a hash named one that no longer stands' }),
  })
  .meta({ id: 'Problem' });

/** One wrong place in a request: `path` is a JSON pointer into the body, or a query parameter's name. */
export interface FieldError {
  path: string;
  message: string;
}

export interface Problem {
  kind: 'problem';
  status: number;
  /** The last part of the type URN. */
  name: string;
  title: string;
  detail: string;
  errors?: FieldError[];
  plan?: unknown;
  headers?: Record<string, string>;
}

type More = Pick<Problem, 'errors' | 'plan' | 'headers'>;

function problem(status: number, name: string, title: string, detail: string, more: More = {}): Problem {
  return { kind: 'problem', status, name, title, detail, ...more };
}

export type Noun =
  | 'tenant'
  | 'directory'
  | 'member'
  | 'token'
  | 'client'
  | 'key'
  | 'change'
  | 'role'
  | 'request'
  | 'pull'
  | 'reconciliation'
  | 'domain'
  | 'product'
  | 'session'
  | 'connection';

/** The same for what is unknown and for what belongs to somebody else; names no id, so that the bytes are equal. */
export function notFound(noun: Noun): Problem {
  return problem(
    404,
    'not-found',
    'Not found',
    `There is no such ${noun}, or it is not yours to see. Check the ${noun === 'tenant' ? 'id or slug' : 'id'} in the path.`,
  );
}

export const noSuchRoute = problem(
  404,
  'no-such-route',
  'No such route',
  'Nothing is served at this path. GET /v1/openapi.json lists what is.',
);

export function methodNotAllowed(allowed: string[]): Problem {
  const allow = allowed.join(', ');
  return problem(
    405,
    'method-not-allowed',
    'Method not allowed',
    `This path takes ${allow}. GET /v1/openapi.json says what each does.`,
    { headers: { allow } },
  );
}

export function unauthorised(why: 'missing' | 'unknown' | 'revoked' | 'expired'): Problem {
  const detail = {
    missing: 'Send "Authorization: Bearer <key>" with a key of /v1; a directory\'s SCIM token is not one.',
    unknown: 'The key is not known here. Check that it was copied whole and belongs to this deployment.',
    revoked: 'The key was revoked. Ask an operator for a new one (POST /v1/keys).',
    expired: 'The key has expired. Ask an operator for a new one (POST /v1/keys).',
  }[why];
  return problem(401, 'unauthorised', 'Unauthorised', detail, {
    headers: { 'www-authenticate': 'Bearer realm="lockstep"' },
  });
}

export function forbidden(detail: string): Problem {
  return problem(403, 'forbidden', 'Forbidden', detail);
}

export function lacksScope(scope: string): Problem {
  return forbidden(
    `This needs a key with the scope ${scope}. Ask an operator for one (POST /v1/keys). Nothing was written.`,
  );
}

/** @param name says why, for programs */
export function refused(name: string, title: string, detail: string): Problem {
  return problem(403, name, title, detail);
}

/** What a session's own token cannot do, because it is none or its session has ended. */
export function tokenRefused(name: string, title: string, detail: string): Problem {
  return problem(401, name, title, detail, {
    headers: { 'www-authenticate': 'Bearer realm="lockstep", error="invalid_token"' },
  });
}

export function heldOff(seconds: number): Problem {
  return problem(
    429,
    'held-off',
    'Too many failures',
    `Too many tokens that are not known here came from this address. Try again in ${seconds} s. Nothing was written.`,
    { headers: { 'retry-after': String(seconds) } },
  );
}

export function invalid(errors: FieldError[]): Problem {
  const first = errors[0];
  const where = first?.path ? `${first.path}: ` : '';
  const more = errors.length > 1 ? ` (and ${errors.length - 1} more, see errors)` : '';
  return problem(
    422,
    'invalid-request',
    'Invalid request',
    `The request was understood, but not accepted: ${where}${first?.message ?? 'see errors'}${more}. Nothing was written.`,
    { errors },
  );
}

export function malformed(detail: string): Problem {
  return problem(400, 'malformed-request', 'Malformed request', `${detail} Nothing was written.`);
}

export const tooLarge = problem(
  413,
  'too-large',
  'Body too large',
  'The body is larger than 2 MB. Send it in smaller parts. Nothing was written.',
);

export const notJson = problem(
  415,
  'unsupported-media-type',
  'Unsupported media type',
  'The body must be JSON in UTF-8: send "Content-Type: application/json". Nothing was written.',
);

export function conflict(name: string, detail: string, plan?: unknown): Problem {
  return problem(409, name, 'Conflict', detail, plan === undefined ? {} : { plan });
}

/** @param kinds those that there are */
export function unknownKind(kind: string, kinds: readonly string[]): Problem {
  return problem(
    422,
    'kind-not-available',
    'Kind of directory not available',
    `There is no kind of directory "${kind}" here. There are: ${kinds.join(', ')}. Nothing was written.`,
    { errors: [{ path: '/kind', message: `must be one of ${kinds.join(', ')}` }] },
  );
}

/** What an operator gave was understood, but the identity provider that it names does not bear it out. */
export function idpRefused(detail: string): Problem {
  return problem(
    422,
    'identity-provider-refused',
    'The identity provider does not answer as a sign-in needs it',
    `${detail} Nothing was written.`,
  );
}

export const databaseAway = problem(
  503,
  'unavailable',
  'Temporarily unavailable',
  'The database did not answer. Nothing was written unless an earlier answer said so; try again in a few seconds.',
  { headers: { 'retry-after': '2' } },
);

export const internal = problem(
  500,
  'internal',
  'Internal error',
  'Something went wrong on our side. The log has the reason under this request id; report it with the id.',
);

/** The document as sent. */
export function document(found: Problem, requestId: string): Record<string, unknown> {
  return {
    type: `urn:lockstep:problem:${found.name}`,
    title: found.title,
    status: found.status,
    detail: found.detail,
    instance: `urn:uuid:${requestId}`,
    requestId,
    ...(found.errors ? { errors: found.errors } : {}),
    ...(found.plan === undefined ? {} : { plan: found.plan }),
  };
}
