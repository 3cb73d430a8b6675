/**
 * PATCH (RFC 7644 §3.5.2) over a resource in memory, in the dialects of Okta and Entra ID as well. Promises:
 * operations apply in order and all or none; the input is never changed, and nothing is thrown whatever it holds;
 * the result has canonical names, values of the schema's types and at most one primary value a list.
 *
 * Taken beyond the RFC, for clients send it: names, ops and keys in any case; dotted names, URNs and value paths as
 * keys of a pathless value; booleans as text; manager as bare text; "" and null for "clear". Unknown attributes
 * inside a pathless value are dropped, in a path they are invalidPath.
 *
 * Plain operations are the library's (library.ts); what it cannot be trusted with is done here and in values.ts.
 */
import { done, failed, type Result } from '../errors.ts';
import { isPresent } from '../filter/match.ts';
import {
  type AttributeRef,
  commonAttributes,
  findSub,
  isNeverKept,
  nameOf,
  type ResourceSchemas,
  type Schema,
} from '../schema/schema.ts';
import { schemasOf } from './coerce.ts';
import { removePlain, setPlain } from './library.ts';
import { type Operation, readOperation, readTarget, type Target } from './operation.ts';
import {
  type Complex,
  coerceOne,
  coerceValue,
  immutable,
  isObject,
  isUnassigned,
  wrongType,
} from './value.ts';
import {
  merge,
  removeChosen,
  removeEach,
  removeNamed,
  type Values,
  writeChosen,
  writeEach,
} from './values.ts';

export { replacedActive } from './active.ts';
export { coerce, keepsImmutable, missingRequired } from './coerce.ts';
export { groupProgram, type MemberProgram } from './group.ts';
export { type Operation, patchSchema, readPatch } from './operation.ts';
export { membersLimit, tooManyMembers, valuesLimit } from './value.ts';

export interface PatchOptions {
  /** Whether `replace` on a filtered path that matches nothing creates the value (Entra ID) or is `noTarget`. */
  replaceMissingCreates: boolean;
}

/** Operations of one PATCH on a resource; those on a group's members are not counted. */
export const operationsLimit = 1000;

type Outcome = Result<void>;
const fine: Outcome = done(undefined);

interface Work {
  schemas: ResourceSchemas;
  /** The copy that the operations change. */
  resource: Complex;
  options: PatchOptions;
}

/**
 * @param operations as sent
 * @returns a new resource, or an error of scimType invalidSyntax, invalidPath, invalidFilter, invalidValue, noTarget,
 *   mutability or tooMany
 */
export function applyPatch(
  schemas: ResourceSchemas,
  resource: Record<string, unknown>,
  operations: readonly unknown[],
  options: PatchOptions,
): Result<Record<string, unknown>> {
  if (operations.length > operationsLimit) {
    const sent = `The request has ${operations.length} operations`;
    return failed(
      400,
      'tooMany',
      `${sent}; at most ${operationsLimit} are taken. Send fewer in one request.`,
    );
  }
  const work: Work = { schemas, resource: structuredClone(resource), options };
  for (const raw of operations) {
    const operation = readOperation(raw);
    if (!operation.ok) return operation;
    const applied = applyOperation(work, operation.value);
    if (!applied.ok) return applied;
  }
  return done(withSchemas(schemas, resource, work.resource));
}

/** `schemas` follows the extensions: one that came is listed, one that went is not. */
function withSchemas(schemas: ResourceSchemas, before: Complex, after: Complex): Complex {
  const listed = Array.isArray(before.schemas) ? before.schemas.filter((urn) => typeof urn === 'string') : [];
  const gone = schemas.extensions.filter((e) => Object.hasOwn(before, e.id) && !Object.hasOwn(after, e.id));
  const still = listed.filter((urn) => !gone.some((e) => e.id === urn));
  return { ...after, schemas: schemasOf(schemas, after, still) };
}

function applyOperation(work: Work, operation: Operation): Outcome {
  const { op, path, value } = operation;
  if (path === undefined) return op === 'remove' ? fine : applyPathless(work, op, value);
  const target = readTarget(work.schemas, path);
  return target.ok ? applyTo(work, operation, target.value) : target;
}

/** Each key of the value is a path of its own. */
function applyPathless(
  work: Work,
  op: 'add' | 'replace',
  value: unknown,
  prefix = '',
  nested = false,
): Outcome {
  if (!isObject(value)) {
    const what = prefix === '' ? `The value of the ${op} operation without a path` : prefix.slice(0, -1);
    return wrongType(what, 'an object', value, true);
  }
  for (const key of Object.keys(value)) {
    const path = prefix + key;
    const target = readTarget(work.schemas, path);
    if (!target.ok) {
      if (target.error.scimType === 'invalidPath') continue;
      return target;
    }
    if (isEcho(work, target.value, value[key]) || (nested && target.value.kind === 'resource')) continue;
    const applied = applyTo(work, { op, path, value: value[key] }, target.value, true);
    if (!applied.ok) return applied;
  }
  return fine;
}

