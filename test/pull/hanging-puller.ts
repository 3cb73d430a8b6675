/** A process that pulls a directory and hangs at a page, to be killed there. Told by its environment; says when it hangs. */

import { join } from 'node:path';
import { openConnectors } from '../../connectors/connectors.ts';
import { openCredentials } from '../../src/credential/credential.ts';
import { openSeals } from '../../src/credential/seal.ts';
import { openDatabase } from '../../src/database/database.ts';
import { openPulls } from '../../src/pull/pull.ts';
import { Source, sources } from './connectors/scripted/connector.ts';

const told = JSON.parse(process.env.PULLER ?? '{}') as {
  appUrl: string;
  systemUrl: string;
  key: string;
  directoryId: string;
  source: string;
  users: string[];
  hangAt: number;
  leaseMs: number;
};
const db = await openDatabase({ appUrl: told.appUrl, systemUrl: told.systemUrl });
const source = new Source();
sources.set(told.source, source);
for (const id of told.users) source.put(id, `name-${id}`);
source.beforePage = (page) => {
  if (page !== told.hangAt) return;
  process.stdout.write('hangs\n');
  return new Promise(() => {});
};
const pulls = openPulls({
  db,
  credentials: openCredentials(openSeals(Buffer.from(told.key, 'base64')), Buffer.alloc(32)),
  connectors: openConnectors(join(import.meta.dirname, 'connectors')),
  observer: { run: () => {}, call: () => {} },
  onWritten: () => {},
  onError: (_what, error) => process.stdout.write(`failed ${String(error)}\n`),
  limits: { leaseMs: told.leaseMs },
});
setInterval(() => {}, 1_000);
await pulls.turn(told.directoryId, new AbortController().signal);
process.stdout.write('done\n');
