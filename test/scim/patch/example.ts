/** A user to patch in the tests, and what became of it. */
import { expect } from 'vitest';
import { applyPatch } from '../../../src/scim/patch/patch.ts';
import { userSchemas } from '../../../src/scim/schema/schema.ts';

export const CORE = 'urn:ietf:params:scim:schemas:core:2.0:User';
export const ENTERPRISE = 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User';
export const ID = '0190b3a4-7f00-7000-8000-000000000001';

export type Resource = Record<string, unknown>;

export const bob = (more: Resource = {}): Resource => ({ schemas: [CORE], id: ID, userName: 'bob', ...more });

/** What became of the resource beside schemas, id and userName; the error when it was refused. */
export function patched(before: Resource, operations: unknown[], replaceMissingCreates = false): unknown {
  const frozen = JSON.stringify(before);
  const result = applyPatch(userSchemas, before, operations, { replaceMissingCreates });
  expect(JSON.stringify(before)).toBe(frozen);
  if (!result.ok) return result.error;
  const { schemas: _schemas, id: _id, userName, ...rest } = result.value;
  return userName === 'bob' ? rest : { userName, ...rest };
}

export const refused = (scimType: string, detail = ''): unknown =>
  expect.objectContaining({ status: 400, scimType, detail: expect.stringContaining(detail) });

export const work = { type: 'work', value: 'w@x' };
export const home = { type: 'home', value: 'h@x' };
