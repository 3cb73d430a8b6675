/** Checks answers against an OpenAPI 3.1 document: the operation is in it, so is the status, and the body fits. */
import { z } from 'zod';

interface Operation {
  responses: Record<string, { content?: Record<string, { schema: unknown }> }>;
}

export interface Document {
  openapi: string;
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, unknown> };
}

/** @returns a function that throws when an answer is not what the document says */
export function openApiChecker(document: Document) {
  const patterns = Object.keys(document.paths).map((path) => ({
    path,
    // A literal part beats a variable one by standing first.
    pattern: new RegExp(`^${path.replace(/\{\w+\}/g, '[^/]+')}$`),
  }));
  const compiled = new Map<string, z.ZodType>();
  const compile = (schema: unknown) => {
    const key = JSON.stringify(schema);
    let found = compiled.get(key);
    if (!found) {
      found = z.fromJSONSchema(inline(schema, document) as never);
      compiled.set(key, found);
    }
    return found;
  };

  return (method: string, path: string, status: number, type: string, text: string): void => {
    const bare = path.split('?')[0] ?? path;
    const operation = patterns
      .filter((p) => p.pattern.test(bare))
      .map((p) => document.paths[p.path]?.[method.toLowerCase()])
      .find((o) => o !== undefined);
    const answer = operation?.responses[String(status)] ?? defaultAnswer(document, status);
    if (!answer) throw new Error(`${method} ${path} answered ${status}, which the document does not know`);
    if (!answer.content) {
      if (text !== '') throw new Error(`${method} ${path}: a body where none is described`);
      return;
    }
    const expected = Object.keys(answer.content)[0] ?? '';
    if (!type.startsWith(expected)) throw new Error(`${method} ${path}: ${type} instead of ${expected}`);
    const read = compile(answer.content[expected]?.schema).safeParse(JSON.parse(text));
    if (!read.success)
      throw new Error(`${method} ${path} ${status}: ${z.prettifyError(read.error)}\n${text}`);
  };
}

/** Errors are described by `default`, the same for every operation and for paths that do not exist. */
function defaultAnswer(document: Document, status: number) {
  if (status < 400) return undefined;
  return Object.values(Object.values(document.paths)[0] ?? {})[0]?.responses.default;
}

/** Replaces `$ref`s by what they name; the document has no cycles. */
export function inline(schema: unknown, document: Document): unknown {
  if (Array.isArray(schema)) return schema.map((s) => inline(s, document));
  if (schema === null || typeof schema !== 'object') return schema;
  const ref = (schema as { $ref?: string }).$ref;
  if (ref !== undefined) return inline(document.components.schemas[ref.split('/').at(-1) ?? ''], document);
  return Object.fromEntries(Object.entries(schema).map(([k, v]) => [k, inline(v, document)]));
}
