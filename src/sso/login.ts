/**
 * The beginning of a sign-in: which connection, where to afterwards, and off to the identity provider. What is not there
 * answers like what is not to be seen: one page for an unknown tenant, and for one without a way to sign in.
 */
import type pg from 'pg';
import type { Database } from '../database/database.ts';
import { defaultSignInPolicy, SIGN_IN_POLICY, type SignInPolicy } from '../lifecycle/sign-in-policy.ts';
import { listProducts } from '../tenant/product.ts';
import { findTenant } from '../tenant/tenant.ts';
import { type AttemptMode, beginAttempt, browserCookie, browserOf, issueState } from './attempt.ts';
import { refuse } from './complete.ts';
import type { Connection } from './connection.ts';
import { type Door, parametersOf } from './exchange.ts';
import { choicePage, sendOn, sendPage } from './page.ts';
import { returnAddress } from './product.ts';
import type { Exchange, Protocol, Refusal, SsoOptions } from './room.ts';
import { BROWSER_CONNECTIONS } from './statements.ts';
import { openTest } from './test-link.ts';

/** What a product, or a person's bookmark, may ask for; each once. */
const PARAMETERS = {
  returnTo: 2_048,
  connection: 36,
  login_hint: 320,
  prompt: 100,
  state: 512,
  test: 500,
} as const;

type Asked = Partial<Record<keyof typeof PARAMETERS, string>>;

const PROMPT = /^(none|login|consent|select_account)( (login|consent|select_account))*$/;

/** Answers GET /sso/{tenant}/login. */
export function loginHandler(options: SsoOptions, door: Door, protocols: readonly Protocol[]) {
  const { db, credentials } = options;

  return async (exchange: Exchange): Promise<void> => {
    const params = await parametersOf(exchange);
    const asked = params && readAsked(params);
    if (!asked) return refuse(options, undefined, { reason: 'request_invalid' }, exchange);
    const tenant = await findTenant(db, String(exchange.req.params.tenant).toLowerCase());
    const ways = tenant ? await waysOf(db, tenant.id) : undefined;
    if (!tenant || !ways || ways.connections.length === 0) {
      return door.refuseSource(undefined, { reason: 'unknown_sign_in' }, exchange);
    }
    if (asked.test !== undefined) {
      const id = openTest(credentials, asked.test);
      const tested = ways.connections.find((c) => c.id === id);
      if (!tested) return door.refuseSource(undefined, { reason: 'test_expired' }, exchange);
      return begin(tested, 'test', asked, { productId: null, url: null }, exchange);
    }
    const back = returnAddress(await listProducts(db), asked.returnTo, asked.state);
    const chosen = choose(ways, asked.connection);
    if (chosen.outcome === 'refused') {
      if (chosen.connection) return refuse(options, chosen.connection, chosen, exchange);
      return door.refuseSource(undefined, chosen, exchange);
    }
    if (!back.ok) {
      const connection = chosen.outcome === 'one' ? chosen.connection : undefined;
      return refuse(options, connection, { reason: 'return_not_allowed' }, exchange);
    }
    if (chosen.outcome === 'one') return begin(chosen.connection, 'sign-in', asked, back, exchange);
    sendPage(
      exchange.res,
      choicePage(
        chosen.connections.map((c) => ({ name: c.name, href: hrefOf(exchange, tenant.slug, asked, c) })),
      ),
    );
  };

  async function begin(
    connection: Connection,
    mode: AttemptMode,
    asked: Asked,
    back: { productId: string | null; url: string | null },
    exchange: Exchange,
  ): Promise<void> {
    const protocol = protocols.find(({ kind }) => kind === connection.kind);
    if (!protocol) throw new Error(`nothing signs in at a connection of the kind ${connection.kind}`);
    const { req, res, baseUrl } = exchange;
    const state = issueState(credentials);
    const begun = await protocol.begin({
      connection,
      state: state.token,
      baseUrl,
      loginHint: asked.login_hint,
      prompt: asked.prompt,
    });
    if (!begun.ok) return refuse(options, connection, begun, exchange);
    const by = protocol.answerBy(connection);
    const browser = browserOf(req.headers.cookie, baseUrl, by);
    await beginAttempt(db, credentials, {
      tenantId: connection.tenantId,
      connectionId: connection.id,
      state,
      mode,
      browser,
      secrets: begun.secrets,
      productId: back.productId,
      returnTo: back.url,
    });
    res.set('set-cookie', browserCookie(browser, baseUrl, by));
    sendOn(res, begun);
  }
}

/** Undefined where a parameter is not what it can be. */
function readAsked(params: URLSearchParams): Asked | undefined {
  const asked: Asked = {};
  for (const name of Object.keys(PARAMETERS) as (keyof typeof PARAMETERS)[]) {
    const [value, ...more] = params.getAll(name);
    if (value === undefined || value === '') continue;
    if (more.length > 0 || value.length > PARAMETERS[name] || /\p{Cc}/u.test(value)) return undefined;
    asked[name] = value;
  }
  if (asked.prompt !== undefined && !PROMPT.test(asked.prompt)) return undefined;
  return asked;
}

interface Ways {
  connections: Connection[];
  policy: SignInPolicy;
}

async function waysOf(db: Database, tenantId: string): Promise<Ways> {
  return db.tenant(tenantId, async (client: pg.ClientBase) => {
    const connections = await client.query<Connection>(BROWSER_CONNECTIONS, [tenantId]);
    const policy = await client.query<{ policy: SignInPolicy | null }>(`select ${SIGN_IN_POLICY} as policy`, [
      tenantId,
    ]);
    return { connections: connections.rows, policy: policy.rows[0]?.policy ?? defaultSignInPolicy };
  });
}

type Chosen =
  | { outcome: 'one'; connection: Connection }
  | { outcome: 'several'; connections: Connection[] }
  | ({ outcome: 'refused'; connection?: Connection } & Refusal);

/** The named one, or the one that the policy asks for, or the only one. */
function choose({ connections, policy }: Ways, named: string | undefined): Chosen {
  const { requiredConnection } = policy;
  if (named !== undefined) {
    const connection = connections.find((c) => c.id === named.toLowerCase());
    if (!connection) return { outcome: 'refused', reason: 'unknown_sign_in' };
    if (requiredConnection !== null && requiredConnection !== connection.id) {
      return { outcome: 'refused', reason: 'connection_not_allowed', connection };
    }
    return open(connection);
  }
  if (requiredConnection !== null) {
    const connection = connections.find((c) => c.id === requiredConnection);
    return connection ? open(connection) : { outcome: 'refused', reason: 'connection_not_allowed' };
  }
  const alive = connections.filter((c) => c.pausedAt === null);
  const [first = connections[0], second] = alive;
  if (second) return { outcome: 'several', connections: alive };
  return first ? open(first) : { outcome: 'refused', reason: 'unknown_sign_in' };
}

function open(connection: Connection): Chosen {
  if (connection.pausedAt !== null) return { outcome: 'refused', reason: 'connection_paused', connection };
  return { outcome: 'one', connection };
}

function hrefOf({ baseUrl }: Exchange, slug: string, asked: Asked, connection: Connection): string {
  const url = new URL(`${baseUrl}/sso/${slug}/login`);
  for (const [name, value] of Object.entries({ ...asked, connection: connection.id })) {
    url.searchParams.set(name, value);
  }
  return url.href;
}
