import { request } from 'node:http';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { dialectOf, dialects, recognise } from '../../src/scim/dialect.ts';
import { updateDirectory } from '../../src/tenant/directory-settings.ts';
import { patchOp, person, type ScimClient, type ScimHarness, startScim } from '../harness/scim.ts';
import { createTestDirectory, createTestTenant } from '../harness/tenant.ts';

let scim: ScimHarness;
let tenantId: string;
let client: ScimClient;

beforeAll(async () => {
  scim = await startScim();
  tenantId = await createTestTenant(scim.database.db);
  client = scim.client(await createTestDirectory(scim.database.db, tenantId));
});
afterAll(() => scim.close());

const capital = { Operations: [{ op: 'Replace', path: 'x', value: 1 }] };
const plain = { Operations: [{ op: 'replace', path: 'x', value: 1 }] };

test.each([
  ['Okta by its name', { userAgent: 'Okta SCIM Client 1.0.0' }, 'okta'],
  ['Entra ID by its operations', { body: capital }, 'entra'],
  ['Entra ID by an externalId without quotes', { filter: 'externalId eq 12-ab' }, 'entra'],
  [
    'nobody by what the RFC says',
    { body: plain, filter: 'externalId eq "12-ab"', userAgent: 'curl/8' },
    null,
  ],
  ['nobody by a body that is odd', { body: { operations: [null, 1, { op: 2 }] } }, null],
])('%s', (_who, traits, idp) => {
  expect(recognise(traits)).toBe(idp);
});

test('what an operator says wins over the request, and that over what was seen before', () => {
  expect(dialectOf({ idp: 'generic', idpDetected: 'entra' }, { body: capital })).toBe(dialects.generic);
  expect(dialectOf({ idp: 'entra', idpDetected: null }, { body: plain, userAgent: 'x' })).toBe(
    dialects.entra,
  );
  expect(dialectOf({ idp: null, idpDetected: 'okta' }, { body: capital })).toBe(dialects.entra);
  expect(dialectOf({ idp: null, idpDetected: 'entra' }, { body: plain })).toBe(dialects.entra);
  // Entra ID names no user agent; who does is somebody else.
  expect(dialectOf({ idp: null, idpDetected: 'entra' }, { body: plain, userAgent: 'x' })).toBe(
    dialects.generic,
  );
  expect(dialectOf({ idp: null, idpDetected: null }, {})).toBe(dialects.generic);
});

/** As Entra ID sends: without a user agent. */
function patchAsEntra(id: string, op: string): Promise<number | undefined> {
  const body = JSON.stringify({
    schemas: [patchOp],
    Operations: [{ op, path: 'phoneNumbers[type eq "work"].value', value: '1' }],
  });
  return new Promise((resolve, reject) => {
    const req = request(`${client.base}/Users/${id}`, {
      method: 'PATCH',
      headers: { authorization: `Bearer ${client.directory.token}`, 'content-type': 'application/scim+json' },
    });
    req.on('response', (res) => {
      res.resume();
      res.on('end', () => resolve(res.statusCode));
    });
    req.on('error', reject);
    req.end(body);
  });
}

test('a directory learns whose client pushes, and from then on reads what that client means', async () => {
  const detected = async () => {
    const { rows } = await scim.database.db.system.query<{ idp_detected: string | null }>(
      'select idp_detected from directory where id = $1',
      [client.directory.id],
    );
    return rows[0]?.idp_detected ?? null;
  };
  const ada = (await client.post('/Users', person('ada'))).body.id;
  const bob = (await client.post('/Users', person('bob'))).body.id;
  expect(await patchAsEntra(ada, 'replace')).toBe(400);
  expect(await patchAsEntra(ada, 'Replace')).toBe(200);
  await expect.poll(detected).toBe('entra');
  expect(await patchAsEntra(bob, 'replace')).toBe(200);
  // Another client of the same directory is read by the RFC.
  const strict = await client.patch(`/Users/${bob}`, [
    { op: 'replace', path: 'phoneNumbers[type eq "home"].value', value: '1' },
  ]);
  expect([strict.status, strict.body.scimType]).toEqual([400, 'noTarget']);
});

test('an operator’s word holds from the next request on', async () => {
  const id = (await client.post('/Users', person('eve'))).body.id;
  const { db } = scim.database;
  await updateDirectory(db, tenantId, client.directory.id, { idp: 'generic' }, 'test');
  expect(await patchAsEntra(id, 'Replace')).toBe(400);
  await updateDirectory(db, tenantId, client.directory.id, { idp: 'entra' }, 'test');
  expect(await patchAsEntra(id, 'replace')).toBe(200);
  await updateDirectory(db, tenantId, client.directory.id, { idp: null }, 'test');
});
