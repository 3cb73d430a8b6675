/**
 * The last act of the demo: people whom a directory has pushed sign in, one by one, through a real OpenID provider or by a
 * SAML response that is signed on the spot; then their directory deactivates them, and the time is taken until
 * introspection, which a product asks at each request, says no. Whoever is out cannot sign in again.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { openBrowser } from '../simulate/sign-in/browser.ts';
import { type SimulatedPerson, startOpenId } from '../simulate/sign-in/openid.ts';
import { startSaml } from '../simulate/sign-in/saml.ts';
import type { Outside } from './outside.ts';
import type { PushScene } from './scene.ts';

/** Where the product's backend would take the person in; nobody listens, for the browser only carries the code there. */
const PRODUCT = 'http://127.0.0.1:9/signed-in';
const PATIENCE_MS = 30_000;
const PEOPLE = 4;

export interface SignInSeen {
  tenant: string;
  source: string;
  words: string;
  /** From the first request of the browser to the session's tokens; from the push to introspection's no; undefined: failed. */
  seconds: number | undefined;
  what: 'sign-in' | 'cut' | 'refused';
}

export interface SignInSummary {
  people: number;
  signedIn: number;
  cut: number;
  refusedAfterwards: number;
  cutSeconds: { p50: number; max: number };
}

/** How people of a tenant sign in. */
interface Way {
  source: string;
  /** What the act of signing in needs beforehand, of the person who comes. */
  prepare(person: SimulatedPerson): void;
  stop(): Promise<void>;
}

export async function playSignIns(
  outside: Outside,
  scenes: readonly PushScene[],
  report: (seen: SignInSeen) => void,
  signal: AbortSignal,
): Promise<SignInSummary> {
  const seen: SignInSeen[] = [];
  const tell = (one: SignInSeen) => {
    seen.push(one);
    report(one);
  };
  await outside.registerProduct('Demo product', PRODUCT);
  let people = 0;
  for (const scene of scenes) {
    const chosen = scene.active().slice(0, PEOPLE);
    people += chosen.length;
    const way = await (scene.idp === 'okta' ? openIdWay : samlWay)(outside, scene, chosen);
    try {
      for (const { key, ...person } of chosen) {
        if (signal.aborted) break;
        way.prepare(person);
        await onePerson(outside, scene, way, key, person, tell);
      }
    } finally {
      await way.stop();
    }
  }
  const count = (what: SignInSeen['what']) =>
    seen.filter((s) => s.what === what && s.seconds !== undefined).length;
  const cuts = seen.flatMap((s) => (s.what === 'cut' ? (s.seconds ?? []) : [])).sort((a, b) => a - b);
  return {
    people,
    signedIn: count('sign-in'),
    cut: count('cut'),
    refusedAfterwards: count('refused'),
    cutSeconds: { p50: cuts[Math.floor(cuts.length / 2)] ?? 0, max: cuts.at(-1) ?? 0 },
  };
}

async function onePerson(
  outside: Outside,
  scene: PushScene,
  way: Way,
  key: string,
  person: SimulatedPerson,
  tell: (seen: SignInSeen) => void,
): Promise<void> {
  const { tenant } = scene;
  const name = person.displayName;
  const begun = performance.now();
  const since = () => (performance.now() - begun) / 1000;
  const code = await codeFor(outside, tenant, person);
  const session = code === undefined ? undefined : await outside.exchange(code);
  const before = session && (await outside.introspect(session.accessToken));
  const roles = before?.roles?.join(', ') || 'no role';
  tell({
    ...{ tenant, source: way.source, what: 'sign-in' },
    words: before?.active ? `${name} signs in: ${roles}` : `${name} could not sign in`,
    seconds: before?.active ? since() : undefined,
  });
  if (!session) return;

  const { sentAt } = await scene.deactivate(key);
  const denied = await untilDenied(outside, session.accessToken, sentAt);
  tell({
    ...{ tenant, source: scene.source, what: 'cut' },
    words: `${name} is deactivated: introspection says no`,
    seconds: denied,
  });
  const again = await codeFor(outside, tenant, person);
  tell({
    ...{ tenant, source: way.source, what: 'refused' },
    words: again === undefined ? `${name} tries again, and is refused` : `${name} came in again`,
    seconds: again === undefined ? 0 : undefined,
  });
}

/** What a browser carries to the product after a sign-in; undefined when the sign-in ended elsewhere. */
async function codeFor(
  outside: Outside,
  tenant: string,
  person: SimulatedPerson,
): Promise<string | undefined> {
  const query = new URLSearchParams({ returnTo: PRODUCT, login_hint: person.email });
  const arrived = await openBrowser().open(`${outside.baseUrl}/sso/${tenant}/login?${query}`, PRODUCT);
  return arrived.url.startsWith(PRODUCT)
    ? (new URL(arrived.url).searchParams.get('code') ?? undefined)
    : undefined;
}

/** Asks as fast as answers come. @returns seconds since `sentAt`, too high by up to one request */
async function untilDenied(outside: Outside, token: string, sentAt: number): Promise<number | undefined> {
  for (;;) {
    const { active } = await outside.introspect(token);
    const now = performance.timeOrigin + performance.now();
    if (!active) return (now - sentAt) / 1000;
    if (now - sentAt > PATIENCE_MS) return undefined;
    await sleep(2);
  }
}

async function openIdWay(
  outside: Outside,
  scene: PushScene,
  people: readonly SimulatedPerson[],
): Promise<Way> {
  const provider = await startOpenId(people);
  const { issuer, clientId, clientSecret } = provider;
  const { redirectUri } = await outside.connectSignIn(scene.tenant, 'OpenID Connect', 'oidc', {
    ...{ issuer, clientId, clientSecret },
  });
  provider.register(redirectUri);
  return { source: 'OpenID', prepare: () => {}, stop: provider.stop };
}

async function samlWay(outside: Outside, scene: PushScene): Promise<Way> {
  const provider = await startSaml();
  const { entityId, ssoUrl, certificate } = provider;
  await outside.connectSignIn(scene.tenant, 'SAML', 'saml', {
    ...{ entityId, ssoUrl, certificates: [certificate] },
  });
  return {
    source: 'SAML',
    prepare(person) {
      provider.atKeyboard = person;
    },
    stop: provider.stop,
  };
}
