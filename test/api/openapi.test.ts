import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { apiRouter, apiRoutes } from '../../src/api/api.ts';
import { scopeNames } from '../../src/tenant/scope.ts';
import { type Document, inline, openApiChecker } from './checker.ts';
import { startApi, type TestApi } from './server.ts';

let api: TestApi;
let document: Document;
beforeAll(async () => {
  api = await startApi();
  document = (await (await fetch(`${api.url}/v1/openapi.json`)).json()) as Document;
});
afterAll(() => api.close());

interface Layer {
  route?: { path: string; stack: { method?: string }[] };
}

test('every mounted route is in the document and every described one is mounted', () => {
  const router = apiRouter({
    db: api.db,
    lifecycle: api.lifecycle,
    queue: { wake: () => {} },
    log: { error: () => {} },
    trustProxy: false,
  } as unknown as Parameters<typeof apiRouter>[0]);
  const mounted = (router.stack as unknown as Layer[])
    .flatMap(({ route }) =>
      (route?.stack ?? []).map((s) => `${s.method} ${route?.path.replace(/:(\w+)/g, '{$1}')}`),
    )
    // The answer to every other method of a path: 405.
    .filter((r) => !r.startsWith('undefined '));
  const described = Object.entries(document.paths).flatMap(([path, item]) =>
    Object.keys(item).map((method) => `${method} ${path}`),
  );
  expect(mounted.length).toBeGreaterThan(20);
  expect(mounted.sort()).toEqual(described.sort());
});

test('the document is OpenAPI 3.1, needs no key, names each operation once and each scope that it asks for', () => {
  expect(document.openapi).toMatch(/^3\.1\./);
  const operations = Object.values(document.paths).flatMap(
    (item) => Object.values(item) as unknown as { operationId: string; security: { key: string[] }[] }[],
  );
  const ids = operations.map((o) => o.operationId);
  expect(new Set(ids).size).toBe(ids.length);
  const asked = operations.flatMap((o) => o.security.flatMap((s) => s.key));
  for (const scope of asked) expect(scopeNames).toContain(scope);
  expect(operations.filter((o) => o.security.length === 0).map((o) => o.operationId)).toEqual([
    'refreshSession',
    'revokeSession',
    'getOpenApi',
  ]);
});

test('every schema of the document is one that a validator can read, and none is empty', () => {
  let schemas = 0;
  const visit = (node: unknown): void => {
    if (node === null || typeof node !== 'object') return;
    for (const [name, value] of Object.entries(node)) {
      if (name === 'schema') {
        schemas += 1;
        expect(Object.keys(value as object), JSON.stringify(node)).not.toEqual([]);
        expect(() => z.fromJSONSchema(inline(value, document) as never)).not.toThrow();
      } else visit(value);
    }
  };
  visit(document.paths);
  expect(schemas).toBeGreaterThan(40);
});

test('an answer that the document does not describe is found by the checker', () => {
  const check = openApiChecker(document);
  const tenant = {
    id: '00000000-0000-7000-8000-000000000000',
    slug: 'a',
    name: 'A',
    createdAt: new Date().toISOString(),
  };
  const answer = (body: unknown) => () =>
    check('GET', '/tenants/a', 200, 'application/json', JSON.stringify(body));
  expect(answer(tenant)).not.toThrow();
  expect(answer({ ...tenant, secret: 1 })).toThrow();
  expect(answer({ ...tenant, createdAt: 'today' })).toThrow();
  expect(() => check('GET', '/tenants/a', 202, 'application/json', '{}')).toThrow();
  expect(() => check('PUT', '/tenants/a', 200, 'application/json', JSON.stringify(tenant))).toThrow();
});

test('no two routes answer the same path and method', () => {
  const names = apiRoutes({} as never).map((r) => `${r.method} ${r.path}`);
  expect(new Set(names).size).toBe(names.length);
});
