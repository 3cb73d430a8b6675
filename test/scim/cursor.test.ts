/** Paging by cursor (RFC 9865): what it promises to a client that crawls, and to one that tampers. */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openCursors } from '../../src/scim/cursor.ts';
import {
  enterprise,
  group,
  person,
  type ScimClient,
  type ScimHarness,
  type ScimReply,
  startScim,
} from '../harness/scim.ts';
import { createTestDirectory, createTestTenant, testCredentials } from '../harness/tenant.ts';

const seed = Number(process.env.LOCKSTEP_TEST_SEED ?? Math.trunc(Math.random() * 2 ** 31));
const numRuns = Number(process.env.LOCKSTEP_TEST_RUNS ?? 30);
const searchRequest = 'urn:ietf:params:scim:api:messages:2.0:SearchRequest';

let scim: ScimHarness;
let client: ScimClient;
let sibling: ScimClient;

beforeAll(async () => {
  scim = await startScim({ limits: { pageDefault: 5, pageMax: 8, cursorSeconds: 600 } });
  const tenant = await createTestTenant(scim.database.db);
  client = await scim.directory(tenant);
  sibling = scim.client(await createTestDirectory(scim.database.db, tenant, 'second'));
  for (const one of [client, sibling]) {
    for (let i = 0; i < 12; i += 1) {
      await one.post('/Users', person(`u${String(i).padStart(2, '0')}@example.com`, { title: `t${i % 3}` }));
    }
    for (const name of ['A', 'B', 'C']) await one.post('/Groups', group(name));
  }
});
afterAll(() => scim.close());

type Ask = (cursor: string) => Promise<ScimReply>;

const byGet =
  (who: ScimClient, path: string, query = ''): Ask =>
  (cursor) =>
    who.get(`${path}?${query}${query && '&'}cursor=${cursor}`);

const next = (reply: ScimReply) => reply.body.nextCursor as string | undefined;
const ids = (reply: ScimReply) => reply.body.Resources.map((r) => r.id);

/** All pages; `between` is awaited after each but the last. */
async function crawl(
  ask: Ask,
  between: (page: ScimReply) => Promise<void> = async () => {},
): Promise<ScimReply[]> {
  const pages: ScimReply[] = [];
  for (let cursor: string | undefined = ''; cursor !== undefined; ) {
    const page: ScimReply = await ask(cursor);
    expect(page.status, page.text).toBe(200);
    pages.push(page);
    if (pages.length > 200) throw new Error('the crawl does not end');
    cursor = next(page);
    if (cursor !== undefined) await between(page);
  }
  return pages;
}