/**
 * What a client repeats of a resource without meaning a change: its own id (Okta's group rename), an empty list. A
 * resource that is given without its id cannot tell, and takes any for its own.
 */
function isEcho(work: Work, target: Target, value: unknown): boolean {
  if (target.kind !== 'attribute' || target.ref.attribute.mutability !== 'readOnly') return false;
  const { id } = work.resource;
  if (target.ref.attribute.name === 'id' && (id === undefined || value === id)) return true;
  return !isPresent(value);
}

function applyTo(work: Work, operation: Operation, target: Target, pathless = false): Outcome {
  const { op, value } = operation;
  switch (target.kind) {
    case 'resource':
      return op === 'remove'
        ? failed(
            400,
            'noTarget',
            'A remove operation needs a path that names what to remove, not the whole resource.',
          )
        : applyPathless(work, op, value, '', true);
    case 'extension':
      return applyToExtension(work, operation, target.extension, pathless);
    case 'attribute':
      if (isSchemas(target.ref)) return op === 'remove' ? readOnly('schemas') : fine;
      return guarded(work, target.ref, () => applyToAttribute(work, operation, target.ref));
    case 'values':
      return guarded(work, { ...target.ref, sub: target.sub }, () => applyToValues(work, operation, target));
  }
}

/** `schemas` follows from what the resource has. */
function isSchemas(ref: AttributeRef): boolean {
  return ref.attribute === commonAttributes[0];
}

function guarded(work: Work, ref: AttributeRef, apply: () => Outcome): Outcome {
  if (ref.attribute.mutability === 'readOnly' || ref.sub?.mutability === 'readOnly')
    return readOnly(nameOf(ref));
  const applied = apply();
  if (applied.ok) prune(work.resource, ref);
  return applied;
}

function applyToExtension(
  work: Work,
  { op, value }: Operation,
  extension: Schema,
  pathless: boolean,
): Outcome {
  if (op === 'remove' || isUnassigned(value)) {
    const required = extension.attributes.find((a) => a.required);
    const named = work.schemas.requiredExtensions?.includes(extension.id)
      ? extension.id
      : required && `${extension.id}:${required.name}`;
    if (named && Object.hasOwn(work.resource, extension.id)) return mandatory(op, named);
    delete work.resource[extension.id];
    return fine;
  }
  if (!isObject(value)) return wrongType(extension.id, 'an object', value, true);
  // Named by its path it is replaced as a whole; among other keys its own keys are meant.
  if (op === 'replace' && !pathless) delete work.resource[extension.id];
  return applyPathless(work, op, value, `${extension.id}:`);
}

function applyToValues(work: Work, operation: Operation, target: Target & { kind: 'values' }): Outcome {
  const { op, path = '', value } = operation;
  const { ref, filter, sub } = target;
  if (isNeverKept({ ...ref, sub }) && op !== 'remove') {
    const checked = coerceValue(sub ?? ref.attribute, nameOf({ ...ref, sub }), value, 'any');
    return checked.ok ? fine : checked;
  }
  const chosen = { attribute: ref.attribute, name: nameOf(ref), filter, sub, path };
  const values = valuesAt(work.resource, ref);
  return settle(
    work,
    ref,
    op === 'remove'
      ? removeChosen(values, chosen)
      : writeChosen(values, op, chosen, value, work.options.replaceMissingCreates),
  );
}

function applyToAttribute(work: Work, { op, value }: Operation, ref: AttributeRef): Outcome {
  const named = ref.sub ?? ref.attribute;
  const name = nameOf(ref);
  if (op === 'remove') {
    // null is how some clients write "no value"; an empty list names nothing.
    const names = value !== undefined && value !== null;
    if (ref.attribute.multiValued && !ref.sub && names) {
      return settle(work, ref, removeNamed(valuesAt(work.resource, ref), ref.attribute, name, value));
    }
    return clear(work, op, ref);
  }
  if (isNeverKept(ref)) {
    const checked = coerceValue(named, name, value, 'any');
    return checked.ok ? fine : checked;
  }
  if (named.type === 'complex' && !named.multiValued && isObject(value))
    return writeParts(work, op, ref, value);
  const coerced = coerceValue(named, name, value, 'any');
  if (!coerced.ok) return coerced;
  if (coerced.value === undefined) return op === 'add' && named.multiValued ? fine : clear(work, op, ref);
  if (isFixed(work.resource, ref, coerced.value)) return immutable(name);
  if (ref.sub && ref.attribute.multiValued) {
    const all = { ...ref, sub: null };
    return settle(work, all, writeEach(valuesAt(work.resource, all), nameOf(all), ref.sub, coerced.value));
  }
  if (named.multiValued && op === 'add' && Array.isArray(coerced.value)) {
    const merged = merge(valuesAt(work.resource, ref), ref.attribute, name, coerced.value);
    return merged.ok ? setPlain(work.resource, 'replace', ref, merged.value) : merged;
  }
  if (named.type === 'complex' && !named.multiValued && isObject(coerced.value)) {
    return writeParts(work, op, ref, coerced.value);
  }
  if (ref.sub?.name === 'value') forgetReference(work.resource, ref, coerced.value);
  return setPlain(work.resource, op, ref, coerced.value);
}

