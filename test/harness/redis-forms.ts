/**
 * Redis as it is run for real: a pair with a sentinel, a cluster, one server, each of `redis-server`s. `secured`: every
 * connection by TLS, between the servers too, and only named users come in.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ConnectionOptions } from 'node:tls';
import { Redis } from 'ioredis';
import forge from 'node-forge';
import { freePort } from '../../src/http/port.ts';
import { startServer } from './redis.ts';

export interface SentinelPair {
  /** Of LOCKSTEP_REDIS_URL. */
  url: string;
  /** Ends the master for good, and resolves when the replica has taken its place. */
  failOver(): Promise<void>;
  stop(): Promise<void>;
}

/** Passwords for data and for the sentinel, full of what a URL must have encoded. */
export async function startSentinelPair(secured = false): Promise<SentinelPair> {
  const [secret, sentinelSecret] = ['d@ta:/#', 's€ntinel?&'];
  const folder = mkdtempSync(join(tmpdir(), 'lockstep-sentinel-'));
  const tls = secured ? tlsFiles(folder) : undefined;
  const [username, sentinelUsername] = secured ? ['l@ckstep', 'sentry'] : [undefined, undefined];
  const auth = username
    ? [...onlyUser(username, secret), '--masteruser', username, '--masterauth', secret]
    : ['--requirepass', secret, '--masterauth', secret];
  const data = [...auth, ...(tls ? ['--tls-replication', 'yes'] : [])];
  const serve = async (...args: string[]) => {
    const port = await freePort();
    return startServer([...data, ...args, ...(tls?.args(port) ?? [])], port);
  };
  const client = { ...(username ? { username } : {}), password: secret, ...tls?.client };
  const first = await serve();
  const second = await serve('--replicaof', `127.0.0.1 ${first.port}`);
  const replica = new Redis({ ...client, host: '127.0.0.1', port: second.port });
  await linked(replica);
  const port = await freePort();
  const file = join(folder, 'sentinel.conf');
  const lines = [
    ...(tls ? tls.lines(port) : [`port ${port}`]),
    'bind 127.0.0.1',
    `dir ${folder}`,
    ...(sentinelUsername
      ? [`user ${sentinelUsername} on >${sentinelSecret} ~* &* +@all`, 'user default off']
      : [`requirepass "${sentinelSecret}"`]),
    `sentinel monitor lockstep-main 127.0.0.1 ${first.port} 1`,
    ...(username ? [`sentinel auth-user lockstep-main ${username}`] : []),
    `sentinel auth-pass lockstep-main ${secret}`,
    'sentinel down-after-milliseconds lockstep-main 500',
    'sentinel failover-timeout lockstep-main 3000',
  ];
  writeFileSync(file, `${lines.join('\n')}\n`);
  const sentinel = spawn('redis-server', [file, '--sentinel'], { stdio: 'ignore' });
  const kill = () => sentinel.kill('SIGKILL');
  process.once('exit', kill);
  const told = new Redis({
    host: '127.0.0.1',
    port,
    password: sentinelSecret,
    ...(sentinelUsername ? { username: sentinelUsername } : {}),
    ...tls?.client,
  });
  told.on('error', () => {});
  // It knows of the replica before anything is ended.
  for (;;) {
    const found = (await told.call('sentinel', 'replicas', 'lockstep-main').catch(() => [])) as unknown[];
    if (found.length === 1) break;
  }
  const parameters = [
    ...(sentinelUsername ? [`sentinelUsername=${sentinelUsername}`] : []),
    `sentinelPassword=${encodeURIComponent(sentinelSecret)}`,
    ...(tls ? [`ca=${encodeURIComponent(tls.ca)}`] : []),
  ];
  const user = `${encodeURIComponent(username ?? '')}:${encodeURIComponent(secret)}`;
  const url = `${tls ? 'rediss' : 'redis'}+sentinel://${user}@127.0.0.1:${port}/lockstep-main?${parameters.join('&')}`;
  return {
    url,
    async failOver() {
      const pubsub = told.duplicate();
      const promoted = new Promise<void>((resolve) => pubsub.once('message', () => resolve()));
      await pubsub.subscribe('+switch-master');
      await first.stop();
      await promoted;
      pubsub.disconnect();
    },
    async stop() {
      process.off('exit', kill);
      told.disconnect();
      replica.disconnect();
      kill();
      await Promise.all([first.stop(), second.stop()]);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Nobody else comes in, not even without a name. */
function onlyUser(name: string, password: string): string[] {
  return ['--user', name, 'on', `>${password}`, '~*', '&*', '+@all', '--user', 'default', 'off'];
}

async function linked(replica: Redis): Promise<void> {
  while (!/^master_link_status:up/m.test(await replica.info('replication'))) {}
}

export interface RedisCluster {
  url: string;
  /** Ends the master that has the slot of a key; without replicas the cluster has no other for it. */
  endMasterOf(key: string): Promise<void>;
  /** Starts the one that was ended again. */
  restart(): Promise<void>;
  /** Resolves when every write so far is on the replica too. */
  replicated(key: string): Promise<void>;
  stop(): Promise<void>;
}

const SLOTS = 16_384;
const MASTERS = 3;

/** @param replicaOf a key whose master gets a replica */
export async function startRedisCluster(
  options: { secured?: boolean; replicaOf?: string } = {},
): Promise<RedisCluster> {
  const { secured = false, replicaOf } = options;
  const folder = mkdtempSync(join(tmpdir(), 'lockstep-cluster-'));
  const tls = secured ? tlsFiles(folder) : undefined;
  const [username, password] = ['lockstep', 'cl#ster/:'];
  const busPorts = new Map<number, number>();
  const args = (port: number) => [
    ...['--cluster-enabled', 'yes', '--cluster-config-file', join(folder, `${port}.conf`)],
    ...['--cluster-node-timeout', '2000', '--cluster-port', `${busPorts.get(port)}`],
    ...(secured ? [...onlyUser(username, password), '--masteruser', username, '--masterauth', password] : []),
    ...(tls ? [...tls.args(port), '--tls-cluster', 'yes', '--tls-replication', 'yes'] : []),
  ];
  const nodes: { port: number; stop(): Promise<void> }[] = [];
  for (let n = 0; n < MASTERS + (replicaOf ? 1 : 0); n += 1) {
    const port = await freePort();
    busPorts.set(port, await freePort());
    nodes.push(await startServer(args(port), port));
  }
  const access = { ...(secured ? { username, password } : {}), ...tls?.client };
  const clients = nodes.map(
    (node) => new Redis({ ...access, host: '127.0.0.1', port: node.port, retryStrategy: () => 50 }),
  );
  for (const client of clients) client.on('error', () => {});
  const [lead] = clients;
  if (!lead) throw new Error('no node');
  for (const [n, client] of clients.entries()) {
    const [from, to] = [Math.ceil((n * SLOTS) / MASTERS), Math.ceil(((n + 1) * SLOTS) / MASTERS) - 1];
    if (n < MASTERS) await client.call('cluster', 'addslotsrange', `${from}`, `${to}`);
    const port = nodes[n]?.port ?? 0;
    if (n > 0) await lead.call('cluster', 'meet', '127.0.0.1', `${port}`, `${busPorts.get(port)}`);
  }
  const healthy = async () => {
    for (const client of clients) {
      while (!/cluster_state:ok/.test(`${await client.call('cluster', 'info').catch(() => '')}`)) {}
    }
  };
  await healthy();
  const masterOf = async (key: string) =>
    Math.floor((Number(await lead.call('cluster', 'keyslot', key)) * MASTERS) / SLOTS);
  const replica = clients[MASTERS];
  if (replicaOf && replica) {
    const id = `${await clients[await masterOf(replicaOf)]?.call('cluster', 'myid')}`;
    // It may not have heard of that one yet.
    while ((await replica.call('cluster', 'replicate', id).catch(() => '')) !== 'OK') {}
    await linked(replica);
    // Nor the others of its being one, and they elect it.
    for (const client of clients)
      while (!`${await client.call('cluster', 'nodes')}`.includes(`slave ${id} `)) {}
  }
  let ended: number | undefined;
  const scheme = tls ? 'rediss' : 'redis';
  const user = secured ? `${username}:${encodeURIComponent(password)}@` : '';
  const hosts = nodes.map((node) => `127.0.0.1:${node.port}`).join(',');
  return {
    url: `${scheme}+cluster://${user}${hosts}${tls ? `?ca=${encodeURIComponent(tls.ca)}` : ''}`,
    async endMasterOf(key) {
      ended = await masterOf(key);
      await nodes[ended]?.stop();
    },
    async restart() {
      const port = ended === undefined ? 0 : (nodes[ended]?.port ?? 0);
      if (ended !== undefined) nodes[ended] = await startServer(args(port), port);
      await healthy();
    },
    async replicated(key) {
      const master = clients[await masterOf(key)];
      const offset = async (of: Redis | undefined, field: string) =>
        Number(new RegExp(`^${field}:(\\d+)`, 'm').exec(`${await of?.info('replication')}`)?.[1]);
      const written = await offset(master, 'master_repl_offset');
      while ((await offset(replica, 'slave_repl_offset')) < written) {}
    },
    async stop() {
      for (const client of clients) client.disconnect();
      await Promise.all(nodes.map((node) => node.stop()));
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

export interface TlsRedis {
  /** Without parameters. */
  url: string;
  /** PEM file of the authority that signed its certificate. */
  ca: string;
  stop(): Promise<void>;
}

export async function startTlsRedis(): Promise<TlsRedis> {
  const folder = mkdtempSync(join(tmpdir(), 'lockstep-tls-'));
  const { ca, args } = tlsFiles(folder);
  const port = await freePort();
  const redis = await startServer(args(port), port);
  return {
    url: `rediss://127.0.0.1:${port}`,
    ca,
    async stop() {
      await redis.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

interface TlsFiles {
  /** PEM file of the authority. */
  ca: string;
  /** Of a `redis-server` that takes nothing but TLS. */
  args(port: number): string[];
  /** The same in a configuration file. */
  lines(port: number): string[];
  client: { tls: ConnectionOptions };
}

/** An authority of the test's own, and a server's certificate that it signed. */
function tlsFiles(folder: string): TlsFiles {
  const authority = certificate('Test authority');
  const server = certificate('redis', authority);
  const file = (name: string, content: string) => {
    const path = join(folder, name);
    writeFileSync(path, content);
    return path;
  };
  const ca = file('ca.pem', authority.pem);
  const settings = (port: number): [string, string][] => [
    ['port', '0'],
    ['tls-port', `${port}`],
    ['tls-cert-file', cert],
    ['tls-key-file', key],
    ['tls-ca-cert-file', ca],
    ['tls-auth-clients', 'no'],
  ];
  const cert = file('server.pem', server.pem);
  const key = file('server.key', forge.pki.privateKeyToPem(server.keys.privateKey));
  return {
    ca,
    args: (port) => settings(port).flatMap(([name, value]) => [`--${name}`, value]),
    lines: (port) => [...settings(port).map((pair) => pair.join(' ')), 'tls-replication yes'],
    client: { tls: { ca: authority.pem } },
  };
}

interface Signed {
  pem: string;
  keys: forge.pki.rsa.KeyPair;
  subject: forge.pki.CertificateField[];
}

/** For 127.0.0.1, a day; of its own signing where no authority is given. */
function certificate(name: string, authority?: Signed): Signed {
  const keys = forge.pki.rsa.generateKeyPair(2048);
  const made = forge.pki.createCertificate();
  const subject = [{ name: 'commonName', value: name }];
  made.publicKey = keys.publicKey;
  made.serialNumber = authority ? '02' : '01';
  made.validity.notBefore = new Date(Date.now() - 60_000);
  made.validity.notAfter = new Date(Date.now() + 86_400_000);
  made.setSubject(subject);
  made.setIssuer(authority?.subject ?? subject);
  made.setExtensions(
    authority
      ? [{ name: 'subjectAltName', altNames: [{ type: 7, ip: '127.0.0.1' }] }]
      : [{ name: 'basicConstraints', cA: true }],
  );
  made.sign((authority?.keys ?? keys).privateKey, forge.md.sha256.create());
  return { pem: forge.pki.certificateToPem(made), keys, subject };
}
