/**
 * Reads a request's JSON body. Promises: it holds at most the limit in memory; what it lets through is one JSON
 * object that PostgreSQL's jsonb can hold (valid UTF-8, no NUL, no lone surrogate, bounded depth) and that is safe to
 * copy (no `__proto__` and the like). Everything else is an error value that says what to change, and quotes nothing of
 * the body, which may hold a password.
 *
 * Written out rather than express.json(), which takes other charsets, drains a body of any size before it answers,
 * reads an empty body as {}, and checks none of the above.
 */
import { isUtf8 } from 'node:buffer';
import type { IncomingMessage } from 'node:http';
import { done, failed, type Refusal, type Result } from './errors.ts';

export interface BodyLimits {
  /** Bytes of a body; a longer one is 413. */
  bodyBytes: number;
  /** Levels of arrays and objects within each other. */
  bodyDepth: number;
  /** A body that takes longer to come is 408. */
  bodySeconds: number;
  /** Bytes of all bodies that are being read; beyond them a request is told to come again. */
  heldBytes: number;
}

export type JsonObject = Record<string, unknown>;

export interface BodyReader {
  /**
   * Rejects when the client goes away before the body is complete.
   * @param onBytes told what came, before it is looked at; not for a body that is too long or too slow
   */
  read(req: IncomingMessage, onBytes?: (bytes: Buffer) => void): Promise<Result<JsonObject>>;
}

/** Reads bodies for one server, which together hold no more than {@link BodyLimits.heldBytes}. */
export function openBodies(limits: BodyLimits): BodyReader {
  let held = 0;
  return {
    async read(req, onBytes) {
      // What is not said is taken to be the most that is read.
      const said = Number(req.headers['content-length'] ?? limits.bodyBytes);
      const bytes = Math.min(Number.isFinite(said) ? said : 0, limits.bodyBytes);
      if (held + bytes > limits.heldBytes) return crowded;
      held += bytes;
      try {
        return await readBody(req, limits, onBytes);
      } finally {
        held -= bytes;
      }
    },
  };
}

const crowded: Refusal = {
  ok: false,
  error: {
    status: 503,
    detail:
      'The service is reading as many large requests as it can hold, so this one was not read. Send it again.',
    headers: { 'Retry-After': '1' },
  },
};

async function readBody(
  req: IncomingMessage,
  limits: BodyLimits,
  onBytes?: (bytes: Buffer) => void,
): Promise<Result<JsonObject>> {
  const refusal = mediaRefusal(req.headers['content-type'], req.headers['content-encoding']);
  const bytes = await collect(req, limits);
  if (typeof bytes !== 'string') onBytes?.(bytes);
  if (refusal) return failed(415, undefined, refusal);
  if (bytes === 'slow') {
    return failed(
      408,
      undefined,
      `The request body was not complete after ${limits.bodySeconds} seconds, so nothing was written. Send it again.`,
    );
  }
  if (bytes === 'long') {
    return failed(
      413,
      undefined,
      `The request body is larger than ${limits.bodyBytes} bytes. Send fewer members or attributes in one request.`,
    );
  }
  return parseBody(bytes, limits);
}

function mediaRefusal(type: string | undefined, encoding: string | undefined): string | undefined {
  if (encoding !== undefined && encoding.toLowerCase() !== 'identity') {
    return `The request body has the Content-Encoding ${quote(encoding)}. Send it uncompressed.`;
  }
  // The one form that clients really send, before the general one.
  if (type === undefined || type === 'application/scim+json' || type === 'application/json') return undefined;
  const [media = '', ...parameters] = type.split(';').map((part) => part.trim().toLowerCase());
  if (media !== 'application/scim+json' && media !== 'application/json') {
    return `The request body has the Content-Type ${quote(type)}. Send application/scim+json or application/json.`;
  }
  const charset = parameters.find((p) => p.startsWith('charset='))?.slice('charset='.length);
  if (charset !== undefined && !/^"?(utf-?8|us-ascii)"?$/.test(charset)) {
    return `The request body has the charset ${quote(charset)}. Send it in UTF-8.`;
  }
  return undefined;
}

/**
 * The body's bytes, unless it is too long or takes too long. Up to eight times the limit is read and dropped, so that
 * the client gets to read the answer; from there on the connection is closed with the answer.
 */
