/**
 * Groups: POST, and GET, PUT, PATCH, DELETE of one. Promises: what a PATCH of members or of the name costs follows
 * the members it names, never the size of the group; a member that does not exist refuses the whole request; a PATCH
 * is answered without a body unless the client names attributes, for a body would carry every member.
 */

import type { Changes, DirectoryStore, GroupProgram, GroupWritten, Stored } from '../directory/directory.ts';
import { newId } from '../id/id.ts';
import type { JsonObject } from './body.ts';
import { quote } from './body.ts';
import { dialectOf } from './dialect.ts';
import { contended, done, letIn, type Refusal, type Result, refused } from './errors.ts';
import { etag, judge } from './etag.ts';
import { elementMatcher } from './filter/filter.ts';
import { containsItself, type GroupFacts, groupFacts, groupNames, unknownMembers } from './group.ts';
import { groupProgram, type MemberProgram } from './patch/group.ts';
import { applyPatch, coerce, keepsImmutable, type Operation, readPatch } from './patch/patch.ts';
import { type Projection, wants } from './projection.ts';
import { locationOf, single } from './represent.ts';
import {
  type Answer,
  expectedVersion,
  type Handler,
  projectionOf,
  type ScimRequest,
  withChanges,
} from './request.ts';
import { type DirectorySchemas, findAttribute, groupSchemas } from './schema/schema.ts';

/** Ten lost races in a row mean a storm, and then the client waits. */
const ATTEMPTS = 10;

