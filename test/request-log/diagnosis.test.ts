import { expect, test } from 'vitest';
import { causeOf } from '../../src/request-log/cause.ts';
import {
  type CredentialFacts,
  type DirectoryFacts,
  diagnose,
  type Finding,
} from '../../src/request-log/diagnosis.ts';
import type { TrafficEntry } from '../../src/request-log/reading.ts';

const now = new Date('2026-03-01T12:00:00Z');
const ago = (minutes: number) => new Date(now.getTime() - minutes * 60_000);
const DAY = 24 * 60;
const directory: DirectoryFacts = { kind: 'scim', idp: null, pausedAt: null, pauseReason: null };
const token: CredentialFacts = {
  kind: 'token',
  id: 'tok',
  expiresAt: null,
  revokedAt: null,
  lastUsedAt: ago(1),
};

let serial = 0;
function entry(minutes: number, more: Partial<TrafficEntry> = {}): TrafficEntry {
  const facts = {
    method: 'GET',
    path: '/Users',
    status: 200,
    scimType: null,
    reason: null,
    detail: null,
    ...more,
  };
  return {
    id: `id-${++serial}`,
    at: ago(minutes),
    ...facts,
    cause: causeOf(facts),
    durationMs: 1,
    tokenId: 'tok',
    changes: [],
    changeCount: 0,
    droppedBefore: 0,
    list: null,
    ...more,
  };
}
const page = (total: number, shown: number) =>
  `{"schemas":[],"totalResults":${total},"startIndex":1,"itemsPerPage":${shown},`;
const many = (count: number, more: Partial<TrafficEntry>, from = 10) =>
  Array.from({ length: count }, (_, i) => entry(from + i, more));

const wrong = (findings: Finding[]) => findings.filter((f) => !f.ok);
const look = (
  entries: TrafficEntry[],
  d: Partial<DirectoryFacts> = {},
  tokens: CredentialFacts[] = [token],
) => wrong(diagnose({ ...directory, ...d }, tokens, entries, now));

test('all well is said of each thing that was looked at', () => {
  const findings = diagnose(directory, [token], [entry(1), entry(2, { status: 201 })], now);
  expect(findings.map((f) => [f.check, f.ok])).toEqual([
    ['directory', true],
    ['tokens', true],
    ['traffic', true],
    ['failures', true],
  ]);
});

test('no traffic: never any, none for long, and how long is long depends on the identity provider', () => {
  const unused = { ...token, lastUsedAt: null };
  expect(look([], {}, [unused])).toMatchObject([{ check: 'traffic', words: /no request has arrived/ }]);
  expect(look([], {}, [{ ...token, lastUsedAt: ago(6 * DAY) }])).toEqual([]);
  expect(look([], {}, [{ ...token, lastUsedAt: ago(8 * DAY) }])).toMatchObject([
    { check: 'traffic', words: /no request since 2026-02-21/ },
  ]);
  expect(look([entry(200)], { idp: 'entra' }, [unused])).toMatchObject([{ check: 'traffic' }]);
  expect(look([entry(100)], { idp: 'entra' }, [unused])).toEqual([]);
});

test('a pause is told with its reason', () => {
  const found = look([entry(1)], { pausedAt: ago(DAY), pauseReason: 'migration' });
  expect(found).toMatchObject([{ check: 'directory', words: /paused since 2026-02-28 \(migration\)/ }]);
});

test('tokens: none, none living, near the end and in use; one that was put out of use may end', () => {
  expect(look([entry(1)], {}, [])).toMatchObject([{ check: 'tokens', words: /there is none/ }]);
  const dead = { ...token, revokedAt: ago(5) };
  const gone = { ...token, expiresAt: ago(5) };
  expect(look([entry(1)], {}, [dead, gone])).toMatchObject([
    { check: 'tokens', words: /revoked or have expired/ },
  ]);
  const ending = { ...token, id: 'ending', expiresAt: ago(-13 * DAY) };
  expect(look([entry(1)], {}, [ending])).toMatchObject([
    { check: 'tokens', words: /token ending.*expires in 13 days.*Make another one/ },
  ]);
  const fresh = { ...token, id: 'fresh', lastUsedAt: null };
  expect(look([entry(1)], {}, [ending, fresh])).toMatchObject([{ words: /Another one is there/ }]);
  expect(look([entry(1)], {}, [{ ...ending, lastUsedAt: ago(60) }, token])).toEqual([]);
  expect(look([entry(1)], {}, [{ ...token, expiresAt: ago(-15 * DAY) }])).toEqual([]);
});

