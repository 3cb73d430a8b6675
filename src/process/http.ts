/**
 * The HTTP server of a process. It listens before anything else is opened, so that a port in use is told at once,
 * and answers 503 until there is something to serve. When it stops, requests under way are answered first.
 */
import { createServer, type RequestListener } from 'node:http';
import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { StartRefused } from '../database/database.ts';

export interface Http {
  /** As somebody on this machine reaches it. */
  url: string;
  serve(app: RequestListener): void;
  /** Goes on serving, and tells who keeps a connection to open another one elsewhere. */
  drain(): void;
  /** Takes no new connection, lets requests under way finish, cuts what is left after `patienceMs`. Twice is once. */
  stop(patienceMs: number): Promise<void>;
}

/** How long a connection without a request may still bring one when the server stops. */
const QUIET_MS = 500;

/** @throws StartRefused when it cannot listen there */
export async function openHttp(at: { host: string; port: number }): Promise<Http> {
  let app: RequestListener = starting;
  let stopping = false;
  let stopped: Promise<void> | undefined;
  // Node takes a connection on which no request has come yet for a busy one; clients open such ones in advance.
  const unused = new Set<Socket>();
  // A filter of 2,048 characters beyond Latin is 18 kB of percent-encoded URL, more than Node takes by itself.
  const server = createServer({ maxHeaderSize: 64 * 1024 }, (req, res) => {
    unused.delete(req.socket);
    // A client on a kept connection is told that this answer is its last one here.
    if (stopping) res.setHeader('connection', 'close');
    app(req, res);
  });
  server.on('connection', (socket) => {
    unused.add(socket);
    socket.once('close', () => unused.delete(socket));
  });
  // Longer than the 60 s of common load balancers, so that it is they who close an idle connection.
  server.keepAliveTimeout = 65_000;
  server.headersTimeout = 66_000;
  server.requestTimeout = 60_000;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(new StartRefused(words(error, at))));
    server.listen(at.port, at.host, resolve);
  });
  const address = server.address();
  const port = address && typeof address === 'object' ? address.port : at.port;
  return {
    url: `http://${reachable(at.host)}:${port}`,
    serve(listener) {
      app = listener;
    },
    drain() {
      stopping = true;
    },
    stop(patienceMs) {
      stopped ??= stop(patienceMs);
      return stopped;
    },
  };

  async function stop(patienceMs: number): Promise<void> {
    stopping = true;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    // Without it every stop would last its whole patience: for connections that wait, and for those whose last answer was
    // begun before they could be told that it is the last.
    const tidy = setInterval(() => {
      server.closeIdleConnections();
      for (const socket of unused) if (socket.bytesRead === 0) socket.destroy();
    }, QUIET_MS);
    await Promise.race([closed, delay(patienceMs, undefined, { ref: false })]);
    clearInterval(tidy);
    server.closeAllConnections();
    await closed;
  }
}

const starting: RequestListener = (req, res) => {
  res.setHeader('cache-control', 'no-store');
  if (req.url === '/livez') {
    res.end('ok\n');
    return;
  }
  res.writeHead(503, { 'content-type': 'application/json', 'retry-after': '1' });
  res.end('{"ready":false,"checks":{"process":"starting"}}\n');
};

function reachable(host: string): string {
  if (host === '0.0.0.0' || host === '::') return 'localhost';
  return host.includes(':') ? `[${host}]` : host;
}

function words(error: NodeJS.ErrnoException, at: { host: string; port: number }): string {
  if (error.code === 'EADDRINUSE') {
    return (
      `Port ${at.port} on ${at.host} is in use by another program. Stop that one, or set LOCKSTEP_PORT to a free ` +
      'port (0 takes any).'
    );
  }
  if (error.code === 'EACCES') {
    return `This user may not listen on port ${at.port}. Set LOCKSTEP_PORT to one from 1024 to 65535.`;
  }
  if (error.code === 'EADDRNOTAVAIL' || error.code === 'ENOTFOUND') {
    return `${at.host} is not an address of this machine. Set LOCKSTEP_HOST to one, for example 127.0.0.1 or 0.0.0.0.`;
  }
  return `Cannot listen on ${at.host}:${at.port} (${error.message}). Set LOCKSTEP_HOST and LOCKSTEP_PORT.`;
}
