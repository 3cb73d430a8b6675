/** How the HTTP server of a process stops: what is asked is answered, and nobody is waited for who asks nothing. */
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import { expect, test } from 'vitest';
import { type Http, openHttp } from '../../src/process/http.ts';

/** Longer than any test may last: a stop that waits for it fails by the test's timeout. */
const FOREVER_MS = 3_600_000;
const GET = 'GET / HTTP/1.1\r\nhost: lockstep\r\n\r\n';

async function opened(): Promise<{
  http: Http;
  connection(): Promise<Socket>;
  asked(): Promise<ServerResponse>;
}> {
  const http = await openHttp({ host: '127.0.0.1', port: 0 });
  const came: ServerResponse[] = [];
  let look = () => {};
  http.serve((_req, res) => {
    came.push(res);
    look();
  });
  return {
    http,
    async connection() {
      const socket = connect(Number(new URL(http.url).port), '127.0.0.1');
      await once(socket, 'connect');
      return socket;
    },
    /** The next request that the server has taken, to be answered by the test. */
    asked: () =>
      new Promise((resolve) => {
        look = () => {
          const next = came.shift();
          if (next) resolve(next);
        };
        look();
      }),
  };
}

async function everything(socket: Socket): Promise<string> {
  let said = '';
  for await (const chunk of socket) said += chunk;
  return said;
}

test('connections on which nothing is asked keep no stop waiting: unused ones, and one whose answer was under way', async () => {
  const { http, connection, asked } = await opened();
  const unused = await connection();
  const slow = await connection();
  slow.write(GET);
  const answer = await asked();
  // Its head is out, and says that the connection goes on.
  answer.write('half');
  const stopped = http.stop(FOREVER_MS);
  answer.end(' and half');
  expect(await everything(slow)).toMatch(/keep-alive[\s\S]*half[\s\S]*and half/);
  expect(await everything(unused)).toBe('');
  await stopped;
});

test('who opened a connection and asks while it stops is answered, for the last time', async () => {
  const { http, connection, asked } = await opened();
  const socket = await connection();
  // The server knows the connection: it has answered on one that came later.
  const later = await connection();
  later.write(GET);
  (await asked()).end('later');
  await once(later, 'data');
  const stopped = http.stop(FOREVER_MS);
  socket.write(GET);
  (await asked()).end('served');
  expect(await everything(socket)).toMatch(/^HTTP\/1\.1 200[\s\S]*connection: close[\s\S]*served/i);
  await stopped;
});

test('a request that is never answered is cut when the patience is at its end', async () => {
  const { http, connection, asked } = await opened();
  const socket = await connection();
  socket.write(GET);
  await asked();
  await http.stop(50);
  expect(await everything(socket).catch(() => '')).toBe('');
});