describe('pages', () => {
  test.each([
    ['?cursor', [5, 5, 2]],
    ['?cursor=', [5, 5, 2]],
    ['?cursor=&count=4', [4, 4, 4]],
    ['?cursor=&count=100', [8, 4]],
    ['?cursor=&startIndex=1', [5, 5, 2]],
    [`?cursor=&filter=${encodeURIComponent('title eq "t1"')}`, [4]],
    [`?cursor=&count=3&filter=${encodeURIComponent('title eq "t1"')}`, [3, 1]],
    [`?cursor=&filter=${encodeURIComponent('title eq "none"')}`, [0]],
  ])('%s', async (query, sizes) => {
    const pages = await crawl((cursor) =>
      client.get(`/Users${cursor === '' ? query : query.replace(/cursor=?/, `cursor=${cursor}`)}`),
    );
    expect(pages.map((p) => p.body.itemsPerPage)).toEqual(sizes);
    const total = sizes.reduce((a, b) => a + b);
    for (const page of pages) {
      expect(page.body.totalResults).toBe(total);
      expect(page.body.Resources).toHaveLength(page.body.itemsPerPage);
      expect(page.body).not.toHaveProperty('startIndex');
      expect(next(page) ?? 'end').toMatch(/^[A-Za-z0-9._~-]+$/);
    }
    expect(new Set(pages.flatMap(ids)).size).toBe(total);
  });

  test('without a cursor parameter a list is paged by index', async () => {
    const reply = await client.get('/Users?count=2');
    expect(reply.body.startIndex).toBe(1);
    expect(reply.body).not.toHaveProperty('nextCursor');
  });

  test('.search and the root answer what GET answers, over users and groups', async () => {
    const post =
      (path: string, more: object): Ask =>
      (cursor) =>
        client.post(path, { schemas: [searchRequest], cursor, ...more });
    const sorted = { sortBy: 'userName', sortOrder: 'descending', attributes: ['userName'] };
    const searched = await crawl(post('/Users/.search', sorted));
    const got = await crawl(
      byGet(client, '/Users', 'sortBy=userName&sortOrder=descending&attributes=userName'),
    );
    expect(searched.map((p) => p.body.Resources)).toEqual(got.map((p) => p.body.Resources));
    expect(searched.flatMap(ids)).toHaveLength(12);
    for (const pages of [
      await crawl(post('/.search', { count: 4 })),
      await crawl(byGet(client, '/', 'count=4')),
    ]) {
      expect(pages.map((p) => p.body.itemsPerPage)).toEqual([4, 4, 4, 3]);
      expect(pages.map((p) => p.body.totalResults)).toEqual([15, 15, 15, 15]);
      expect(pages.flatMap((p) => p.body.Resources.map((r) => r.meta.resourceType))).toEqual([
        ...Array.from({ length: 12 }, () => 'User'),
        ...Array.from({ length: 3 }, () => 'Group'),
      ]);
    }
  });

  test('other attributes and another count may be asked for on the way', async () => {
    const first = await client.get('/Users?cursor=&count=2&attributes=userName');
    const second = await client.get(`/Users?cursor=${next(first)}&count=8&excludedAttributes=title`);
    expect(second.body.itemsPerPage).toBe(8);
    expect(new Set([...ids(first), ...ids(second)]).size).toBe(10);
    // RFC 9865 §2 itself spells a filter in two ways.
    const filter = (name: string) => `filter=${encodeURIComponent(`${name} sw "u"`)}`;
    const begun = await client.get(`/Users?cursor&${filter('userName')}`);
    expect((await client.get(`/Users?cursor=${next(begun)}&${filter('username')}`)).status).toBe(200);
  });

  test('ServiceProviderConfig says how lists are paged', async () => {
    expect((await client.get('/ServiceProviderConfig')).body.pagination).toEqual({
      cursor: true,
      index: true,
      defaultPaginationMethod: 'index',
      defaultPageSize: 5,
      maxPageSize: 8,
      cursorTimeout: 600,
    });
  });
});

