/**
 * What a key of /v1 may do. A scope reads `noun:verb`; `noun:write` includes `noun:read`. The operator's keys hold
 * `*`. Nobody can make or end a key that may do more than their own.
 */

/** The scopes a narrower key can be given, each with what it opens. */
export const scopes = {
  'tenants:read': 'read tenants',
  'tenants:write': 'create and delete tenants',
  'directories:read': 'read directories',
  'directories:write': 'create, change and delete directories',
  'tokens:read': 'list directory tokens (never the tokens themselves)',
  'tokens:write': 'issue and revoke directory tokens',
  'pulls:read': 'read pulls and the removals that the guard holds',
  'pulls:write': 'ask for pulls, make hint secrets',
  'holds:write': 'approve and reject held removals, release a quarantine',
  'reconciliations:read': 'read reconciliations and their plans',
  'reconciliations:write': 'reconcile directories, approve plans',
  'requests:read': 'read the request log of directories, with what was sent and answered',
  'role-mappings:read': 'read and plan role mappings',
  'role-mappings:write': 'replace role mappings',
  'attribute-mappings:read': "read what fills members' profiles",
  'attribute-mappings:write': "plan and replace what fills members' profiles",
  'members:read': 'read members with their roles and timeline',
  'members:write': 'give and take roles by hand',
  'owners:write': 'give and take the reserved role "owner" (beside members:write)',
  'domains:read': 'read domains and hosts',
  'domains:write': 'add, prove and remove domains and hosts',
  'sign-in-policy:read': 'read who may sign in and what that gives',
  'sign-in-policy:write': 'replace who may sign in and what that gives',
  'claim-mappings:read': 'read which claims give which roles',
  'claim-mappings:write': 'plan and replace which claims give which roles',
  'connections:read': 'read sign-in connections (never their secrets)',
  'connections:write': 'create, test, change and delete sign-in connections',
  'products:read': 'read products',
  'products:write': 'register, change and delete products',
  'changes:read': 'read the change log',
  'changes:write': 'replay parked changes',
  'mismatches:read': 'read mismatches',
  'events:read': 'read events',
  'keys:read': 'list keys (never the keys themselves)',
  'keys:write': 'make and end keys',
  'sign-ins:write': 'post sign-ins that the product verified itself',
  'sessions:introspect': 'introspect sessions',
  'sessions:read': 'list the sessions of members',
  'sessions:write': 'exchange sign-in codes, switch and end sessions',
  'signing-keys:read': 'list what signs access tokens (never the keys themselves)',
  'signing-keys:write': 'rotate what signs access tokens',
} as const;

export type Scope = keyof typeof scopes;

export const scopeNames = Object.keys(scopes) as [Scope, ...Scope[]];

/** Held by an operator's key only; stands for every scope. */
export const EVERYTHING = '*';

/** Who is asking: a key that was found genuine and alive. */
export interface Principal {
  keyId: string;
  /** The one tenant that the key is bound to; null for a key of the whole deployment. */
  tenantId: string | null;
  scopes: readonly string[];
}

/** True when the holder of `held` may do what `wanted` names. */
export function covers(held: readonly string[], wanted: string): boolean {
  if (held.includes(EVERYTHING) || held.includes(wanted)) return true;
  return wanted.endsWith(':read') && held.includes(wanted.replace(/:read$/, ':write'));
}

/** An operator's key: not bound to a tenant and with every scope. */
export function isOperator(principal: Principal): boolean {
  return principal.tenantId === null && principal.scopes.includes(EVERYTHING);
}

/** The name under which the audit trail keeps what a key did. */
export function actorOf(principal: Principal): string {
  return `${isOperator(principal) ? 'operator' : 'key'}:${principal.keyId}`;
}
