import { expect, test } from 'vitest';
import { parseRedisUrl } from '../../src/config/redis-url.ts';

test.each([
  ['redis://cache', { kind: 'single', hosts: [{ host: 'cache', port: 6379 }], database: 0 }],
  [
    'redis://lock:p%40ss%2F@[::1]:7000/3?family=6',
    {
      kind: 'single',
      hosts: [{ host: '::1', port: 7000 }],
      username: 'lock',
      password: 'p@ss/',
      database: 3,
      family: 6,
    },
  ],
  [
    'rediss://:a+b@cache?ca=/etc/ca.pem&servername=redis.example.com',
    {
      kind: 'single',
      hosts: [{ host: 'cache', port: 6379 }],
      password: 'a+b',
      database: 0,
      tls: { insecure: false, ca: '/etc/ca.pem', servername: 'redis.example.com' },
    },
  ],
  [
    'redis+sentinel://u:p@s1,s2:5000/main/2?sentinelPassword=a+b%26',
    {
      kind: 'sentinel',
      hosts: [
        { host: 's1', port: 26_379 },
        { host: 's2', port: 5000 },
      ],
      username: 'u',
      password: 'p',
      database: 2,
      sentinel: { master: 'main', password: 'a+b&' },
    },
  ],
  [
    'rediss+cluster://c1:7001,c2:7002?insecure=1',
    {
      kind: 'cluster',
      hosts: [
        { host: 'c1', port: 7001 },
        { host: 'c2', port: 7002 },
      ],
      database: 0,
      tls: { insecure: true },
    },
  ],
])('%s', (url, address) => {
  expect(parseRedisUrl(url)).toEqual({ ok: true, address });
});

test.each([
  ['http://hunter2@cache', 'redis+sentinel://'],
  ['redis://u:hunter2@pw@cache', 'percent-encode'],
  ['redis://u:%zz-hunter2@cache', 'percent-encoded'],
  ['redis://a:1,b:2', 'several hosts'],
  ['redis://cache:99999', 'host:port'],
  ['redis://cache/zero', 'number of a database'],
  ['redis://cache?ca=/x', 'rediss'],
  ['redis://cache?hunter2-=1', 'means nothing'],
  ['redis+sentinel://s1', 'which master'],
  ['redis+cluster://c1/1', 'only 0'],
  ['redis+cluster://c1?sentinelPassword=hunter2', 'redis+sentinel://'],
])('%s is refused without its secret', (url, words) => {
  const parsed = parseRedisUrl(url);
  expect(parsed).toMatchObject({ ok: false, error: expect.stringContaining(words) });
  expect(JSON.stringify(parsed)).not.toContain('hunter2');
});
