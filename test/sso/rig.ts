/** /sso and /v1 over real HTTP with the real lifecycle and sessions, and what a test asks about what they wrote. */
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import express from 'express';
import type pg from 'pg';
import { expect } from 'vitest';
import { apiRouter } from '../../src/api/api.ts';
import { Connection } from '../../src/database/connection.ts';
import { openLifecycle } from '../../src/lifecycle/lifecycle.ts';
import { openSessions } from '../../src/session/session.ts';
import { ssoRouter } from '../../src/sso/sso.ts';
import { issueOperatorKey } from '../../src/tenant/key.ts';
import { openTestDatabase } from '../harness/database.ts';
import { testCredentials } from '../harness/tenant.ts';

export const RETURN_TO = 'https://app.example/signed-in';

export async function startSso(more: { publicUrl?: string } = {}) {
  const database = await openTestDatabase();
  const { db } = database;
  // One connection that is awaited when it ends: a pool leaves its own to the drop of the database.
  const owner = new Connection(database.superUrl);
  await owner.connect();
  const signIns: { method: string; outcome: string }[] = [];
  const endings: { because: string; sessions: number }[] = [];
  const logged: unknown[] = [];
  const woken: string[] = [];
  const lifecycle = openLifecycle(db, {
    observer: { applied() {}, parked() {}, ownerLost() {}, sessionsEnded() {} },
    retryMs: [],
  });
  const observer = {
    signedIn: (signIn: { method: string; outcome: string }) => void signIns.push(signIn),
    ended: (because: string, sessions: number) => void endings.push({ because, sessions }),
    introspected() {},
  };
  const sessions = openSessions({
    db,
    credentials: testCredentials,
    issuer: 'https://lockstep.example',
    observer,
  });
  const face = { trustProxy: false, ...more };
  const log = {
    error: (entry: unknown) => void logged.push(entry),
    warn: (entry: unknown) => void logged.push(entry),
  };
  const app = express();
  app.use(
    '/sso',
    ssoRouter({ db, credentials: testCredentials, lifecycle, sessions, observer, log, ...face }),
  );
  app.use(
    '/v1',
    apiRouter({
      db,
      credentials: testCredentials,
      lifecycle,
      sessions,
      queue: { wake: (tenantId) => void woken.push(tenantId) },
      log,
      ...face,
      // Not used by these tests.
      resolver: {} as never,
      connectors: {} as never,
      reconciler: {} as never,
      pullQueue: {} as never,
    }),
  );
  // As the product's own (src/process/http.ts).
  const server = createServer({ maxHeaderSize: 64 * 1024 }, app);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const key = await issueOperatorKey(db, testCredentials);
  await db.pool.query('insert into product (id, name, return_to) values ($1, $2, $3)', [
    randomUUID(),
    'app',
    [RETURN_TO],
  ]);

  async function api(method: string, path: string, body?: unknown) {
    const response = await fetch(`${url}/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    return {
      status: response.status,
      text,
      body: (text === '' ? {} : JSON.parse(text)) as Record<string, never>,
    };
  }

  return {
    database,
    db,
    lifecycle,
    sessions,
    url,
    key,
    api,
    signIns,
    endings,
    logged,
    woken,
    /** A connection through /v1. */
    async connect(tenant: string, config: Record<string, unknown>, rest: Record<string, unknown> = {}) {
      const made = await api('POST', `/tenants/${tenant}/connections`, {
        kind: 'oidc',
        name: 'IdP',
        config,
        ...rest,
      });
      expect(made.status, made.text).toBe(201);
      return made.body as unknown as {
        id: string;
        redirectUri: string;
        backchannelLogoutUri: string;
        loginUrl: string;
      };
    },
    /** Every row of every table, as text. */
    async dump(): Promise<Record<string, string[]>> {
      const tables = await owner.query<{ name: string }>(
        `select quote_ident(table_name) as name from information_schema.tables
         where table_schema = 'public' and table_type = 'BASE TABLE' order by 1`,
      );
      const rows: Record<string, string[]> = {};
      for (const { name } of tables.rows) {
        const found = await owner.query<{ row: string }>(`select t::text as row from ${name} t order by 1`);
        rows[name] = found.rows.map((r) => r.row);
      }
      return rows;
    },
    /** Reasons of refusals in a tenant's audit trail, in order. */
    async refusals(tenantId: string): Promise<string[]> {
      const { rows } = await owner.query<{ reason: string }>(
        `select detail ->> 'reason' as reason from audit_entry
         where tenant_id = $1 and action in ('sign_in.refused', 'idp_logout.refused') order by id`,
        [tenantId],
      );
      return rows.map((r) => r.reason);
    },
    async query<Row extends pg.QueryResultRow>(text: string, values: unknown[] = []): Promise<Row[]> {
      return (await owner.query<Row>(text, values)).rows;
    },
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      await owner.end();
      await database.drop();
    },
  };
}

export type Sso = Awaited<ReturnType<typeof startSso>>;