describe('refusals', () => {
  const refused = (reply: ScimReply, scimType: string) => {
    expect(reply.status, reply.text).toBe(400);
    expect(reply.body.scimType, reply.text).toBe(scimType);
  };

  test.each(['0', '-1', '1.5', 'ten'])('count=%s is invalidCount with a cursor', async (count) => {
    refused(await client.get(`/Users?cursor=&count=${count}`), 'invalidCount');
  });

  test('what is no number, and no text, in a search', async () => {
    refused(await client.post('/Users/.search', { cursor: '', count: '3' }), 'invalidCount');
    refused(await client.post('/Users/.search', { cursor: 3 }), 'invalidValue');
    expect((await client.post('/Users/.search', { cursor: null })).body.startIndex).toBe(1);
  });

  test('two ways of paging at once, and two cursors', async () => {
    refused(await client.get('/Users?cursor=&startIndex=2'), 'invalidValue');
    refused(await client.get('/Users?cursor=&cursor='), 'invalidValue');
  });

  test('a cursor holds for its query only', async () => {
    const filter = encodeURIComponent('userName sw "u"');
    const given = next(await client.get(`/Users?cursor=&filter=${filter}&sortBy=userName`));
    expect((await client.get(`/Users?cursor=${given}&filter=${filter}&sortBy=userName`)).status).toBe(200);
    for (const query of [
      `sortBy=userName`,
      `sortBy=userName&filter=${encodeURIComponent('userName sw "u0"')}`,
      `sortBy=userName&filter=${encodeURIComponent('title sw "u"')}`,
      `filter=${filter}`,
      `filter=${filter}&sortBy=title`,
      `filter=${filter}&sortBy=userName&sortOrder=descending`,
    ]) {
      refused(await client.get(`/Users?cursor=${given}&${query}`), 'invalidCursor');
    }
    const anywhere = next(await client.get('/Users?cursor='));
    for (const path of ['/Groups', '/']) {
      refused(await client.get(`${path}?cursor=${anywhere}`), 'invalidCursor');
    }
  });

  test('a cursor holds in its directory only', async () => {
    const given = next(await sibling.get('/Users?cursor='));
    expect((await sibling.get(`/Users?cursor=${given}`)).status).toBe(200);
    refused(await client.get(`/Users?cursor=${given}`), 'invalidCursor');
    const foreign = await scim.directory();
    refused(await foreign.get(`/Users?cursor=${given}`), 'invalidCursor');
  });

  test('whoever may not enter learns nothing about a cursor', async () => {
    const given = next(await client.get('/Users?cursor='));
    const stranger = scim.client(client.directory, sibling.directory.token);
    for (const cursor of [given, 'nonsense']) {
      expect((await stranger.get(`/Users?cursor=${cursor}`)).status).toBe(401);
    }
  });

  test('a cursor expires', async () => {
    const past = await startScim({ limits: { pageDefault: 1, cursorSeconds: -1 } });
    const one = await past.directory();
    for (const name of ['a', 'b']) await one.post('/Users', person(name));
    const late = await one.get(`/Users?cursor=${next(await one.get('/Users?cursor='))}`);
    refused(late, 'expiredCursor');
    await past.close();
    const cursors = openCursors(testCredentials, 600);
    const place = { type: 'User', position: { key: null, id: 'x' }, total: 2 } as const;
    const given = cursors.write('d', 'q', place, new Date(0));
    expect(cursors.read('d', 'q', given, new Date(599_000))).toEqual({ ok: true, value: place });
    expect(cursors.read('d', 'q', given, new Date(600_000))).toMatchObject({
      ok: false,
      error: { scimType: 'expiredCursor', detail: expect.stringContaining('600 seconds') },
    });
  });

  test(`a cursor that was tampered with is refused and nothing else (seed ${seed})`, async () => {
    const given = next(await client.get('/Users?cursor=&sortBy=title')) ?? '';
    const bytes = Buffer.from(given, 'base64url');
    const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~';
    const flipped = fc.tuple(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 })).map(([at, by]) => {
      const copy = Buffer.from(bytes);
      copy[at] = (copy[at] ?? 0) ^ by;
      return copy.toString('base64url');
    });
    const character = fc.nat(0x10ffff).map((code) => String.fromCodePoint(code).toWellFormed());
    const tampered = fc.oneof(
      flipped,
      fc.nat(given.length - 2).map((length) => given.slice(0, length + 1)),
      fc.string({ unit: fc.constantFrom(...letters), minLength: 1, maxLength: 300 }),
      // Not fast-check's unit 'binary', which computes for seconds while idle connections are closed.
      fc.array(character, { minLength: 1, maxLength: 50 }).map((all) => encodeURIComponent(all.join(''))),
    );
    const logged = scim.logged.length;
    await fc.assert(
      fc.asyncProperty(tampered, async (cursor) => {
        const reply = await client.get(`/Users?cursor=${cursor}&sortBy=title`);
        expect(reply.status, reply.text).toBe(400);
        expect(['invalidCursor', 'invalidValue']).toContain(reply.body.scimType);
        expect(reply.body).not.toHaveProperty('Resources');
      }),
      { seed, numRuns: 4 * numRuns },
    );
    expect(scim.logged).toHaveLength(logged);
  });
});

