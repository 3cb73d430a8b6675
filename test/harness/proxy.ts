/** A TCP relay in front of a server: what lies behind it can vanish, hang and come back without stopping it. */
import { connect, createServer, type Server, type Socket } from 'node:net';

export interface TestProxy {
  port: number;
  /** Refuses new connections and cuts those that stand. */
  vanish(): Promise<void>;
  /** Takes connections and bytes and answers nothing: a network that drops packets. */
  hang(): void;
  /** Ends either. */
  comeBack(): Promise<void>;
  close(): Promise<void>;
}

export async function startProxy(host: string, port: number): Promise<TestProxy> {
  const sockets = new Set<Socket>();
  let hanging = false;
  let server: Server | undefined;

  function relay(client: Socket): void {
    const upstream = connect(port, host);
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(from);
      from.on('error', () => {});
      from.on('close', () => {
        sockets.delete(from);
        to.destroy();
      });
      from.on('data', (bytes) => {
        if (!hanging) to.write(bytes);
      });
    }
  }

  function listen(on: number): Promise<number> {
    return new Promise((resolve, reject) => {
      const created = createServer(relay);
      server = created;
      created.once('error', reject);
      created.listen(on, '127.0.0.1', () => {
        const address = created.address();
        if (address && typeof address === 'object') resolve(address.port);
      });
    });
  }

  function cut(): Promise<void> {
    return new Promise((resolve) => {
      if (server) server.close(() => resolve());
      else resolve();
      server = undefined;
      for (const socket of sockets) socket.destroy();
    });
  }

  const own = await listen(0);
  return {
    port: own,
    vanish: cut,
    hang() {
      hanging = true;
    },
    async comeBack() {
      // What was sent into the void is gone: such a connection is of no use any more.
      if (hanging) await cut();
      hanging = false;
      if (!server) await listen(own);
    },
    close: cut,
  };
}
