/** Lists: paging, sorting, projection, search, and what the server says about itself. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  coreUser,
  enterprise,
  group,
  person,
  type ScimClient,
  type ScimHarness,
  startScim,
} from '../harness/scim.ts';

let scim: ScimHarness;
let client: ScimClient;

beforeAll(async () => {
  scim = await startScim({ limits: { pageDefault: 5, pageMax: 8 } });
  client = await scim.directory();
  for (let i = 0; i < 12; i += 1) {
    await client.post(
      '/Users',
      person(`u${String(i).padStart(2, '0')}@example.com`, {
        title: `t${(i * 7) % 12}`,
        name: { givenName: `G${i}`, familyName: 'F' },
        emails: [{ type: 'work', value: `u${i}@work.example`, primary: true }],
        [enterprise]: { department: i % 2 ? 'odd' : 'even', costCenter: `c${i}` },
      }),
    );
  }
  for (const name of ['A', 'B', 'C']) await client.post('/Groups', group(name));
});
afterAll(() => scim.close());

describe('paging', () => {
  test.each([
    ['', 1, 5],
    ['?count=0', 1, 0],
    ['?count=-3', 1, 0],
    ['?startIndex=0&count=2', 1, 2],
    ['?startIndex=-7&count=2', 1, 2],
    ['?startIndex=11&count=5', 11, 2],
    ['?startIndex=12&count=5', 12, 1],
    ['?startIndex=13&count=5', 13, 0],
    ['?startIndex=99999999999999999999&count=5', 1_000_000_000, 0],
    ['?count=1000', 1, 8],
    ['?startIndex=&count=', 1, 5],
    ['?startIndex=12&count=0', 12, 0],
    ['?filter=userName%20pr&startIndex=11', 11, 2],
  ])('%s starts at %i and returns %i of 12', async (query, startIndex, itemsPerPage) => {
    const reply = await client.get(`/Users${query}`);
    expect(reply.status).toBe(200);
    expect(reply.body).toMatchObject({ totalResults: 12, startIndex, itemsPerPage });
    expect(reply.body.Resources).toHaveLength(itemsPerPage);
  });

  test('pages follow each other without gap or repetition', async () => {
    const seen: string[] = [];
    for (let startIndex = 1; startIndex <= 12; startIndex += 5) {
      const page = await client.get(`/Users?startIndex=${startIndex}&count=5`);
      seen.push(...page.body.Resources.map((r) => r.id));
    }
    expect(new Set(seen).size).toBe(12);
    expect(seen).toHaveLength(12);
  });
});

test('each page tells the same total, wherever it begins, in whatever order', async () => {
  const orders = ['', '&sortBy=id', '&sortBy=id&sortOrder=descending', '&sortBy=userName', '&sortBy=schemas'];
  const odd = `&filter=${encodeURIComponent(`${enterprise}:department eq "odd"`)}`;
  for (const order of orders) {
    for (const [filter, total] of [
      ['', 12],
      [odd, 6],
    ] as const) {
      for (let startIndex = 1; startIndex <= total + 2; startIndex += 1) {
        for (const count of [0, 1, 3, total]) {
          const path = `/Users?startIndex=${startIndex}&count=${count}${order}${filter}`;
          const { body } = await client.get(path);
          const left = Math.max(0, total - startIndex + 1);
          expect([body.totalResults, body.itemsPerPage], path).toEqual([total, Math.min(count, left, 8)]);
        }
      }
    }
  }
});

describe('sorting', () => {
  const names = async (query: string) =>
    (await client.get(`/Users?count=8&${query}`)).body.Resources.map((r) => r.userName);

  test('every page of a list stands in the order of the whole', async () => {
    for (const order of ['', '&sortBy=title', '&sortBy=userName&sortOrder=descending', '&filter=title pr']) {
      const crawled: string[] = [];
      for (let startIndex = 1; startIndex <= 12; startIndex += 3) {
        const { body } = await client.get(`/Users?startIndex=${startIndex}&count=3${order}`);
        crawled.push(...(body.Resources ?? []).map((user: { id: string }) => user.id));
      }
      const { body: head } = await client.get(`/Users?count=8${order}`);
      const whole = (head.Resources ?? []).map((user: { id: string }) => user.id);
      expect(crawled.slice(0, 8), order).toEqual(whole);
    }
  });

  test('sortBy and sortOrder order the pages', async () => {
    expect((await names('sortBy=userName'))[0]).toBe('u00@example.com');
    expect((await names('sortBy=userName&sortOrder=descending'))[0]).toBe('u11@example.com');
    const byTitle = (await client.get('/Users?count=8&sortBy=title')).body.Resources.map((r) => r.title);
    expect(byTitle).toEqual([...byTitle].sort());
    const filtered = await client.get(
      `/Users?count=3&sortBy=name.givenName&filter=${encodeURIComponent(`${enterprise}:department eq "odd"`)}`,
    );
    expect(filtered.body.totalResults).toBe(6);
    expect(filtered.body.Resources.map((r) => (r.name as { givenName: string }).givenName)).toEqual([
      'G1',
      'G11',
      'G3',
    ]);
  });
});

describe('projection', () => {
  const keys = async (query: string) =>
    Object.keys((await client.get(`/Users?count=1&${query}`)).body.Resources[0] ?? {}).sort();

  test('id and schemas always come, and what is named', async () => {
    expect(await keys('attributes=userName')).toEqual(['id', 'schemas', 'userName']);
    expect(await keys('attributes=USERNAME,title')).toEqual(['id', 'schemas', 'title', 'userName']);
    expect(await keys('excludedAttributes=id,schemas,userName')).not.toContain('userName');
    expect(await keys('excludedAttributes=id,schemas,userName')).toEqual(
      expect.arrayContaining(['id', 'schemas']),
    );
    expect(await keys('attributes=nobodyKnows')).toEqual(['id', 'schemas']);
  });

  test('sub-attributes and URNs select parts', async () => {
    const one = async (query: string) => (await client.get(`/Users?count=1&${query}`)).body.Resources[0];
    expect((await one('attributes=name.givenName'))?.name).toEqual({ givenName: 'G0' });
    expect((await one('attributes=emails.value'))?.emails).toEqual([{ value: 'u0@work.example' }]);
    expect((await one('excludedAttributes=name.givenName'))?.name).toEqual({ familyName: 'F' });
    expect((await one(`attributes=${coreUser}:userName`))?.userName).toBe('u00@example.com');
    expect((await one(`attributes=${enterprise}:department`))?.[enterprise]).toEqual({ department: 'even' });
    expect((await one(`attributes=${enterprise}`))?.[enterprise]).toMatchObject({ costCenter: 'c0' });
    expect((await one(`excludedAttributes=${enterprise}`))?.[enterprise]).toBeUndefined();
    expect((await one('attributes=meta.version'))?.meta).toEqual({ version: 'W/"1"' });
  });

  test('writes are answered in the projection that they name', async () => {
    const made = await client.post('/Users?attributes=userName', person('projected@example.com'));
    expect(Object.keys(made.body).sort()).toEqual(['id', 'schemas', 'userName']);
    const path = `/Users/${made.body.id}?excludedAttributes=meta`;
    const patched = await client.patch(path, [{ op: 'replace', path: 'title', value: 'x' }]);
    expect(patched.body.title).toBe('x');
    expect(patched.body.meta).toBeUndefined();
    await client.delete(`/Users/${made.body.id}`);
  });
});

describe('search', () => {
  test('POST to .search answers what GET answers', async () => {
    const filter = 'userName sw "u0"';
    const get = await client.get(
      `/Users?filter=${encodeURIComponent(filter)}&startIndex=2&count=3&sortBy=userName&attributes=userName`,
    );
    const post = await client.post('/Users/.search', {
      schemas: ['urn:ietf:params:scim:api:messages:2.0:SearchRequest'],
      filter,
      startIndex: 2,
      count: 3,
      sortBy: 'userName',
      attributes: ['userName'],
    });
    expect(post.status).toBe(200);
    expect(post.text).toBe(get.text);
  });

  test('a search at the root goes over users, then groups', async () => {
    const all = await client.post('/.search', {
      startIndex: 11,
      count: 4,
      attributes: ['meta.resourceType'],
    });
    expect(all.body).toMatchObject({ totalResults: 15, startIndex: 11, itemsPerPage: 4 });
    const types = all.body.Resources.map((r) => r.meta.resourceType);
    expect(types).toEqual(['User', 'User', 'Group', 'Group']);
    const groups = await client.post('/.search', { filter: 'meta.resourceType eq "Group"' });
    expect(groups.body.totalResults).toBe(3);
    const users = await client.post('/.search', { filter: 'userName eq "u01@example.com"' });
    expect(users.body.totalResults).toBe(1);
    expect((await client.post('/.search', { filter: 'nonsense eq 1' })).status).toBe(400);
  });

  test.each(['', '/'])('GET of the base URL%s is a search over all of it', async (path) => {
    const query = `?filter=${encodeURIComponent('displayName eq "b" or userName eq "u01@example.com"')}`;
    const reply = await client.get(path + query);
    expect(reply.body.Resources.map((r) => r.userName ?? r.displayName)).toEqual(['u01@example.com', 'B']);
    expect((await client.get(path)).body.totalResults).toBe(15);
    expect((await client.get(`${path}?filter=nonsense`)).body.scimType).toBe('invalidFilter');
  });

  // RFC 7644 §3.4.2.1: "as if there is no attribute value".
  test.each([
    ['userName pr', 12],
    ['not (userName pr)', 3],
    ['userName ne "u01@example.com"', 14],
    ['userName sw "u" or displayName eq "A"', 13],
    ['userName eq null', 3],
    ['members pr', 0],
    ['not (members.value pr)', 15],
    ['emails[type eq "work"] or displayName eq "A"', 13],
    [`${coreUser}:userName sw "u0"`, 10],
    [`not (${enterprise}:department eq "odd")`, 9],
  ])('over all types, what a type does not define has no value: %s', async (filter, total) => {
    expect((await client.post('/.search', { filter })).body.totalResults).toBe(total);
  });

  test('over all types, an order that one type does not have leaves it in the order of ids', async () => {
    const { body } = await client.post('/.search', { sortBy: 'userName', sortOrder: 'descending', count: 8 });
    expect(body).toMatchObject({ totalResults: 15, itemsPerPage: 8 });
    for (const wrong of [
      { sortBy: 'nonsense' },
      { filter: 'groups.$ref pr' },
      { filter: 'members.$ref pr' },
    ]) {
      expect((await client.post('/.search', wrong)).status).toBe(400);
    }
  });
});

describe('discovery', () => {
  test('ServiceProviderConfig says what works and what does not', async () => {
    const { body } = await client.get('/ServiceProviderConfig');
    expect(body).toMatchObject({
      patch: { supported: true },
      bulk: { supported: true },
      filter: { supported: true, maxResults: 8 },
      sort: { supported: true },
      etag: { supported: true },
      changePassword: { supported: false },
    });
    expect(body.authenticationSchemes).toMatchObject([
      { type: 'oauthbearertoken', primary: true },
      { type: 'oauth2' },
    ]);
    expect(body.meta.location).toBe(`${client.base}/ServiceProviderConfig`);
  });

  test('ResourceTypes and Schemas are listed, and each is found at its location', async () => {
    for (const [path, total] of [
      ['/ResourceTypes', 2],
      ['/Schemas', 6],
    ] as const) {
      const list = await client.get(path);
      expect(list.body.totalResults).toBe(total);
      for (const resource of list.body.Resources) {
        expect(resource.meta.location).toBe(`${client.base}${path}/${resource.id}`);
        expect((await client.get(`${path}/${resource.id}`)).body).toEqual(resource);
      }
    }
    const user = (await client.get('/ResourceTypes/User')).body;
    expect(user).toMatchObject({ endpoint: '/Users', schema: coreUser });
    expect(user.schemaExtensions).toEqual([{ schema: enterprise, required: false }]);
    const schema = (await client.get(`/Schemas/${coreUser}`)).body;
    const userName = (schema.attributes as Record<string, unknown>[]).find((a) => a.name === 'userName');
    expect(userName).toMatchObject({
      type: 'string',
      required: true,
      caseExact: false,
      mutability: 'readWrite',
      returned: 'default',
      uniqueness: 'server',
    });
  });
});