/** A set of sub-attributes is written one by one, so that null clears one of them. */
function writeParts(work: Work, op: 'add' | 'replace', ref: AttributeRef, value: Complex): Outcome {
  const checked = coerceOne(ref.attribute, nameOf(ref), value);
  if (!checked.ok) return checked;
  // `value` goes first: a new one makes what was said of the old one untrue.
  const keys = Object.keys(value);
  const first = keys.filter((key) => key.toLowerCase() === 'value');
  for (const key of [...first, ...keys.filter((k) => !first.includes(k))]) {
    const sub = findSub(ref.attribute, key);
    if (!sub || sub.mutability === 'readOnly') continue;
    const written = applyToAttribute(work, { op, value: value[key] }, { ...ref, sub });
    if (!written.ok) return written;
  }
  return fine;
}

function forgetReference(resource: Complex, ref: AttributeRef, value: unknown): void {
  const whole = valueAt(resource, { ...ref, sub: null });
  if (isObject(whole) && whole.value !== value) delete whole.$ref;
}

function clear(work: Work, op: Operation['op'], ref: AttributeRef): Outcome {
  const named = ref.sub ?? ref.attribute;
  const present = isPresent(valueAt(work.resource, ref));
  if (named.required) return mandatory(op, nameOf(ref));
  if (named.mutability === 'immutable' && present) return immutable(nameOf(ref));
  if (ref.sub?.name === 'value') forgetReference(work.resource, ref, undefined);
  if (ref.sub && ref.attribute.multiValued) {
    const all = { ...ref, sub: null };
    return settle(work, all, removeEach(valuesAt(work.resource, all), ref.sub));
  }
  return present ? removePlain(work.resource, ref) : fine;
}

/** Writes back what became of the values of a list. */
function settle(work: Work, ref: AttributeRef, values: Values): Outcome {
  if (!values.ok) return values;
  const whole = { ...ref, sub: null };
  if (values.value !== undefined) return setPlain(work.resource, 'replace', whole, values.value);
  if (ref.attribute.required) return mandatory('remove', nameOf(whole));
  return isPresent(valueAt(work.resource, whole)) ? removePlain(work.resource, whole) : fine;
}

/** What an operation left empty is unassigned. */
function prune(resource: Complex, ref: AttributeRef): void {
  const container = ref.extension ? resource[ref.extension.id] : resource;
  if (
    isObject(container) &&
    Object.hasOwn(container, ref.attribute.name) &&
    !isPresent(container[ref.attribute.name])
  ) {
    delete container[ref.attribute.name];
  }
  if (ref.extension && Object.hasOwn(resource, ref.extension.id) && !isPresent(container)) {
    delete resource[ref.extension.id];
  }
}

function valueAt(resource: Complex, ref: AttributeRef): unknown {
  const container = ref.extension ? resource[ref.extension.id] : resource;
  const value = isObject(container) ? container[ref.attribute.name] : undefined;
  if (!ref.sub) return value;
  return isObject(value) ? value[ref.sub.name] : undefined;
}

function valuesAt(resource: Complex, ref: AttributeRef): unknown[] {
  const value = valueAt(resource, { ...ref, sub: null });
  return Array.isArray(value) ? value : [];
}

function isFixed(resource: Complex, ref: AttributeRef, value: unknown): boolean {
  if ((ref.sub ?? ref.attribute).mutability !== 'immutable') return false;
  const present = valueAt(resource, ref);
  return isPresent(present) && JSON.stringify(present) !== JSON.stringify(value);
}

function readOnly(name: string): Outcome {
  return failed(
    400,
    'mutability',
    `${name} is set by the service and cannot be changed. Remove it from the mapping.`,
  );
}

function mandatory(op: Operation['op'], name: string): Outcome {
  return failed(
    400,
    op === 'remove' ? 'mutability' : 'invalidValue',
    `${name} is required and cannot be removed or emptied. Send another value instead.`,
  );
}
