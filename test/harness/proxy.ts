/** A TCP relay in front of a server: what lies behind it can vanish, hang and come back without stopping it. */
import { connect, createServer, type Server, type Socket } from 'node:net';

export interface TestProxy {
  port: number;
  /** Refuses new connections and cuts those that stand. */
  vanish(): Promise<void>;
  /** Takes connections and bytes and answers nothing: a network that drops packets. */
  hang(): void;
  /** The server of the connections that stand dies without a word; new ones find another in its place. */
  forsake(): void;
  /** Ends either of the first two. */
  comeBack(): Promise<void>;
  close(): Promise<void>;
}

export async function startProxy(host: string, port: number): Promise<TestProxy> {
  const sockets = new Set<Socket>();
  let hanging = false;
  let generation = 0;
  let server: Server | undefined;

  function relay(client: Socket): void {
    const upstream = connect(port, host);
    const since = generation;
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
        if (!hanging && since === generation) to.write(bytes);
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
    forsake() {
      generation += 1;
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
