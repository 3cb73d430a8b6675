/** A tenant with a SAML connection, the real router over HTTP, a browser that keeps cookies, and what came of a sign-in. */

import { randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import express from 'express';
import pino from 'pino';
import type { Database } from '../../../src/database/database.ts';
import { openLifecycle } from '../../../src/lifecycle/lifecycle.ts';
import { openSessions } from '../../../src/session/session.ts';
import { type Connection, createConnection, findConnection } from '../../../src/sso/connection.ts';
import { samlKind } from '../../../src/sso/saml/saml-kind.ts';
import { ssoRouter } from '../../../src/sso/sso.ts';
import { createProduct } from '../../../src/tenant/product.ts';
import { createTestTenant, testCredentials } from '../../harness/tenant.ts';
import {
  type Answer,
  encode,
  makeKey,
  metadataOf,
  type ReceivedRequest,
  readRequest,
  respond,
  type TestKey,
} from './idp.ts';

export const ISSUER = 'https://idp.example/saml';
export const RETURN_TO = 'https://app.example/signed-in';

/** Made once a file: a key takes its time. */
export const idpKey = makeKey();
export const otherKey = makeKey();

export interface Browser {
  get(url: string): Promise<Reply>;
  post(url: string, fields: Record<string, string>): Promise<Reply>;
}

export interface Reply {
  status: number;
  location: string | null;
  text: string;
  headers: Headers;
  /** Of a refusal's page. */
  reason: string | undefined;
}

export async function startRig(db: Database) {
  const outcomes: Record<string, number> = {};
  let ended = 0;
  const lifecycle = openLifecycle(db, {
    observer: { applied() {}, parked() {}, ownerLost() {}, sessionsEnded() {} },
  });
  const observer = {
    signedIn: ({ outcome }: { outcome: string }) => {
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    },
    ended: (_because: string, sessions: number) => {
      ended += sessions;
    },
    introspected() {},
  };
  const sessions = openSessions({ db, credentials: testCredentials, issuer: 'http://localhost', observer });
  const problems: unknown[] = [];
  const log = pino({ level: 'warn' }, { write: (line: string) => problems.push(JSON.parse(line)) });
  await createProduct(db, { name: 'app', returnTo: [RETURN_TO], logoutUrl: null });
  const app = express();
  // Behind one address, every test would be one source of failures.
  app.use(
    '/sso',
    ssoRouter({ db, credentials: testCredentials, lifecycle, sessions, observer, log, trustProxy: true }),
  );
  const server = createServer(app);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  function openBrowser(): Browser {
    const cookies = new Map<string, string>();
    const source = `10.${randomBytes(3).join('.')}`;
    const send = async (to: string, init: RequestInit): Promise<Reply> => {
      const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ');
      const response = await fetch(to, {
        ...init,
        redirect: 'manual',
        headers: { ...(cookie ? { cookie } : {}), 'x-forwarded-for': source, ...init.headers },
      });
      for (const set of response.headers.getSetCookie()) {
        const [pair = ''] = set.split(';');
        cookies.set(pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1));
      }
      const text = await response.text();
      const reason = /<dt>Reason<\/dt><dd><code>([a-z_]+)<\/code>/.exec(text)?.[1];
      return {
        status: response.status,
        location: response.headers.get('location'),
        text,
        headers: response.headers,
        reason,
      };
    };
    return {
      get: (to) => send(to, {}),
      post: (to, fields) => send(to, { method: 'POST', body: new URLSearchParams(fields) }),
    };
  }

  async function createTenant(settings: Record<string, unknown> = {}, keys: readonly TestKey[] = [idpKey]) {
    const slug = `t-${randomBytes(4).toString('hex')}`;
    const tenantId = await createTestTenant(db, slug);
    const connection = await connect(tenantId, settings, keys);
    const acsUrl = `${url}/sso/saml/${connection.id}/acs`;
    const entityId = `${url}/sso/saml/${connection.id}/metadata`;
    const sloUrl = `${url}/sso/saml/${connection.id}/slo`;

    async function begin(browser: Browser, more: Record<string, string> = {}): Promise<ReceivedRequest> {
      const query = new URLSearchParams({ connection: connection.id, ...more });
      const reply = await browser.get(`${url}/sso/${slug}/login?${query}`);
      if (reply.location === null) throw new Error(`not begun: ${reply.status} ${reply.text}`);
      return readRequest(reply.location);
    }
    return {
      slug,
      tenantId,
      connection,
      acsUrl,
      entityId,
      sloUrl,
      begin,
      /** What the connection looks like now. */
      stored: async (): Promise<Connection> => {
        const found = await findConnection(db, tenantId, connection.id);
        if (!found) throw new Error('gone');
        return found;
      },
      /** A sign-in from its beginning to what the browser sees. @param change of the signed message */
      async signIn(answer: Answer = {}, change: (xml: string) => string = (xml) => xml): Promise<Reply> {
        const browser = openBrowser();
        const request = await begin(browser);
        const xml = change(respond(ISSUER, idpKey, request, answer));
        return browser.post(acsUrl, { SAMLResponse: encode(xml), RelayState: request.relayState });
      },
      async count(sql: string): Promise<number> {
        const { rows } = await db.tenant(tenantId, (client) =>
          client.query<{ n: string }>(`select count(*) as n from ${sql}`),
        );
        return Number(rows[0]?.n);
      },
      async query<Row extends object>(sql: string): Promise<Row[]> {
        return (await db.tenant(tenantId, (client) => client.query<Row>(sql))).rows;
      },
      /** What a refused sign-in must not have made. */
      async made(): Promise<Record<string, number>> {
        const [row] = await this.query<Record<string, string>>(
          `select (select count(*) from mirror_user) as users, (select count(*) from member) as members,
             (select count(*) from change) as changes, (select count(*) from session) as sessions,
             (select count(*) from sign_in_code) as codes, (select count(*) from role_grant) as grants`,
        );
        return Object.fromEntries(Object.entries(row ?? {}).map(([name, n]) => [name, Number(n)]));
      },
    };
  }

  async function connect(
    tenantId: string,
    settings: Record<string, unknown>,
    keys: readonly TestKey[],
  ): Promise<Connection> {
    const known = 'metadataUrl' in settings || 'metadataXml' in settings || 'entityId' in settings;
    const metadataXml = metadataOf({ entityId: ISSUER, ssoUrl: 'https://idp.example/sso', keys });
    const read = samlKind.parse(known ? settings : { metadataXml, ...settings });
    if (!read.ok) throw new Error(JSON.stringify(read.errors));
    const proved = await samlKind.prove(read);
    if (!proved.ok) throw new Error(proved.detail);
    const { issuer, config, secrets } = proved;
    return createConnection(
      db,
      testCredentials,
      tenantId,
      { kind: 'saml', name: 'SAML', issuer, settings: { config, secrets } },
      'test',
    );
  }

  return {
    url,
    outcomes,
    ended: () => ended,
    problems,
    lifecycle,
    sessions,
    openBrowser,
    createTenant,
    async stop() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

export type Rig = Awaited<ReturnType<typeof startRig>>;
export type RigTenant = Awaited<ReturnType<Rig['createTenant']>>;
