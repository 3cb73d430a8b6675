/**
 * What gives roles in one tenant beside its directory's groups' members, and who has signed in: role mappings, claim
 * mappings, the claims of each person's last sign-in, and the sessions that came of it. Kept as the product was told and
 * acknowledged, and read by the checks; shares no code with the product.
 */
import type { RoleMapping } from '../src/demo/outside.ts';
import type { Random } from '../src/simulate/push/push.ts';
import { openBrowser } from '../src/simulate/sign-in/browser.ts';
import { type OpenIdProvider, startOpenId } from '../src/simulate/sign-in/openid.ts';
import type { Backend } from './backend.ts';

export interface Somebody {
  /** The source's own id. */
  key: string;
  email: string;
  displayName: string;
}

export interface Session {
  key: string;
  /** Before the first request of the sign-in left, milliseconds since 1970. */
  at: number;
  accessToken: string;
  refreshToken: string;
}

export interface Rules {
  readonly roleMappings: readonly RoleMapping[];
  readonly sessions: readonly Session[];
  /** Acknowledged replacements by a set that differs, which the audit trail must have. */
  readonly replaced: { roleMappings: number; claimMappings: number };
  /** Whether it cannot be known which of two sign-ins' claims hold: one was refused after an answer had been lost. */
  uncertain(key: string): boolean;
  /** Of the groups of these names, and of sign-ins, of an active person. */
  rolesOf(key: string, groupNames: readonly string[]): string[];
  /** @param names of the groups that there are */
  changeRoleMappings(names: readonly string[]): Promise<void>;
  changeClaimMappings(): Promise<void>;
  /** @returns the refusal's type, or undefined when the person is in */
  signIn(person: Somebody, way: 'posted' | 'openid'): Promise<string | undefined>;
  stop(): Promise<void>;
}

export interface RulesOptions {
  backend: Backend;
  tenant: string;
  idp: 'okta' | 'entra';
  random: Random;
  initial: readonly RoleMapping[];
  /** Whether people may come by a simulated OpenID provider. */
  openId: boolean;
  /** `directory`: only whom the directory has may sign in. */
  membership: 'jit' | 'directory';
}

/** Where the product would take the person in; nobody listens. */
const PRODUCT = 'http://127.0.0.1:9/signed-in';
const ROLES = ['admin', 'developer', 'billing', 'viewer', 'agent', 'editor', 'analyst'];
const CLAIMED = ['staff', 'on-call', 'auditor'];
const CLAIM_VALUES = ['All', 'Pager', 'Books', 'Nothing'];
const MOST_MAPPINGS = 14;

interface ClaimMapping {
  claim: string;
  value: string;
  role: string;
}

