import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { toldLimits as limits } from '../../src/scim/limits.ts';
import { group, person, type ScimClient, type ScimHarness, startScim } from '../harness/scim.ts';

let scim: ScimHarness;
let client: ScimClient;

beforeAll(async () => {
  scim = await startScim();
  client = await scim.directory();
});
afterAll(() => scim.close());

const many = (count: number) => Array.from({ length: count }, () => randomUUID());
const refusal = async (reply: Promise<{ status: number; body: { scimType?: string } }>) => {
  const { status, body } = await reply;
  return [status, body.scimType];
};

test('each limit that is told is the one that holds, on its very edge', async () => {
  const { body } = await client.post('/Groups', group('Edge'));
  const at = `/Groups/${body.id}`;
  const before = await scim.counts();
  const tooMany = [400, 'tooMany'];
  const over = limits.groupMembers + 1;
  expect(await refusal(client.post('/Groups', group('Large', many(over))))).toEqual(tooMany);
  expect(await refusal(client.put(at, group('Edge', many(over))))).toEqual(tooMany);
  const members = many(over).map((value) => ({ value }));
  expect(await refusal(client.patch(at, [{ op: 'add', path: 'members', value: members }]))).toEqual(tooMany);
  // On the edge it is read, and refused for what it says.
  const within = { op: 'add', path: 'members', value: members.slice(1) };
  expect(await refusal(client.patch(at, [within]))).toEqual([400, 'invalidValue']);
  const values = (count: number) => many(count).map((value) => ({ value }));
  const roles = (count: number) => person(randomUUID(), { roles: values(count) });
  expect(await refusal(client.post('/Users', roles(limits.attributeValues + 1)))).toEqual(tooMany);
  const operations = (count: number) => Array(count).fill({ op: 'replace', path: 'title', value: 'x' });
  const user = (await client.post('/Users', roles(limits.attributeValues))).body.id;
  const patch = (count: number) => client.patch(`/Users/${user}`, operations(count));
  expect(await refusal(patch(limits.patchOperations + 1))).toEqual(tooMany);
  expect((await patch(limits.patchOperations)).status).toBe(200);
  const long = (length: number) => `/Users?filter=${'userName eq "x"'.padEnd(length)}`;
  expect((await client.get(long(limits.filterCharacters))).status).toBe(200);
  expect(await refusal(client.get(encodeURI(long(limits.filterCharacters + 1))))).toEqual(tooMany);
  const padded = (bytes: number) => {
    const whole = JSON.stringify(person('padded', { title: '' }));
    return whole.replace('"title":""', `"title":"${'x'.repeat(bytes - whole.length)}"`);
  };
  expect((await client.send('POST', '/Users', padded(limits.bodyBytes + 1))).status).toBe(413);
  const after = await scim.counts();
  expect(Number(after.mirror_group_member)).toBe(Number(before.mirror_group_member));
  expect((await client.send('POST', '/Users', padded(limits.bodyBytes))).status).toBe(201);
});
