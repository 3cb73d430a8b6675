/** Conditional requests (RFC 7644 §3.14, RFC 9110 §13): on every method, for users and groups alike. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { group, patchOp, person, type ScimClient, type ScimHarness, startScim } from '../../harness/scim.ts';

let scim: ScimHarness;
let client: ScimClient;
beforeAll(async () => {
  scim = await startScim();
  client = await scim.directory();
});
afterAll(() => scim.close());

const kinds = [
  ['users', '/Users', (name: string) => person(name, { title: 'one' }), 'nickName'],
  ['groups', '/Groups', (name: string) => group(name), 'externalId'],
] as const;

describe.each(kinds)('%s', (_kind, path, body, attribute) => {
  /** One at version 2. */
  async function second(): Promise<string> {
    const made = await client.post(path, body(crypto.randomUUID()));
    const at = `${path}/${made.body.id}`;
    const changed = await client.patch(at, [{ op: 'add', path: attribute, value: 'two' }]);
    expect(changed.headers.get('etag')).toBe('W/"2"');
    return at;
  }

  test.each([
    ['W/"2"', 304],
    ['"2"', 304],
    ['*', 304],
    ['W/"1", W/"2"', 304],
    ['W/"1"', 200],
    ['"other"', 200],
  ])('GET with If-None-Match %s is %i', async (tag, status) => {
    const at = await second();
    for (const method of ['GET', 'HEAD']) {
      const reply = await client.send(method, at, undefined, { 'if-none-match': tag });
      expect(reply.status).toBe(status);
      expect(reply.headers.get('etag')).toBe('W/"2"');
      if (status === 304) expect(reply.text).toBe('');
    }
  });

  test.each([
    ['W/"2"', 200],
    ['"2"', 200],
    ['*', 200],
    ['W/"1"', 412],
    ['"other"', 412],
  ])('GET with If-Match %s is %i', async (tag, status) => {
    expect((await client.get(await second(), { 'if-match': tag })).status).toBe(status);
  });

  const writes: [string, (at: string, headers: Record<string, string>) => ReturnType<ScimClient['send']>][] =
    [
      ['PUT', (at, headers) => client.put(at, body(crypto.randomUUID()), headers)],
      [
        'PATCH',
        (at, headers) => client.patch(at, [{ op: 'replace', path: attribute, value: 'three' }], headers),
      ],
      [
        'PATCH of a document',
        (at, headers) => client.patch(at, [{ op: 'remove', path: attribute }], headers),
      ],
      [
        'PATCH that is answered',
        (at, headers) =>
          client.send(
            'PATCH',
            `${at}?attributes=meta`,
            { schemas: [patchOp], Operations: [{ op: 'replace', path: attribute, value: 'three' }] },
            headers,
          ),
      ],
      ['DELETE', (at, headers) => client.delete(at, headers)],
    ];
  describe.each(writes)('%s', (_method, write) => {
    test.each([
      [{ 'if-none-match': '*' }],
      [{ 'if-none-match': 'W/"2"' }],
      [{ 'if-none-match': '"1", "2"' }],
      [{ 'if-match': 'W/"1"' }],
      [{ 'if-match': '"x"' }],
      [{ 'if-match': 'W/"2"', 'if-none-match': '*' }],
    ])('with %o is 412 and changes nothing', async (headers) => {
      const at = await second();
      const before = (await client.get(at)).body;
      const reply = await write(at, headers);
      expect(reply.status, reply.text).toBe(412);
      expect(reply.body).toMatchObject({ status: '412' });
      expect((await client.get(at)).body).toEqual(before);
    });

    test.each([
      [{ 'if-none-match': 'W/"1"' }],
      [{ 'if-none-match': 'W/"3"' }],
      [{ 'if-match': '*' }],
      [{ 'if-match': '"2"' }],
      [{ 'if-match': 'W/"1", W/"2"', 'if-none-match': '"1"' }],
    ])('with %o goes through', async (headers) => {
      const at = await second();
      const reply = await write(at, headers);
      expect([200, 204], reply.text).toContain(reply.status);
      if (reply.headers.has('etag')) expect(reply.headers.get('etag')).toBe('W/"3"');
    });

    test('of what is not there is 404, whatever the condition', async () => {
      const at = `${path}/${crypto.randomUUID()}`;
      for (const headers of [{ 'if-match': '*' }, { 'if-match': '"1"' }, { 'if-none-match': '*' }]) {
        expect((await write(at, headers)).status).toBe(404);
      }
    });
  });
});
