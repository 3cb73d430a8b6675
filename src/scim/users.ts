/**
 * Users: POST, and GET, PUT, PATCH, DELETE of one. Promises: a write that changes nothing writes nothing; a PATCH is
 * applied to the version it read or not at all, and again when that version has moved on, unless the client named
 * one (If-Match); a user who is inactive comes back only when a client says so.
 */
import { isDeepStrictEqual } from 'node:util';
import type { DirectoryStore, Stored, UserFacts } from '../directory/directory.ts';
import { newId } from '../id/id.ts';
import type { JsonObject } from './body.ts';
import { quote } from './body.ts';
import { dialectOf } from './dialect.ts';
import { contended, done, letIn, type Result, refused } from './errors.ts';
import { isConditional, judge } from './etag.ts';
import {
  applyPatch,
  coerce,
  keepsImmutable,
  missingRequired,
  readPatch,
  replacedActive,
} from './patch/patch.ts';
import { single } from './represent.ts';
import {
  type Answer,
  expectedVersion,
  type Handler,
  projectionOf,
  type ScimRequest,
  withChanges,
} from './request.ts';
import { factsBefore, userFacts } from './user.ts';

/** Ten lost races in a row mean a storm, and then the client waits. */
const ATTEMPTS = 10;

export function openUsers(
  store: DirectoryStore,
): Record<'create' | 'read' | 'replace' | 'patch' | 'remove', Handler> {
  async function create(request: ScimRequest, _id: string, body: JsonObject): Promise<Result<Answer>> {
    const projection = projectionOf(request);
    if (!projection.ok) return projection;
    const coerced = coerce(request.settings.schemas.User, body);
    if (!coerced.ok) return coerced;
    const facts = userFacts(coerced.value);
    if (!facts.ok) return facts;
    const id = newId();
    const written = await store.createUser(request.caller, { ...facts.value, id }, request.receivedAt);
    if (written.outcome !== 'ok') return refused(written.outcome, nameOf(id), { taken: taken(facts.value) });
    const row: Stored = {
      id,
      doc: JSON.stringify(facts.value.doc),
      version: 1,
      createdAt: written.at,
      updatedAt: written.at,
      related: null,
    };
    return done(withChanges(single('User', 201, row, request, projection.value), written.changes));
  }

  async function read(request: ScimRequest, id: string): Promise<Result<Answer>> {
    const projection = projectionOf(request);
    if (!projection.ok) return projection;
    const found = await store.readUser(request.caller, id);
    if (found.outcome !== 'ok') return refused(found.outcome, nameOf(id));
    const verdict = judge(request, found.row.version);
    if (verdict === 'stale') return refused('stale', nameOf(id));
    return done(single('User', verdict === 'same' ? 304 : 200, found.row, request, projection.value));
  }

  async function replace(request: ScimRequest, id: string, body: JsonObject): Promise<Result<Answer>> {
    const schemas = request.settings.schemas.User;
    const coerced = coerce(schemas, body, { complete: false });
    if (!coerced.ok) return coerced;
    // Somebody who leaves is let go whatever else the request lacks.
    const missing = coerced.value.active === false ? undefined : missingRequired(schemas, coerced.value);
    if (missing) return missing;
    return change(request, id, (current) => {
      const kept = keepsImmutable(schemas, current, coerced.value);
      return kept.ok ? userFacts(coerced.value, current.active !== false) : kept;
    });
  }

  async function patch(request: ScimRequest, id: string, body: JsonObject): Promise<Result<Answer>> {
    const operations = readPatch(body);
    if (!operations.ok) return operations;
    const { settings, userAgent } = request;
    const active = replacedActive(settings.schemas.User, operations.value);
    const activated = active === undefined ? undefined : await activate(request, id, active);
    if (activated) return activated;
    const dialect = dialectOf(settings, { userAgent, body });
    return change(request, id, (current) => {
      const patched = applyPatch(settings.schemas.User, { ...current, id }, operations.value, dialect);
      return patched.ok ? userFacts(patched.value, current.active !== false) : patched;
    });
  }

  /**
   * What a PATCH that replaces `active` comes to, in one statement where {@link change} takes two; undefined where only
   * that can tell. The leaver's and the returner's way.
   */
  async function activate(
    request: ScimRequest,
    id: string,
    active: boolean,
  ): Promise<Result<Answer> | undefined> {
    if (isConditional(request)) return undefined;
    const projection = projectionOf(request);
    if (!projection.ok) return projection;
    const { caller, settings, receivedAt } = request;
    const written = await store.activateUser(caller, schemaNames(settings), id, active, receivedAt);
    switch (written.outcome) {
      case 'other':
        return undefined;
      case 'same':
        return done(single('User', 200, written.row, request, projection.value));
      case 'ok': {
        // In the spelling of every other write's answer.
        const row = { ...written.row, doc: JSON.stringify(JSON.parse(written.row.doc)) };
        return done(withChanges(single('User', 200, row, request, projection.value), written.changes));
      }
      default:
        return refused(written.outcome, nameOf(id));
    }
  }

  async function remove(request: ScimRequest, id: string): Promise<Result<Answer>> {
    const version = await expectedVersion(request, nameOf(id), async () => {
      const found = await store.readUser(request.caller, id);
      return found.outcome === 'ok' ? done(found.row.version) : refused(found.outcome, nameOf(id));
    });
    if (!version.ok) return version;
    const written = await store.deleteUser(request.caller, id, version.value, request.receivedAt);
    return written.outcome === 'ok'
      ? done(withChanges({ status: 204 }, written.changes))
      : refused(written.outcome, nameOf(id));
  }

  /** Reads, decides and writes over the version that was read. */
  async function change(
    request: ScimRequest,
    id: string,
    decide: (current: JsonObject) => Result<UserFacts>,
  ): Promise<Result<Answer>> {
    const projection = projectionOf(request);
    if (!projection.ok) return projection;
    for (let attempt = 1; attempt <= ATTEMPTS; attempt += 1) {
      const found = await store.readUser(request.caller, id);
      if (found.outcome !== 'ok') return refused(found.outcome, nameOf(id));
      if (judge(request, found.row.version) !== 'go') return refused('stale', nameOf(id));
      const current = JSON.parse(found.row.doc) as JsonObject;
      const facts = decide(current);
      if (!facts.ok) return letIn(facts);
      if (isDeepStrictEqual(facts.value.doc, current)) {
        return done(single('User', 200, found.row, request, projection.value));
      }
      const written = await store.writeUser(
        request.caller,
        { ...facts.value, id, version: found.row.version },
        factsBefore(current),
        request.receivedAt,
      );
      if (written.outcome === 'ok') {
        const row: Stored = {
          ...found.row,
          doc: JSON.stringify(facts.value.doc),
          version: found.row.version + 1,
          updatedAt: written.at,
        };
        return done(withChanges(single('User', 200, row, request, projection.value), written.changes));
      }
      if (written.outcome !== 'stale') {
        return refused(written.outcome, nameOf(id), { taken: taken(facts.value) });
      }
    }
    return contended(nameOf(id));
  }

  return { create, read, replace, patch, remove };
}

const schemaNames = ({ schemas: { User } }: ScimRequest['settings']): string[] => [
  User.core.id,
  ...User.extensions.map((extension) => extension.id),
];
const nameOf = (id: string) => `The user ${id}`;
const taken = (facts: UserFacts) => `The userName ${quote(facts.userName)}`;
