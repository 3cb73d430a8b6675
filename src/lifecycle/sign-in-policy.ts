/**
 * How a tenant's people may sign in, and what a sign-in gives: the policy, its defaults, and the roles that claims come
 * to. Pure, no I/O.
 */
import type { UserDocument } from './profile.ts';

/** Of one tenant; read on each sign-in and on each refresh. */
export interface SignInPolicy {
  /** jit: whoever the identity provider vouches for becomes a member; directory: only whom a directory has. */
  membership: 'jit' | 'directory';
  /** Given to everybody who signs in; null gives none. */
  defaultRole: string | null;
  /** Roles that no sign-in gives, whatever the claims say. */
  neverRoles: readonly string[];
  /** E-mail domains of those who may sign in, lower case; null: any. */
  allowedDomains: readonly string[] | null;
  /** The one connection by which one may sign in; null: any. */
  requiredConnection: string | null;
  /** How long a session lasts at most, and how long without a refresh. */
  sessionSeconds: number;
  idleSeconds: number;
  /** Whether a session of another tenant may be exchanged for one here. */
  switching: boolean;
}

export const defaultSignInPolicy: SignInPolicy = {
  membership: 'jit',
  defaultRole: 'member',
  neverRoles: [],
  allowedDomains: null,
  requiredConnection: null,
  sessionSeconds: 12 * 3_600,
  idleSeconds: 2 * 3_600,
  switching: false,
};

/** $1 tenant: its row of `sign_in_policy` as {@link SignInPolicy}; null without one. */
export const SIGN_IN_POLICY = `
  (select json_build_object('membership', s.membership, 'defaultRole', s.default_role, 'neverRoles', s.never_roles,
     'allowedDomains', s.allowed_domains, 'requiredConnection', s.required_connection,
     'sessionSeconds', s.session_seconds, 'idleSeconds', s.idle_seconds, 'switching', s.switching)
   from sign_in_policy s where s.tenant_id = $1)`;

export interface ClaimMapping {
  id: string;
  /** Null: of every connection. */
  connectionId: string | null;
  /** The claim's name; `a.b` is the part b of the claim a where no claim has that whole name. */
  claim: string;
  /** What the claim, or one of its values, must be; text as it stands. */
  value: string;
  role: string;
}

/** What converge knows of sign-ins: the policy, the mappings, and each connection's own default role. */
export interface SignInRules {
  policy: SignInPolicy;
  claims: readonly ClaimMapping[];
  connections: ReadonlyMap<string, { defaultRole: string | null }>;
}

export const noSignInRules: SignInRules = {
  policy: defaultSignInPolicy,
  claims: [],
  connections: new Map(),
};

export interface SignInRole {
  role: string;
  /** Null for the default role. */
  mappingId: string | null;
  because: string;
}

/** Roles that somebody's last sign-in at a connection gives. `owner` is an operator's alone. */
export function rolesOfSignIn(rules: SignInRules, connectionId: string, claims: UserDocument): SignInRole[] {
  const roles: SignInRole[] = [];
  const defaultRole = rules.connections.get(connectionId)?.defaultRole ?? rules.policy.defaultRole;
  if (defaultRole !== null)
    roles.push({ role: defaultRole, mappingId: null, because: 'the default role of sign-ins' });
  for (const mapping of rules.claims) {
    if (mapping.connectionId !== null && mapping.connectionId !== connectionId) continue;
    if (valuesOf(claims, mapping.claim).includes(mapping.value)) {
      roles.push({
        role: mapping.role,
        mappingId: mapping.id,
        because: `claim ${mapping.claim} = "${mapping.value}"`,
      });
    }
  }
  return roles.filter(({ role }) => role !== 'owner' && !rules.policy.neverRoles.includes(role));
}

/** The first names of the claims that mappings read. */
export function claimNames(rules: Pick<SignInRules, 'claims'>): string[] {
  return rules.claims.flatMap(({ claim }) => [claim, claim.split('.')[0] ?? claim]);
}

function valuesOf(claims: UserDocument, name: string): string[] {
  let found: unknown = Object.hasOwn(claims, name) ? claims[name] : claims;
  if (found === claims) {
    for (const part of name.split('.')) {
      found =
        typeof found === 'object' && found !== null && Object.hasOwn(found, part)
          ? (found as Record<string, unknown>)[part]
          : undefined;
    }
  }
  const values = Array.isArray(found) ? found : [found];
  return values.flatMap((v) => (['string', 'number', 'boolean'].includes(typeof v) ? [String(v)] : []));
}
