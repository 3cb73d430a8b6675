/**
 * PATCHes that make a user active or inactive and do nothing else, in all the forms in which clients send that.
 * Promises: only what applyPatch would make of any user is answered; for every doubt, and every error, it is asked.
 */
import type { ResourceSchemas } from '../schema/schema.ts';
import { readOperation, readTarget } from './operation.ts';
import { coerceValue, isObject } from './value.ts';

/**
 * @param operations as sent
 * @returns what the operations replace `active` with; undefined for all that do anything else
 */
export function replacedActive(
  schemas: ResourceSchemas,
  operations: readonly unknown[],
): boolean | undefined {
  if (operations.length !== 1) return undefined;
  const operation = readOperation(operations[0]);
  if (!operation.ok || operation.value.op !== 'replace') return undefined;
  const { path, value } = operation.value;
  if (path !== undefined) return activeOf(schemas, path, value);
  if (!isObject(value)) return undefined;
  const [key, ...more] = Object.keys(value);
  return key === undefined || more.length > 0 ? undefined : activeOf(schemas, key, value[key]);
}

function activeOf(schemas: ResourceSchemas, path: string, value: unknown): boolean | undefined {
  const target = readTarget(schemas, path);
  if (!target.ok || target.value.kind !== 'attribute') return undefined;
  const { attribute, extension, sub } = target.value.ref;
  if (attribute.name !== 'active' || extension || sub) return undefined;
  const active = coerceValue(attribute, attribute.name, value, 'any');
  return active.ok && typeof active.value === 'boolean' ? active.value : undefined;
}
