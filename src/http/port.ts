/** A port of this machine's loopback to listen on. */
import { createServer } from 'node:net';

/** @param wanted taken where it is free; else, and without it, any free port */
export async function freePort(wanted = 0): Promise<number> {
  const tried = wanted === 0 ? 0 : await listenOnce(wanted).catch(() => 0);
  return tried || listenOnce(0);
}

function listenOnce(port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(port, '127.0.0.1', () => {
      const address = probe.address();
      probe.close(() => resolve(address && typeof address === 'object' ? address.port : 0));
    });
  });
}