export function collect(
  req: IncomingMessage,
  { bodyBytes, bodySeconds }: Pick<BodyLimits, 'bodyBytes' | 'bodySeconds'>,
): Promise<Buffer | 'long' | 'slow'> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    const patience = setTimeout(() => {
      chunks.length = 0;
      end('slow');
    }, bodySeconds * 1000);
    const end = (outcome: Buffer | 'long' | 'slow') => {
      clearTimeout(patience);
      resolve(outcome);
    };
    req.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size <= bodyBytes) chunks.push(chunk);
      else {
        chunks.length = 0;
        if (size > 8 * bodyBytes) end('long');
      }
    });
    req.on('end', () => {
      const [first] = chunks;
      if (size > bodyBytes) end('long');
      else end(chunks.length === 1 && first ? first : Buffer.concat(chunks));
    });
    const gone = () => {
      clearTimeout(patience);
      reject(new ClientGone());
    };
    req.on('error', gone);
    req.on('close', () => {
      if (!req.complete) gone();
    });
  });
}

/** The client closed the connection before its request was complete: there is nobody to answer. */
export class ClientGone extends Error {}

export function parseBody(bytes: Buffer, limits: BodyLimits): Result<JsonObject> {
  if (!isUtf8(bytes)) {
    return failed(400, 'invalidSyntax', 'The request body is not valid UTF-8. Send it in UTF-8.');
  }
  const text = bytes.toString('utf8');
  let value: unknown;
  try {
    value = JSON.parse(text.charCodeAt(0) === 0xfeff ? text.slice(1) : text);
  } catch (error) {
    const why = text.trim() === '' ? 'it is empty' : whereOf(error as Error);
    return failed(400, 'invalidSyntax', `The request body is not valid JSON: ${why}. Send one JSON object.`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return failed(400, 'invalidSyntax', 'The request body is not a JSON object. Send one JSON object.');
  }
  const flaw = findFlaw(value, limits.bodyDepth, '');
  if (flaw) return flaw;
  return done(value as JsonObject);
}

/** The part of V8's message that says where the text breaks off, without the text around it. */
function whereOf(error: Error): string {
  const place = /at position \d+(?: \(line \d+ column \d+\))?/.exec(error.message)?.[0];
  return place ? `it breaks off ${place}` : 'it has something that does not belong there, or ends too early';
}

/** Keys that no SCIM attribute has and that change an object's own behaviour where they are copied. */
const UNSAFE_KEYS = new Set(['__proto__', 'constructor', 'prototype']);

/** @param name of what has the value, for the error */
function findFlaw(value: unknown, depth: number, name: string): Refusal | undefined {
  if (typeof value === 'string')
    return storable(value) ? undefined : unstorable(`The value of ${quote(name)}`);
  if (typeof value !== 'object' || value === null) return undefined;
  if (depth === 0) {
    return failed(400, 'invalidSyntax', 'The request body is nested too deeply. Send a flat SCIM resource.');
  }
  if (Array.isArray(value)) {
    for (const entry of value) {
      const flaw = findFlaw(entry, depth - 1, name);
      if (flaw) return flaw;
    }
    return undefined;
  }
  for (const key of Object.keys(value)) {
    if (UNSAFE_KEYS.has(key)) {
      return failed(
        400,
        'invalidSyntax',
        `The request body has the key "${key}", which no attribute may have. Remove it from the attribute mapping.`,
      );
    }
    if (!storable(key)) return unstorable('A key of the request body');
    const flaw = findFlaw((value as JsonObject)[key], depth - 1, key);
    if (flaw) return flaw;
  }
  return undefined;
}

function unstorable(what: string): Refusal {
  return failed(
    400,
    'invalidValue',
    `${what} has a NUL character or half of a surrogate pair, which cannot be stored. Remove it at the source.`,
  );
}

/** Whether PostgreSQL can hold the text. */
export function storable(text: string): boolean {
  return text.isWellFormed() && !text.includes('\0');
}

/** A client's text inside a detail: short, and never one that breaks the answer. */
export function quote(text: string): string {
  const short = text.length > 80 ? `${text.slice(0, 79)}…` : text;
  return `"${wellFormed(short)}"`;
}

function wellFormed(text: string): string {
  return text.toWellFormed().replaceAll('\0', '�');
}