test('an OAuth client is as good as a token', () => {
  const client: CredentialFacts = { ...token, kind: 'client', id: 'cli' };
  expect(look([entry(1)], {}, [client])).toEqual([]);
  expect(look([entry(1)], {}, [{ ...client, expiresAt: ago(-DAY) }])).toMatchObject([
    { check: 'tokens', words: /client cli.*expires in 1 day,/ },
  ]);
});

test('failures are counted by cause, those that repeat; a token or a fault of ours counts at once', () => {
  const conflicts = many(3, { method: 'POST', status: 409, scimType: 'uniqueness' });
  const found = look([entry(1), ...conflicts, ...many(2, { status: 404, path: '/Users/x' }, 30)]);
  expect(found).toMatchObject([
    {
      check: 'failures',
      count: 3,
      lastAt: ago(10),
      example: conflicts[0]?.id,
      words: /3 × 409 uniqueness.*lost its link/,
    },
  ]);
  expect(look([entry(1, { status: 500 }), entry(2)])).toMatchObject([{ check: 'failures', count: 1 }]);
  const expired = entry(1, { status: 401, reason: 'expired' });
  expect(look([expired, entry(2)])).toMatchObject([
    { check: 'failures', words: /expired, but the identity provider/ },
  ]);
});

test('what has been put right since is not complained of, nor is yesterday', () => {
  expect(look([entry(1), entry(2, { status: 401, reason: 'unknown' })])).toEqual([]);
  expect(look([entry(1), entry(2, { status: 403, reason: 'paused' })])).toEqual([]);
  expect(look([entry(1), ...many(5, { status: 404, path: '/Users/x' }, DAY + 1)])).toEqual([]);
});

test('a group that is pushed before its users, until it has been taken', () => {
  const early = entry(5, {
    method: 'PATCH',
    path: '/Groups/g',
    status: 400,
    scimType: 'invalidValue',
    reason: 'unknown_members',
  });
  const found = look([entry(1), early]);
  expect(found).toMatchObject([
    { check: 'groups', count: 1, example: early.id, words: /before its members/ },
  ]);
  expect(look([entry(1, { method: 'PATCH', path: '/Groups/g', status: 204 }), early])).toEqual([]);
  expect(look([entry(1, { method: 'PATCH', path: '/Groups/other', status: 204 }), early])).toHaveLength(1);
});

test('a client that reads the first page only, again and again', () => {
  const first = many(4, { path: '/Users?count=100&startIndex=1', list: page(250, 100) });
  expect(look([entry(1), ...first])).toMatchObject([
    {
      check: 'paging',
      count: 4,
      words: /GET \/Users has 250 results, of which 100 fit a page, and in 4 readings/,
    },
  ]);
  const bare = entry(5, { path: '/Groups', list: page(101, 100) });
  expect(look([entry(1), bare])).toMatchObject([{ check: 'paging', count: 1, words: /GET \/Groups/ }]);
});

test('a client that pages is not accused, nor one that wants a few, or has only just begun', () => {
  const first = entry(10, { path: '/Users?startIndex=1&count=100', list: page(250, 100) });
  const second = entry(9, { path: '/Users?startIndex=101&count=100', list: page(250, 100) });
  expect(look([second, first])).toEqual([]);
  const cursor = entry(9, { path: '/Users?count=100&cursor=abc', list: page(250, 100) });
  expect(look([cursor, entry(10, { path: '/Users?count=100&cursor=', list: page(250, 100) })])).toEqual([]);
  expect(look([entry(10, { path: '/Users?count=1', list: page(250, 1) })])).toEqual([]);
  expect(look([entry(0.5, { path: '/Users', list: page(250, 100) })])).toEqual([]);
  expect(look([entry(10, { path: '/Users', list: page(100, 100) })])).toEqual([]);
  // Of another filter, a second page is no second page of this list.
  const other = entry(9, { path: '/Users?filter=active+pr&startIndex=101', list: page(250, 100) });
  expect(look([other, first])).toMatchObject([{ check: 'paging', count: 1 }]);
});

test('a log that had no room says so', () => {
  expect(look([entry(1, { droppedBefore: 7 }), entry(2, { droppedBefore: 5 })])).toMatchObject([
    { check: 'log', count: 12, words: /12 requests are missing/ },
  ]);
});

test('a directory that is pulled has no requests, and that is all right', () => {
  expect(diagnose({ ...directory, kind: 'okta' }, [], [], now)).toMatchObject([{ ok: true }]);
});
