/** /v1 over real HTTP, a real database and the real lifecycle. Every answer is checked against the OpenAPI document. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import express from 'express';
import { expect } from 'vitest';
import { apiRouter } from '../../src/api/api.ts';
import type { Lifecycle } from '../../src/lifecycle/lifecycle.ts';
import { openLifecycle } from '../../src/lifecycle/lifecycle.ts';
import { openReconciler } from '../../src/reconcile/reconcile.ts';
import { jwksRouter } from '../../src/session/jwks.ts';
import { openKeys } from '../../src/session/keys.ts';
import { openSessions } from '../../src/session/session.ts';
import { openResolver } from '../../src/tenant/domain.ts';
import { issueKey, issueOperatorKey } from '../../src/tenant/key.ts';
import { openTestDatabase } from '../harness/database.ts';
import { startDns } from '../harness/dns.ts';
import { testCredentials } from '../harness/tenant.ts';
import { testConnectors } from '../pull/rig.ts';
import { openApiChecker } from './checker.ts';

/** What a test reads of a JSON answer. */
export interface Body {
  id: string;
  hash: string;
  token: string;
  key: string;
  detail: string;
  requestId: string;
  nextCursor: string | null;
  nextAfter: number;
  counts: Record<string, number>;
  items: Record<string, unknown>[];
  errors: { path: string; message: string }[];
  [name: string]: unknown;
}

export interface Reply {
  status: number;
  headers: Headers;
  text: string;
  body: Body;
}

export type Client = (
  method: string,
  path: string,
  body?: unknown,
  headers?: Record<string, string>,
) => Promise<Reply>;

export async function startApi(options: { publicUrl?: string; trustProxy?: boolean } = {}) {
  const database = await openTestDatabase();
  const { db } = database;
  const lifecycle: Lifecycle = openLifecycle(db, {
    observer: { applied: () => {}, parked: () => {}, ownerLost: () => {}, sessionsEnded: () => {} },
    retryMs: [],
  });
  const reconciler = openReconciler({
    db,
    onWritten: () => {},
    onError: (_at, error) => logged.push(error),
    graceMs: 0,
  });
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const keys = openKeys({ system: db.system, credentials: testCredentials, leadSeconds: 0 });
  const sessions = openSessions({ db, credentials: testCredentials, issuer: url, keys });
  const dns = await startDns();
  const woken: string[] = [];
  const pulled: string[] = [];
  const logged: unknown[] = [];
  const app = express();
  app.use(
    '/v1',
    apiRouter({
      db,
      credentials: testCredentials,
      lifecycle,
      sessions,
      queue: { wake: (tenantId) => woken.push(tenantId) },
      resolver: openResolver([dns.address]),
      reconciler,
      connectors: testConnectors,
      pullQueue: { wake: (directoryId) => pulled.push(directoryId) },
      trustProxy: options.trustProxy ?? false,
      publicUrl: options.publicUrl,
      log: { error: (entry: unknown) => logged.push(entry) },
    }),
  );
  app.use(jwksRouter({ keys, onError: (_what, error) => logged.push(error) }));
  server.on('request', app);
  const check = openApiChecker((await (await fetch(`${url}/v1/openapi.json`)).json()) as never);

  /** A client that speaks with one key; a string as body is sent as it is. */
  const as =
    (key: string): Client =>
    async (method, path, body, headers = {}) => {
      const response = await fetch(`${url}/v1${path}`, {
        method,
        headers: {
          ...(key === '' ? {} : { authorization: `Bearer ${key}` }),
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
          ...headers,
        },
        ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
      });
      const text = await response.text();
      check(method, path, response.status, response.headers.get('content-type') ?? '', text);
      expect(response.status, text).not.toBe(500);
      return {
        status: response.status,
        headers: response.headers,
        text,
        body: (text === '' ? {} : JSON.parse(text)) as Body,
      };
    };

  return {
    database,
    db,
    lifecycle,
    sessions,
    reconciler,
    url,
    woken,
    /** Where domains are proved. */
    dns,
    /** Directories that were woken to be pulled. */
    pulled,
    logged,
    as,
    operator: as(await issueOperatorKey(db, testCredentials)),
    /** A client with a narrower key. */
    async bound(tenantId: string | null, scopes: string[]): Promise<Client> {
      const made = await issueKey(db, testCredentials, { tenantId, scopes, expiresAt: null }, 'test');
      return as(made.key);
    },
    /** Rows of every table that /v1 may write: two counts that differ mean that something was written. */
    async written(): Promise<Record<string, string>> {
      const tables = [
        'tenant',
        'directory',
        'directory_token',
        'api_key',
        'role_mapping',
        'attribute_mapping',
        'role_grant',
        'change',
        'audit_entry',
        'event',
        'connection',
        'session',
        'refresh_token',
        'sign_in_code',
        'signing_key',
      ];
      const { rows } = await db.system.query<Record<string, string>>(
        `select ${tables.map((t) => `(select count(*) from ${t}) as ${t}`).join(', ')}`,
      );
      return rows[0] ?? {};
    },
    async close() {
      await new Promise((resolve) => server.close(resolve));
      await database.drop();
    },
  };
}

export type TestApi = Awaited<ReturnType<typeof startApi>>;
