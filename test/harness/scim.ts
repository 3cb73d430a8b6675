/** A SCIM server on a free port over a real test database, and a small client that speaks as one directory. */
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import express from 'express';
import { type DirectoryStore, openDirectoryStore } from '../../src/directory/directory.ts';
import {
  type Exchange,
  type ObservedRequest,
  type ScimLimits,
  type ScimLogEntry,
  scimRouter,
} from '../../src/scim/scim.ts';
import { openTestDatabase } from './database.ts';
import { createTestDirectory, createTestTenant, type TestDirectory, testCredentials } from './tenant.ts';

export interface ScimReply {
  status: number;
  headers: Headers;
  text: string;
  /** The JSON body; {} when there is none. */
  body: ScimBody;
}

/** What a test reads of a body. */
export interface ScimBody {
  id: string;
  meta: { created: string; lastModified: string; location: string; version: string; resourceType: string };
  detail: string;
  scimType?: string;
  totalResults: number;
  startIndex: number;
  itemsPerPage: number;
  Resources: ScimBody[];
  members?: { value: string; display?: string; type: string; $ref: string }[];
  groups?: { value: string; display?: string; type: string; $ref: string }[];
  [attribute: string]: unknown;
}

export interface ScimClient {
  directory: TestDirectory;
  base: string;
  /** `path` begins with a slash and is taken below the base; a string as body is sent as it is. */
  send(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<ScimReply>;
  get(path: string, headers?: Record<string, string>): Promise<ScimReply>;
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<ScimReply>;
  put(path: string, body: unknown, headers?: Record<string, string>): Promise<ScimReply>;
  patch(path: string, operations: unknown[], headers?: Record<string, string>): Promise<ScimReply>;
  delete(path: string, headers?: Record<string, string>): Promise<ScimReply>;
  /** Resources with this filter. */
  find(type: 'Users' | 'Groups', filter: string): Promise<ScimBody[]>;
}

export interface ScimHarness {
  database: Awaited<ReturnType<typeof openTestDatabase>>;
  store: DirectoryStore;
  url: string;
  observed: ObservedRequest[];
  logged: ScimLogEntry[];
  /** A directory of a tenant of its own, unless one is named. */
  directory(tenantId?: string): Promise<ScimClient>;
  client(directory: TestDirectory, token?: string): ScimClient;
  /** Rows that SCIM may write, of all tenants: two counts that differ mean that something was written. */
  counts(): Promise<Record<string, string>>;
  close(): Promise<void>;
}

export interface ScimHarnessOptions {
  trustProxy?: boolean;
  publicUrl?: string;
  limits?: Partial<ScimLimits>;
  /** Told of each request, as the request log is. */
  record?: (exchange: Exchange) => void;
  /** A store to stand in for the real one, which it gets. */
  store?: (real: DirectoryStore) => DirectoryStore;
}

export async function startScim(options: ScimHarnessOptions = {}): Promise<ScimHarness> {
  const database = await openTestDatabase();
  const real = openDirectoryStore(database.db.pool, () => {});
  const store = options.store?.(real) ?? real;
  const observed: ObservedRequest[] = [];
  const logged: ScimLogEntry[] = [];
  const app = express();
  app.use(
    '/scim/v2/:directory',
    scimRouter({
      store,
      credentials: testCredentials,
      trustProxy: options.trustProxy ?? false,
      ...(options.publicUrl === undefined ? {} : { publicUrl: options.publicUrl }),
      ...(options.limits === undefined ? {} : { limits: options.limits }),
      observe: (request) => observed.push(request),
      ...(options.record === undefined ? {} : { record: options.record }),
      log: (entry) => logged.push(entry),
    }),
  );
  const server = await new Promise<Server>((resolve) => {
    const listening = app.listen(0, '127.0.0.1', () => resolve(listening));
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  function client(directory: TestDirectory, token = directory.token): ScimClient {
    const base = `${url}/scim/v2/${directory.id}`;
    const send: ScimClient['send'] = async (method, path, body, headers = {}) => {
      const response = await fetch(base + path, {
        method,
        headers: {
          authorization: `Bearer ${token}`,
          ...(body === undefined ? {} : { 'content-type': 'application/scim+json' }),
          ...headers,
        },
        ...(body === undefined
          ? {}
          : { body: typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body) }),
      } as RequestInit);
      const text = await response.text();
      return {
        status: response.status,
        headers: response.headers,
        text,
        body: (text === '' ? {} : JSON.parse(text)) as ScimBody,
      };
    };
    return {
      directory,
      base,
      send,
      get: (path, headers) => send('GET', path, undefined, headers),
      post: (path, body, headers) => send('POST', path, body, headers),
      put: (path, body, headers) => send('PUT', path, body, headers),
      patch: (path, operations, headers) =>
        send('PATCH', path, { schemas: [patchOp], Operations: operations }, headers),
      delete: (path, headers) => send('DELETE', path, undefined, headers),
      async find(type, filter) {
        const reply = await send('GET', `/${type}?filter=${encodeURIComponent(filter)}`);
        if (reply.status !== 200) throw new Error(`${filter}: ${reply.text}`);
        return reply.body.Resources;
      },
    };
  }

  return {
    database,
    store,
    url,
    observed,
    logged,
    client,
    async directory(tenantId) {
      const tenant = tenantId ?? (await createTestTenant(database.db));
      return client(await createTestDirectory(database.db, tenant));
    },
    async counts() {
      const tables = ['mirror_user', 'mirror_email', 'mirror_group', 'mirror_group_member', 'change'];
      const { rows } = await database.db.system.query<Record<string, string>>(
        `select ${tables.map((t) => `(select count(*) from ${t}) as ${t}`).join(', ')},
           (select coalesce(sum(version), 0) from mirror_user) as user_versions,
           (select coalesce(sum(version), 0) from mirror_group) as group_versions`,
      );
      return rows[0] ?? {};
    },
    async close() {
      await new Promise((resolve) => {
        server.close(resolve);
        server.closeAllConnections();
      });
      await database.drop();
    },
  };
}

export const coreUser = 'urn:ietf:params:scim:schemas:core:2.0:User';
export const coreGroup = 'urn:ietf:params:scim:schemas:core:2.0:Group';
export const patchOp = 'urn:ietf:params:scim:api:messages:2.0:PatchOp';
export const enterprise = 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User';

/** A user as a client would send it. */
export function person(userName: string, more: Record<string, unknown> = {}): Record<string, unknown> {
  return { schemas: [coreUser], userName, active: true, ...more };
}

export function bulkOf(Operations: unknown, more: Record<string, unknown> = {}): Record<string, unknown> {
  return { schemas: ['urn:ietf:params:scim:api:messages:2.0:BulkRequest'], ...more, Operations };
}

/** One entry of a BulkResponse. */
export interface BulkResult {
  method?: string;
  bulkId?: string;
  version?: string;
  location?: string;
  status: string;
  response?: { schemas: string[]; status: string; scimType?: string; detail: string };
}

export function group(displayName: string, members: string[] = []): Record<string, unknown> {
  return { schemas: [coreGroup], displayName, members: members.map((value) => ({ value })) };
}