export async function openRules(options: RulesOptions): Promise<Rules> {
  const { backend, tenant, idp, random } = options;
  let roleMappings = [...options.initial];
  let claimMappings: ClaimMapping[] = [{ claim: 'groups', value: 'All', role: 'staff' }];
  const replaced = { roleMappings: 0, claimMappings: 0 };
  /** Way and person → groups of the last sign-in. */
  const claims = new Map<string, string[]>();
  const uncertain = new Set<string>();
  const sessions: Session[] = [];
  const at = `/tenants/${tenant}`;
  let openId: OpenIdProvider | undefined;

  await backend.call('PUT', `${at}/role-mappings`, roleMappings);
  await backend.call('PUT', `${at}/claim-mappings`, claimMappings);
  replaced.roleMappings += 1;
  replaced.claimMappings += 1;
  const policy = await backend.call<object>('GET', `${at}/sign-in-policy`);
  await backend.call('PUT', `${at}/sign-in-policy`, {
    ...policy,
    defaultRole: null,
    membership: options.membership,
  });
  if (options.openId) {
    openId = await startOpenId([]);
    const { issuer, clientId, clientSecret } = openId;
    const { redirectUri } = await backend.call<{ redirectUri: string }>('POST', `${at}/connections`, {
      ...{ kind: 'oidc', name: 'OpenID', config: { issuer, clientId, clientSecret } },
    });
    openId.register(redirectUri);
  }

  /** One replacement at a time: of two at once nobody could tell which came last. */
  let replacing = Promise.resolve();
  const alone = (work: () => Promise<void>) => {
    const mine = replacing.then(work);
    replacing = mine.catch(() => {});
    return mine;
  };

  async function posted(person: Somebody, groups: string[]): Promise<string | undefined> {
    const at = Date.now();
    const { status, body, tries } = await backend.ask<Partial<Session> & { type?: string; detail?: string }>(
      'POST',
      `/tenants/${tenant}/sign-ins`,
      {
        subject: idp === 'okta' ? person.key : `sub-${person.key}`,
        email: person.email,
        displayName: person.displayName,
        claims: { groups, ...(idp === 'entra' ? { oid: person.key } : {}) },
      },
    );
    if (status !== 201) {
      if (tries > 1) uncertain.add(person.key);
      return body.type ?? `${status}`;
    }
    claims.set(`posted ${person.key}`, groups);
    const { accessToken = '', refreshToken = '' } = body;
    sessions.push({ key: person.key, at, accessToken, refreshToken });
    return undefined;
  }

  /** Again from the start after whatever went wrong on the way, as a person does. */
  async function byBrowser(
    provider: OpenIdProvider,
    person: Somebody,
    groups: string[],
  ): Promise<string | undefined> {
    const { key, email, displayName } = person;
    provider.people.set(email, { subject: key, email, displayName, claims: { groups } });
    const query = new URLSearchParams({ returnTo: PRODUCT, login_hint: email });
    for (let tries = 1; ; tries += 1) {
      const at = Date.now();
      const arrived = await openBrowser()
        .open(`${backend.baseUrl}/sso/${tenant}/login?${query}`, PRODUCT)
        .catch(() => undefined);
      const code = arrived?.url.startsWith(PRODUCT)
        ? new URL(arrived.url).searchParams.get('code')
        : undefined;
      if (code) {
        const { status, body } = await backend.ask<Partial<Session>>('POST', '/sessions/exchange', { code });
        if (status === 200) {
          claims.set(`openid ${key}`, groups);
          const { accessToken = '', refreshToken = '' } = body;
          sessions.push({ key, at, accessToken, refreshToken });
          return undefined;
        }
      } else if (arrived?.status === 403)
        return `refused: ${/<p[^>]*>([^<]{1,200})/.exec(arrived.body)?.[1]}`;
      if (tries === 20)
        return `no sign-in after ${tries} tries: ${arrived?.status} ${arrived?.url.slice(0, 120)}`;
      await new Promise((resolve) => setTimeout(resolve, Math.min(1_000, 100 * tries)));
    }
  }

  return {
    get roleMappings() {
      return roleMappings;
    },
    sessions,
    replaced,
    uncertain: (key) => uncertain.has(key),
    rolesOf(key, groupNames) {
      const names = new Set(groupNames.map((name) => name.toLowerCase()));
      const said = ['posted', 'openid'].flatMap((way) => claims.get(`${way} ${key}`) ?? []);
      return [
        ...new Set([
          ...roleMappings.filter((m) => names.has(m.group.toLowerCase())).map((m) => m.role),
          ...claimMappings.filter((m) => said.includes(m.value)).map((m) => m.role),
        ]),
      ].sort();
    },
    changeRoleMappings: (names) =>
      alone(async () => {
        const next = [...roleMappings];
        const group = random.pick(names);
        const role = random.pick(ROLES);
        const drop = next.length >= MOST_MAPPINGS || random.next() < 0.45;
        if (drop || group === undefined || role === undefined) next.splice(random.below(next.length), 1);
        else if (!next.some((m) => m.group.toLowerCase() === group.toLowerCase() && m.role === role)) {
          next.push({ group, role });
        }
        await backend.call('PUT', `${at}/role-mappings`, next);
        if (JSON.stringify(next) !== JSON.stringify(roleMappings)) replaced.roleMappings += 1;
        roleMappings = next;
      }),
    changeClaimMappings: () =>
      alone(async () => {
        const next = CLAIMED.flatMap((role, n): ClaimMapping[] =>
          random.next() < 0.6 ? [{ claim: 'groups', value: CLAIM_VALUES[n] ?? '', role }] : [],
        );
        await backend.call('PUT', `${at}/claim-mappings`, next);
        if (JSON.stringify(next) !== JSON.stringify(claimMappings)) replaced.claimMappings += 1;
        claimMappings = next;
      }),
    signIn(person, way) {
      const groups = random.sample(CLAIM_VALUES, random.below(3));
      return way === 'openid' && openId ? byBrowser(openId, person, groups) : posted(person, groups);
    },
    stop: async () => openId?.stop(),
  };
}

/** Once, before any tenant that has an OpenID provider. */
export async function registerProduct(backend: Backend): Promise<void> {
  await backend.call('POST', '/products', { name: 'Soak product', returnTo: [PRODUCT] });
}