describe('a crawl while others create and delete', () => {
  const text = fc.constantFrom('a', 'B', 'b', 'c', 'é', 'É', undefined, undefined);
  const someone = fc.record({
    externalId: text,
    displayName: text,
    title: text,
    emails: fc.constantFrom(
      undefined,
      [],
      [{ value: 'x@y.z' }],
      [{ value: 'a@y.z' }, { value: 'B', primary: true }],
    ),
    [enterprise]: fc.record({ department: text }),
  });
  const sortable = {
    Users: ['userName', 'externalId', 'displayName', 'title', 'emails', `${enterprise}:department`, 'active'],
    Groups: ['displayName', 'externalId'],
    '': ['displayName', 'userName', 'externalId'],
  };
  const step = fc.record({
    create: fc.array(someone, { maxLength: 3 }),
    /** Indexes into what lives, the page before first. */
    remove: fc.array(fc.nat({ max: 30 }), { maxLength: 3 }),
  });
  const program = fc.constantFrom('Users' as const, 'Groups' as const, '' as const).chain((at) =>
    fc.record({
      at: fc.constant(at),
      people: fc.array(someone, { minLength: 6, maxLength: 14 }),
      sortBy: fc.constantFrom(undefined, 'id', 'meta.created', 'meta.lastModified', ...sortable[at]),
      sortOrder: fc.constantFrom(undefined, 'ascending', 'descending'),
      filter: fc.constantFrom(undefined, undefined, 'id pr', 'not (externalId eq "c")', 'displayName co "b"'),
      count: fc.integer({ min: 1, max: 4 }),
      steps: fc.array(step, { minLength: 1, maxLength: 6 }),
    }),
  );

  test(`nobody who lives throughout is lost or shown twice (seed ${seed})`, async () => {
    let made = 0;
    let crossed = 0;
    await fc.assert(
      fc.asyncProperty(program, async ({ at, people, sortBy, sortOrder, filter, count, steps }) => {
        const crawler = await scim.directory();
        const paths = new Map<string, string>();
        const create = async (one: (typeof people)[number]) => {
          made += 1;
          const isGroup = at === 'Groups' || (at === '' && made % 2 === 0);
          const body = isGroup
            ? { ...group(`${one.displayName ?? 'x'}${made}`), externalId: one.externalId }
            : person(`${one.title ?? 'u'}${made}@example.com`, { ...one, active: made % 3 > 0 });
          const path = isGroup ? '/Groups' : '/Users';
          const reply = await crawler.post(path, body);
          expect(reply.status, reply.text).toBe(201);
          paths.set(reply.body.id, `${path}/${reply.body.id}`);
        };
        await Promise.all(people.map(create));
        const query = Object.entries({ sortBy, sortOrder, filter })
          .flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${encodeURIComponent(value)}`]))
          .join('&');
        const all = async () => {
          const found: string[] = [];
          for (let total = 1; found.length < total; ) {
            const page = await crawler.get(`/${at}?${query}&startIndex=${found.length + 1}`);
            found.push(...ids(page));
            total = page.body.totalResults;
          }
          return found;
        };
        const before = await all();
        const deleted = new Set<string>();
        let crossings = 0;
        const pages = await crawl(
          byGet(crawler, `/${at}`, `${query}${query && '&'}count=${count}`),
          async (page) => {
            const { create: more, remove } = steps[crossings % steps.length] ?? { create: [], remove: [] };
            crossings += 1;
            if (crossings > 12) return;
            const living = [...ids(page).reverse(), ...paths.keys()].filter((id) => !deleted.has(id));
            for (const index of remove) {
              const id = living[index];
              const path = id === undefined ? undefined : paths.get(id);
              if (id === undefined || path === undefined || deleted.has(id)) continue;
              expect((await crawler.delete(path)).status).toBe(204);
              deleted.add(id);
            }
            await Promise.all(more.map(create));
          },
        );
        if (pages.length > 1) crossed += 1;
        const shown = pages.flatMap(ids);
        expect(new Set(shown).size, 'shown twice').toBe(shown.length);
        const throughout = before.filter((id) => !deleted.has(id));
        // Each of them, and in the order that the list has.
        expect(shown.filter((id) => throughout.includes(id))).toEqual(throughout);
        for (const page of pages) expect(page.body.totalResults).toBe(before.length);
      }),
      { seed, numRuns },
    );
    expect(crossed).toBeGreaterThan(numRuns / 2);
  });
});
