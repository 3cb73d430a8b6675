/**
 * What stands before the API processes, as a load balancer does: each connection goes to the next one that takes it. A
 * connection whose process dies is cut; nothing is sent twice by it.
 */
import { connect, createServer, type Socket } from 'node:net';

export interface Balancer {
  url: string;
  stop(): Promise<void>;
}

/** @param port where it listens @param ports of the processes behind it */
export async function startBalancer(port: number, ports: readonly number[]): Promise<Balancer> {
  const sockets = new Set<Socket>();
  let turn = 0;

  function relay(client: Socket, left: number): void {
    const target = ports[turn++ % ports.length];
    if (target === undefined || left === 0) return void client.destroy();
    const upstream = connect(target, '127.0.0.1');
    sockets.add(upstream);
    let through = false;
    upstream.once('connect', () => {
      through = true;
      client.pipe(upstream);
      upstream.pipe(client);
    });
    upstream.on('error', () => {});
    upstream.once('close', () => {
      sockets.delete(upstream);
      if (through || client.destroyed) client.destroy();
      else relay(client, left - 1);
    });
    client.once('close', () => upstream.destroy());
  }

  const server = createServer({ pauseOnConnect: false }, (client) => {
    sockets.add(client);
    client.on('error', () => {});
    client.once('close', () => sockets.delete(client));
    relay(client, ports.length);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  return {
    url: `http://127.0.0.1:${port}`,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}
