/**
 * Lockstep as the demo sees it: through /v1 with an operator key, like any customer's backend, and nothing else.
 */

export interface Member {
  id: string;
  email: string | null;
  displayName: string | null;
  status: 'active' | 'suspended' | 'removed';
  roles: string[];
  links: { user: string | null }[];
}

export interface Change {
  /** The touched directory user's SCIM id; null for a change that names groups. */
  user: string | null;
}

export interface RoleMapping {
  group: string;
  role: string;
}

export interface Connection {
  scimBaseUrl: string;
  token: string;
}

export interface Outside {
  baseUrl: string;
  createTenant(slug: string, name: string, mappings: readonly RoleMapping[]): Promise<void>;
  /** A directory of kind `scim` and a token for it. */
  connect(tenant: string, name: string, idp: 'okta' | 'entra'): Promise<Connection>;
  /** A directory that is pulled; its first pull begins at once. @returns its id */
  connectPulled(
    tenant: string,
    name: string,
    kind: 'okta' | 'entra',
    config: Record<string, string | undefined>,
  ): Promise<string>;
  /** Asks for an incremental pull, as a hint would. */
  pull(tenant: string, directory: string): Promise<void>;
  members(tenant: string): Promise<Member[]>;
  changes(tenant: string, state: 'pending' | 'parked'): Promise<Change[]>;
  mismatches(tenant: string): Promise<{ kind: string; detail: string }[]>;
  registerProduct(name: string, returnTo: string): Promise<void>;
  /** How a tenant's people sign in; a sign-in gives no role of its own here. @returns what the provider is to be told */
  connectSignIn(
    tenant: string,
    name: string,
    kind: 'oidc' | 'saml',
    config: Record<string, unknown>,
  ): Promise<{ redirectUri: string }>;
  exchange(code: string): Promise<{ accessToken: string }>;
  introspect(token: string): Promise<{ active: boolean; roles?: string[] }>;
}

interface Page<T> {
  items: T[];
  nextCursor: string | null;
}

export function openOutside(baseUrl: string, operatorKey: string): Outside {
  async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
    const response = await fetch(`${baseUrl}/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${operatorKey}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} /v1${path}: ${response.status} ${text.slice(0, 500)}`);
    return JSON.parse(text || '{}') as T;
  }

  async function all<T>(path: string): Promise<T[]> {
    const items: T[] = [];
    for (let cursor: string | null = ''; cursor !== null; ) {
      const at: string = cursor === '' ? '' : `&cursor=${encodeURIComponent(cursor)}`;
      const page: Page<T> = await call('GET', `${path}${path.includes('?') ? '&' : '?'}limit=200${at}`);
      items.push(...page.items);
      cursor = page.nextCursor;
    }
    return items;
  }

  return {
    async createTenant(slug, name, mappings) {
      await call('POST', '/tenants', { slug, name });
      await call('PUT', `/tenants/${slug}/role-mappings`, mappings);
    },
    async connect(tenant, name, idp) {
      const directory = await call<{ id: string; scimBaseUrl: string }>(
        'POST',
        `/tenants/${tenant}/directories`,
        {
          kind: 'scim',
          name,
          idp,
        },
      );
      const { token } = await call<{ token: string }>(
        'POST',
        `/tenants/${tenant}/directories/${directory.id}/tokens`,
        {},
      );
      return { scimBaseUrl: directory.scimBaseUrl, token };
    },
    async connectPulled(tenant, name, kind, config) {
      const path = `/tenants/${tenant}/directories`;
      return (await call<{ id: string }>('POST', path, { kind, name, config })).id;
    },
    async pull(tenant, directory) {
      await call('POST', `/tenants/${tenant}/directories/${directory}/pulls`, { mode: 'incremental' });
    },
    members: (tenant) => all(`/tenants/${tenant}/members`),
    changes: (tenant, state) => all(`/tenants/${tenant}/changes?state=${state}`),
    mismatches: (tenant) => all(`/tenants/${tenant}/mismatches`),
    baseUrl,
    async registerProduct(name, returnTo) {
      await call('POST', '/products', { name, returnTo: [returnTo] });
    },
    async connectSignIn(tenant, name, kind, config) {
      const path = `/tenants/${tenant}/sign-in-policy`;
      await call('PUT', path, { ...(await call<object>('GET', path)), defaultRole: null });
      return call('POST', `/tenants/${tenant}/connections`, { kind, name, config });
    },
    exchange: (code) => call('POST', '/sessions/exchange', { code }),
    introspect: (token) => call('POST', '/sessions/introspect', { token }),
  };
}
