/** Values that fit what /Schemas says of an attribute, each another one: of its type, among its canonicalValues. */
import type { ScimBody } from '../../harness/scim.ts';

export interface Definition {
  name: string;
  type: string;
  multiValued: boolean;
  required: boolean;
  mutability: string;
  returned: string;
  caseExact: boolean;
  uniqueness: string;
  description: string;
  canonicalValues?: string[];
  referenceTypes?: string[];
  subAttributes?: Definition[];
}

export interface ResourceType {
  id: string;
  endpoint: string;
  schema: string;
  schemaExtensions: { schema: string; required: boolean }[];
}

let serial = 0;
/** @param somebody a user who is there, for a member to be */
export function plausible(definition: Definition, somebody: ScimBody, parent?: string): unknown {
  const one = oneOf(definition, somebody, parent);
  return definition.multiValued ? [one] : one;
}

function oneOf({ name, type, ...more }: Definition, somebody: ScimBody, parent?: string): unknown {
  serial += 1;
  if (more.canonicalValues && name !== 'value')
    return more.canonicalValues[serial % more.canonicalValues.length];
  if (type === 'complex') return plausibleParts(more.subAttributes ?? [], somebody, name);
  if (type === 'boolean') return serial % 2 === 0;
  if (type === 'integer') return serial;
  if (type === 'decimal') return serial + 0.5;
  if (type === 'dateTime') return new Date(1.7e12 + serial).toISOString();
  if (type === 'binary') return Buffer.from(`value ${serial}`).toString('base64');
  if (type === 'reference') return `https://example.com/${serial}`;
  if (parent === 'emails' && name === 'value') return `mail${serial}@example.com`;
  return `${name} ${serial}`;
}

export function plausibleParts(
  parts: readonly Definition[],
  somebody: ScimBody,
  parent: string,
): Record<string, unknown> {
  const value: Record<string, unknown> = {};
  for (const part of parts) if (isWritable(part)) value[part.name] = oneOf(part, somebody, parent);
  if (parent === 'members') {
    return { value: somebody.id, $ref: somebody.meta.location, type: 'User' };
  }
  return value;
}

export const isWritable = ({ mutability }: Definition) =>
  mutability === 'readWrite' || mutability === 'immutable';
export const isShown = ({ returned }: Definition) => returned !== 'never';