export function openGroups(
  store: DirectoryStore,
): Record<'create' | 'read' | 'replace' | 'patch' | 'remove', Handler> {
  async function create(request: ScimRequest, _id: string, body: JsonObject): Promise<Result<Answer>> {
    const projection = projectionOf(request);
    if (!projection.ok) return projection;
    const coerced = coerce(request.settings.schemas.Group, body);
    if (!coerced.ok) return coerced;
    const facts = groupFacts(coerced.value);
    if (!facts.ok) return facts;
    const { displayName, externalId, members, doc } = facts.value;
    const id = newId();
    const program: GroupProgram = { create: true, displayName, externalId, doc };
    if (members.length > 0) program.add = members;
    const written = await apply(request, id, null, program);
    if (!written.ok) return written;
    if (members.length > 0 && wants(projection.value, 'members')) {
      return show(request, id, 201, projection.value, written.value.changes);
    }
    const row: Stored = {
      id,
      doc: JSON.stringify({ ...doc, displayName, ...(externalId === null ? {} : { externalId }) }),
      version: written.value.version,
      createdAt: written.value.createdAt,
      updatedAt: written.value.updatedAt,
      related: null,
    };
    return done(withChanges(single('Group', 201, row, request, projection.value), written.value.changes));
  }

  async function read(request: ScimRequest, id: string): Promise<Result<Answer>> {
    const projection = projectionOf(request);
    if (!projection.ok) return projection;
    const found = await store.readGroup(request.caller, id, wants(projection.value, 'members'));
    if (found.outcome !== 'ok') return refused(found.outcome, nameOf(id));
    const verdict = judge(request, found.row.version);
    if (verdict === 'stale') return refused('stale', nameOf(id));
    return done(single('Group', verdict === 'same' ? 304 : 200, found.row, request, projection.value));
  }

  async function replace(request: ScimRequest, id: string, body: JsonObject): Promise<Result<Answer>> {
    const projection = projectionOf(request);
    if (!projection.ok) return projection;
    const schemas = request.settings.schemas.Group;
    const coerced = coerce(schemas, body);
    if (!coerced.ok) return coerced;
    const facts = groupFacts(coerced.value);
    if (!facts.ok) return facts;
    const { displayName, externalId, members, doc } = facts.value;
    const written = hasImmutable(schemas)
      ? await overDocument(request, id, { replace: members }, (current) => {
          const kept = keepsImmutable(schemas, current, coerced.value);
          return kept.ok ? facts : kept;
        })
      : await applyExpected(request, id, { displayName, externalId, doc, replace: members });
    return written.ok ? show(request, id, 200, projection.value, written.value.changes) : written;
  }

  async function patch(request: ScimRequest, id: string, body: JsonObject): Promise<Result<Answer>> {
    const projection = projectionOf(request);
    if (!projection.ok) return projection;
    const operations = readPatch(body);
    if (!operations.ok) return operations;
    const { settings, userAgent } = request;
    const schemas = settings.schemas.Group;
    const dialect = dialectOf(settings, { userAgent, body });
    const members = groupProgram(operations.value, schemas);
    if (!members.ok) return members;
    const program = await memberRows(request, id, members.value);
    if (!program.ok) return program;
    const names = namesOnly(members.value.rest, id);
    const written = names
      ? await patchRows(request, id, { ...program.value, ...names })
      : await overDocument(request, id, program.value, (current) => {
          const patched = applyPatch(schemas, { ...current, id }, members.value.rest, dialect);
          return patched.ok ? groupFacts(patched.value) : patched;
        });
    if (!written.ok) return written;
    const { changes } = written.value;
    if (projection.value) return show(request, id, 200, projection.value, changes);
    const headers = { Location: locationOf('Group', id, request.base), ETag: etag(written.value.version) };
    return done(withChanges({ status: 204, headers }, changes));
  }

  async function remove(request: ScimRequest, id: string): Promise<Result<Answer>> {
    const version = await expectedVersion(request, nameOf(id), () => versionOf(request, id));
    if (!version.ok) return version;
    const written = await store.deleteGroup(request.caller, id, version.value, request.receivedAt);
    return written.outcome === 'ok'
      ? done(withChanges({ status: 204 }, written.changes))
      : refused(written.outcome, nameOf(id));
  }

  /** What a write has left, which is never too well known to be shown. */
  async function show(
    request: ScimRequest,
    id: string,
    status: 200 | 201,
    projection: Projection | undefined,
    changes: Changes = NO_CHANGES,
  ): Promise<Result<Answer>> {
    const found = await store.readGroup(request.caller, id, wants(projection, 'members'));
    if (found.outcome !== 'ok') return refused(found.outcome, nameOf(id));
    const answer = single('Group', status, found.row, request, projection);
    return done(withChanges(answer, changes));
  }

  async function versionOf(request: ScimRequest, id: string): Promise<Result<number>> {
    const found = await store.readGroup(request.caller, id, false);
    return found.outcome === 'ok' ? done(found.row.version) : refused(found.outcome, nameOf(id));
  }

  async function apply(
    request: ScimRequest,
    id: string,
    version: number | null,
    program: GroupProgram,
  ): Promise<Result<Applied>> {
    const written = await store.applyGroup(request.caller, id, version, program, request.receivedAt);
    return written.outcome === 'ok' ? done(written) : refusedGroup(written, id, program);
  }

  /** The rows that a PATCH of members adds and removes. Only a filter other than `value eq` reads the members. */
  async function memberRows(
    request: ScimRequest,
    id: string,
    members: MemberProgram,
  ): Promise<Result<GroupProgram>> {
    const remove = [...members.remove];
    if (members.removeMatching.length > 0 && membersAttribute) {
      const found = await store.readGroup(request.caller, id, true);
      if (found.outcome !== 'ok') return refused(found.outcome, nameOf(id));
      const present = JSON.parse(found.row.related ?? '[]') as { value: string }[];
      for (const filter of members.removeMatching) {
        const matcher = elementMatcher(filter, membersAttribute);
        if (!matcher.ok) return letIn(matcher);
        for (const member of present) if (matcher.value(member)) remove.push(member.value);
      }
    }
    const program: GroupProgram = {};
    if (members.replace) program.replace = members.replace;
    if (members.add.length > 0) program.add = members.add;
    if (remove.length > 0) program.remove = remove;
    return done(program);
  }

  /** Members and names: nothing to read first. */
  async function patchRows(
    request: ScimRequest,
    id: string,
    program: GroupProgram,
  ): Promise<Result<Applied>> {
    const wrong = groupNames(program.displayName ?? 'unchanged', program.externalId ?? null);
    return wrong.ok ? applyExpected(request, id, program) : wrong;
  }

  /** Applies the program to the version that If-Match names. */
  async function applyExpected(
    request: ScimRequest,
    id: string,
    program: GroupProgram,
  ): Promise<Result<Applied>> {
    const version = await expectedVersion(request, nameOf(id), () => versionOf(request, id));
    return version.ok ? apply(request, id, version.value, program) : version;
  }

  /** What depends on the rest of the group: read without members, decided, and written over the version that was read. */
  async function overDocument(
    request: ScimRequest,
    id: string,
    rows: GroupProgram,
    decide: (current: JsonObject) => Result<GroupFacts>,
  ): Promise<Result<Applied>> {
    for (let attempt = 1; attempt <= ATTEMPTS; attempt += 1) {
      const found = await store.readGroup(request.caller, id, false);
      if (found.outcome !== 'ok') return refused(found.outcome, nameOf(id));
      if (judge(request, found.row.version) !== 'go') return refused('stale', nameOf(id));
      const current = JSON.parse(found.row.doc) as JsonObject;
      const facts = decide(current);
      if (!facts.ok) return letIn(facts);
      const { displayName, externalId, doc } = facts.value;
      const program: GroupProgram = { ...rows, displayName, externalId, doc };
      const written = await store.applyGroup(
        request.caller,
        id,
        found.row.version,
        program,
        request.receivedAt,
      );
      if (written.outcome === 'ok') return done(written);
      if (written.outcome !== 'stale') return refusedGroup(written, id, program);
    }
    return contended(nameOf(id));
  }

  return { create, read, replace, patch, remove };
}

