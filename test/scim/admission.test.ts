import { request } from 'node:http';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type AdmissionLimits, openAdmission } from '../../src/scim/admission.ts';
import { person, type ScimClient, type ScimHarness, startScim } from '../harness/scim.ts';

const limits: AdmissionLimits = { inFlight: 2, requestsPerSecond: 10, failuresPerMinute: 3 };

describe('counted by a clock of the test', () => {
  const world = (more: Partial<AdmissionLimits> = {}) => {
    let now = 0;
    const admission = openAdmission({ ...limits, ...more }, () => now);
    const attempt = { source: '10.0.0.1', directoryId: 'd', token: 't' };
    return {
      admission,
      attempt,
      pass: (ms: number) => {
        now += ms;
      },
      fail(more: Partial<typeof attempt> = {}) {
        const admitted = admission.admit({ ...attempt, ...more });
        if (admitted.ok) admitted.value('failed');
        return admitted;
      },
      enter(more: Partial<typeof attempt> = {}) {
        const admitted = admission.admit({ ...attempt, ...more });
        if (admitted.ok) admitted.value('entered');
        return admitted;
      },
    };
  };
  const retryAfter = (refusal: ReturnType<ReturnType<typeof world>['fail']>) =>
    refusal.ok ? null : refusal.error.headers?.['Retry-After'];

  test('a source that fails too often is told when to come back, and may then', () => {
    const w = world();
    for (let i = 0; i < 3; i += 1) expect(w.fail({ token: `guess-${i}` }).ok).toBe(true);
    const held = w.fail({ token: 'guess-3' });
    expect(held).toMatchObject({ ok: false, error: { status: 429 } });
    expect(retryAfter(held)).toBe('20');
    w.pass(20_000);
    expect(w.fail().ok).toBe(true);
    expect(w.fail().ok).toBe(false);
  });

  test('it holds off neither another source, nor another directory, nor a token known to be good', () => {
    const w = world();
    expect(w.enter({ token: 'good' }).ok).toBe(true);
    for (let i = 0; i < 4; i += 1) w.fail();
    expect(w.fail().ok).toBe(false);
    expect(w.enter({ source: '10.0.0.2' }).ok).toBe(true);
    expect(w.enter({ directoryId: 'e' }).ok).toBe(true);
    expect(w.enter({ token: 'good' }).ok).toBe(true);
  });

  test('a good token that is refused once is no longer known to be good', () => {
    const w = world({ failuresPerMinute: 1 });
    w.enter();
    w.fail();
    expect(w.fail().ok).toBe(false);
  });

  test('a source that tries directory after directory is held off everywhere', () => {
    const w = world();
    for (let i = 0; i < 30; i += 1) expect(w.fail({ directoryId: `d${i}` }).ok).toBe(true);
    expect(w.fail({ directoryId: 'another' }).ok).toBe(false);
  });

  test('a directory that sends too fast is told to wait, and no other is', () => {
    const w = world();
    w.enter();
    for (let i = 0; i < 50; i += 1) expect(w.enter().ok).toBe(true);
    const hurried = w.enter();
    expect(hurried).toMatchObject({ ok: false, error: { status: 429 } });
    expect(retryAfter(hurried)).toBe('1');
    expect(w.enter({ directoryId: 'e' }).ok).toBe(true);
    w.pass(1_000);
    for (let i = 0; i < 10; i += 1) expect(w.enter().ok).toBe(true);
    expect(w.enter().ok).toBe(false);
  });

  test('no more requests of one token than its share are under way', () => {
    const { admission, attempt } = world();
    const first = admission.admit(attempt);
    expect(first.ok && admission.admit(attempt).ok).toBe(true);
    expect(admission.admit(attempt)).toMatchObject({ ok: false, error: { status: 429 } });
    expect(admission.admit({ ...attempt, token: 'other' }).ok).toBe(true);
    if (first.ok) first.value('entered');
    expect(admission.admit(attempt).ok).toBe(true);
  });
});

describe('over HTTP', () => {
  let scim: ScimHarness;
  let client: ScimClient;
  beforeAll(async () => {
    scim = await startScim({
      trustProxy: true,
      limits: { failuresPerMinute: 3, bodySeconds: 1, heldBytes: 200_000 },
    });
    client = await scim.directory();
  });
  afterAll(() => scim.close());

  test('wrong tokens come to 429 with a whole number of seconds; the right one goes on from the same address', async () => {
    const from = { 'x-forwarded-for': 'made-up, 203.0.113.9' };
    expect((await client.get('/Users?count=0', from)).status).toBe(200);
    const wrong = scim.client(client.directory, `${client.directory.token.slice(0, -2)}__`);
    const statuses: number[] = [];
    for (let i = 0; i < 5; i += 1) {
      // The part before the last address is the caller's own claim and changes nothing.
      const reply = await wrong.get('/Users', { 'x-forwarded-for': `${i}.0.0.1, 203.0.113.9` });
      statuses.push(reply.status);
      if (reply.status === 429) {
        expect(reply.headers.get('retry-after')).toMatch(/^[1-9]\d*$/);
        expect(reply.body.detail).toContain('Request id:');
      }
    }
    expect(statuses).toEqual([401, 401, 401, 429, 429]);
    expect((await client.get('/Users?count=0', from)).status).toBe(200);
    expect((await wrong.get('/Users', { 'x-forwarded-for': '203.0.113.10' })).status).toBe(401);
  });

  test('a body that does not come to its end is 408, and its neighbours are answered meanwhile', async () => {
    const url = new URL(`${client.base}/Users`);
    const answered = new Promise<number | undefined>((resolve, reject) => {
      const req = request(url, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${client.directory.token}`,
          'content-type': 'application/scim+json',
          'content-length': '1000',
        },
      });
      req.on('response', (res) => {
        resolve(res.statusCode);
        req.destroy();
      });
      req.on('error', reject);
      req.write('{"userName":');
    });
    expect((await client.post('/Users', person('quick'))).status).toBe(201);
    expect(await answered).toBe(408);
  });

  test('a large body of somebody without a token is not read', async () => {
    const stranger = scim.client(client.directory, 'lst_none');
    const big = JSON.stringify(person('big', { title: 'x'.repeat(1_000_000) }));
    const reply = await stranger.send('POST', '/Users', big, { 'x-forwarded-for': '203.0.113.20' });
    expect(reply.status).toBe(401);
    const known = await client.send('POST', '/Users', big);
    // More than all bodies together may hold here.
    expect(known.status).toBe(503);
    expect(known.headers.get('retry-after')).toBe('1');
  });
});
