/** Redis as it is run for real: a pair with a sentinel, a cluster of three masters, behind TLS. Each of `redis-server`s. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import forge from 'node-forge';
import { freePort } from '../../src/http/port.ts';
import { startServer } from './redis.ts';

export interface SentinelPair {
  /** Of LOCKSTEP_REDIS_URL. */
  url: string;
  /** Ends the master for good, and resolves when the replica has taken its place. */
  failOver(): Promise<void>;
  /** A client of whoever is master now; the caller ends it. */
  master(): Redis;
  stop(): Promise<void>;
}

/** Passwords for data and for the sentinel, full of what a URL must have encoded. */
export async function startSentinelPair(): Promise<SentinelPair> {
  const [secret, sentinelSecret] = ['d@ta:/#', 's€ntinel?&'];
  const auth = ['--requirepass', secret, '--masterauth', secret];
  const first = await startServer(auth);
  const second = await startServer([...auth, '--replicaof', `127.0.0.1 ${first.port}`]);
  const replica = new Redis({ port: second.port, password: secret });
  await linked(replica);
  const folder = mkdtempSync(join(tmpdir(), 'lockstep-sentinel-'));
  const port = await freePort();
  const file = join(folder, 'sentinel.conf');
  const lines = [
    `port ${port}`,
    'bind 127.0.0.1',
    `dir ${folder}`,
    `requirepass "${sentinelSecret}"`,
    `sentinel monitor lockstep-main 127.0.0.1 ${first.port} 1`,
    `sentinel auth-pass lockstep-main ${secret}`,
    'sentinel down-after-milliseconds lockstep-main 500',
    'sentinel failover-timeout lockstep-main 3000',
  ];
  writeFileSync(file, `${lines.join('\n')}\n`);
  const sentinel = spawn('redis-server', [file, '--sentinel'], { stdio: 'ignore' });
  const kill = () => sentinel.kill('SIGKILL');
  process.once('exit', kill);
  const told = new Redis({ port, password: sentinelSecret });
  told.on('error', () => {});
  // It knows of the replica before anything is ended.
  for (;;) {
    const found = (await told.call('sentinel', 'replicas', 'lockstep-main').catch(() => [])) as unknown[];
    if (found.length === 1) break;
  }
  const url =
    `redis+sentinel://:${encodeURIComponent(secret)}@127.0.0.1:${port}/lockstep-main?` +
    `sentinelPassword=${encodeURIComponent(sentinelSecret)}`;
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
    master: () =>
      new Redis({
        sentinels: [{ host: '127.0.0.1', port }],
        name: 'lockstep-main',
        password: secret,
        sentinelPassword: sentinelSecret,
      }),
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

async function linked(replica: Redis): Promise<void> {
  while (!/^master_link_status:up/m.test(await replica.info('replication'))) {}
}

export interface RedisCluster {
  url: string;
  /** Ends the master that has the slot of a key; the cluster has no other for it. */
  endMasterOf(key: string): Promise<void>;
  /** Starts the one that was ended again. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

const SLOTS = 16_384;

export async function startRedisCluster(): Promise<RedisCluster> {
  const folder = mkdtempSync(join(tmpdir(), 'lockstep-cluster-'));
  const args = (port: number) => [
    '--cluster-enabled',
    'yes',
    '--cluster-config-file',
    join(folder, `${port}.conf`),
    '--cluster-node-timeout',
    '2000',
    '--cluster-port',
    `${busPorts.get(port)}`,
  ];
  const busPorts = new Map<number, number>();
  const nodes: { port: number; stop(): Promise<void> }[] = [];
  for (let n = 0; n < 3; n += 1) {
    const port = await freePort();
    busPorts.set(port, await freePort());
    nodes.push(await startServer(args(port), port));
  }
  const clients = nodes.map((node) => new Redis({ port: node.port, retryStrategy: () => 50 }));
  for (const client of clients) client.on('error', () => {});
  const [lead] = clients;
  if (!lead) throw new Error('no node');
  for (const [n, client] of clients.entries()) {
    const [from, to] = [Math.ceil((n * SLOTS) / 3), Math.ceil(((n + 1) * SLOTS) / 3) - 1];
    await client.call('cluster', 'addslotsrange', `${from}`, `${to}`);
    const port = nodes[n]?.port ?? 0;
    if (n > 0) await lead.call('cluster', 'meet', '127.0.0.1', `${port}`, `${busPorts.get(port)}`);
  }
  const healthy = async () => {
    for (const client of clients) {
      while (!/cluster_state:ok/.test(`${await client.call('cluster', 'info').catch(() => '')}`)) {}
    }
  };
  await healthy();
  let ended: number | undefined;
  return {
    url: `redis+cluster://${nodes.map((node) => `127.0.0.1:${node.port}`).join(',')}`,
    async endMasterOf(key) {
      const slot = Number(await lead.call('cluster', 'keyslot', key));
      ended = Math.floor((slot * 3) / SLOTS);
      await nodes[ended]?.stop();
    },
    async restart() {
      const port = ended === undefined ? 0 : (nodes[ended]?.port ?? 0);
      if (ended !== undefined) nodes[ended] = await startServer(args(port), port);
      await healthy();
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
  const authority = certificate('Test authority');
  const server = certificate('redis', authority);
  const file = (name: string, content: string) => {
    const path = join(folder, name);
    writeFileSync(path, content);
    return path;
  };
  const ca = file('ca.pem', authority.pem);
  const port = await freePort();
  const redis = await startServer(
    [
      '--tls-port',
      `${port}`,
      '--tls-cert-file',
      file('server.pem', server.pem),
      '--tls-key-file',
      file('server.key', forge.pki.privateKeyToPem(server.keys.privateKey)),
      '--tls-ca-cert-file',
      ca,
      '--tls-auth-clients',
      'no',
    ],
    await freePort(),
  );
  return {
    url: `rediss://127.0.0.1:${port}`,
    ca,
    async stop() {
      await redis.stop();
      rmSync(folder, { recursive: true, force: true });
    },
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