const NO_CHANGES: Changes = { ids: [], count: 0 };

type Applied = Extract<GroupWritten, { outcome: 'ok' }>;

const nameOf = (id: string) => `The group ${id}`;
const membersAttribute = groupSchemas.core.attributes.find((a) => a.name === 'members');

/** Only what a tenant registered can be so: of the standard attributes only parts of members are. */
function hasImmutable(schemas: DirectorySchemas['Group']): boolean {
  return schemas.extensions.some((e) => e.attributes.some((a) => a.mutability === 'immutable'));
}

function refusedGroup(written: Exclude<GroupWritten, Applied>, id: string, program: GroupProgram): Refusal {
  if (written.outcome === 'unknown_members') return letIn(unknownMembers(written.unknown));
  if (written.outcome === 'contains_itself') return letIn(containsItself(id));
  const taken = `The group name ${quote(program.displayName ?? '')} (with the same externalId)`;
  return refused(written.outcome, nameOf(id), { taken });
}

/**
 * What the operations make of displayName and externalId when they touch nothing else; undefined when they do. Okta
 * renames by a pathless replace whose value also carries the group's own id.
 */
function namesOnly(
  operations: readonly Operation[],
  id: string,
): Pick<GroupProgram, 'displayName' | 'externalId'> | undefined {
  const names: Pick<GroupProgram, 'displayName' | 'externalId'> = {};
  for (const { op, path, value } of operations) {
    if (op === 'remove') return undefined;
    const given = path === undefined ? value : { [path]: value };
    if (typeof given !== 'object' || given === null || Array.isArray(given)) return undefined;
    for (const [key, entry] of Object.entries(given)) {
      const found = findAttribute(groupSchemas, key);
      const name = found?.sub === null ? found.attribute.name : undefined;
      if (path === undefined && (name === 'schemas' || (name === 'id' && entry === id))) continue;
      if (typeof entry !== 'string' || entry.trim() === '') return undefined;
      if (name === 'displayName') names.displayName = entry;
      else if (name === 'externalId') names.externalId = entry;
      else return undefined;
    }
  }
  return names;
}
