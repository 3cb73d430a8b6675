/**
 * The way to Redis: one server, the master that sentinels name, or a cluster, each with connections that fail fast. And
 * whether that Redis is one that a queue may stand on.
 */
import { readFileSync } from 'node:fs';
import { Cluster, type DNSLookupFunction, Redis, type RedisOptions } from 'ioredis';
import { parseRedisUrl, type RedisAddress } from '../config/redis-url.ts';

export type RedisClient = Redis | Cluster;
/** With a mapping of replies the types of all commands would be others. */
type Options = Omit<RedisOptions, 'replyMapping'>;

// A certificate is for the name that was given, not for the address that it resolves to.
const asGiven: DNSLookupFunction = (name, done) => done(null, name);

const CONNECT_MS = 2_000;
const COMMAND_MS = 3_000;
/** A server that died without a word ends no connection. Above the 10 s for which BullMQ's workers wait in a command. */
const SILENT_MS = { ask: 5_000, block: 13_000 };
const retryStrategy = (times: number) => Math.min(100 * times, 1_000);

/** A master that was demoted under a connection that stands: what is behind the name now is another server. */
const reconnectOnError = (error: Error) => error.message.includes('READONLY');

/**
 * @param purpose `ask`: a command that cannot be sent now fails, and is never kept in memory. `block`: for BullMQ's
 *   workers, which wait in a command and must not be told that it takes long
 * @throws Error with words when a file that the URL names cannot be read
 */
export function connectRedis(url: string, purpose: 'ask' | 'block'): RedisClient {
  const parsed = parseRedisUrl(url);
  if (!parsed.ok) throw new Error(`The URL of Redis ${parsed.error}.`);
  const { address } = parsed;
  const asks = purpose === 'ask';
  const common: Options = {
    ...(address.username ? { username: address.username } : {}),
    ...(address.password ? { password: address.password } : {}),
    ...(address.family ? { family: address.family } : {}),
    ...(address.tls ? { tls: tlsOptions(address.tls) } : {}),
    connectTimeout: CONNECT_MS,
    socketTimeout: SILENT_MS[purpose],
    maxRetriesPerRequest: asks ? 1 : null,
    ...(asks ? { commandTimeout: COMMAND_MS } : {}),
    reconnectOnError,
  };
  const client =
    address.kind === 'cluster'
      ? new Cluster(address.hosts, clusterOptions(address, common, asks))
      : new Redis({
          ...common,
          ...whereIs(address),
          db: address.database,
          retryStrategy,
          ...(asks ? { enableOfflineQueue: false, autoResendUnfulfilledCommands: false } : {}),
        });
  // Every failed attempt is told to whoever sent the command; unheard, it would be printed.
  client.on('error', () => {});
  return client;
}

function whereIs(address: RedisAddress): Options {
  const { sentinel, tls, hosts } = address;
  if (!sentinel) return { ...hosts[0] };
  return {
    sentinels: hosts,
    name: sentinel.master,
    ...(sentinel.username ? { sentinelUsername: sentinel.username } : {}),
    ...(sentinel.password ? { sentinelPassword: sentinel.password } : {}),
    sentinelRetryStrategy: retryStrategy,
    sentinelCommandTimeout: CONNECT_MS,
    ...(tls ? { enableTLSForSentinelMode: true, sentinelTLS: tlsOptions(tls) } : {}),
  };
}

function clusterOptions(address: RedisAddress, common: Options, asks: boolean) {
  return {
    redisOptions: common,
    clusterRetryStrategy: retryStrategy,
    slotsRefreshTimeout: CONNECT_MS,
    // A master that went away in silence is found out, and its slots' new owner with it.
    slotsRefreshInterval: 5_000,
    enableOfflineQueue: !asks,
    ...(address.tls ? { dnsLookup: asGiven } : {}),
  };
}

function tlsOptions(tls: NonNullable<RedisAddress['tls']>): NonNullable<RedisOptions['tls']> {
  return {
    ...(tls.ca ? { ca: pem(tls.ca) } : {}),
    ...(tls.cert ? { cert: pem(tls.cert) } : {}),
    ...(tls.key ? { key: pem(tls.key) } : {}),
    ...(tls.servername ? { servername: tls.servername } : {}),
    rejectUnauthorized: !tls.insecure,
  };
}

function pem(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new Error(`A file that the URL of Redis names cannot be read (${(error as Error).message}).`);
  }
}

export type Fitness =
  | { state: 'fit' }
  /** It must not be used as it is, or does not let us in. */
  | { state: 'unfit'; words: string }
  /** It may be used, but a person should look. */
  | { state: 'unknown'; words: string }
  | { state: 'away'; words: string };

const REFUSES = /^(NOAUTH|WRONGPASS|NOPERM|ERR invalid password|ERR AUTH|ERR DB index)/;
const UNTRUSTED = /certificate|self-signed|altnames|wrong version number|SSL|TLS/i;

/** Asks each server that takes writes whether it may drop keys when it is full. Never throws; takes 5 seconds at most. */
export async function examineRedis(url: string): Promise<Fitness> {
  const clients: RedisClient[] = [];
  try {
    const client = connectRedis(url, 'ask');
    clients.push(client, ...clientsOfEach(url));
    const [way, ...each] = clients.map(opened);
    // Of sentinels and of a cluster's nodes a client says only, and late, that none could be reached.
    const whyNone = Promise.all(each).then((whys) =>
      whys.length > 0 && whys.every((why) => why && isRefusal(why)) ? whys[0] : way,
    );
    const why = await Promise.race([way, whyNone]);
    if (!why) return await fitness(client);
    const whys = [why, ...(await Promise.all(each))].filter((reason) => reason !== undefined);
    const refusal = whys.find(refuses) ?? whys.find(isUntrusted);
    const message = (refusal ?? why).message || String(why);
    const words = `Redis ${refusal && refuses(refusal) ? 'refuses the connection' : 'does not answer'} (${message}). See LOCKSTEP_REDIS_URL.`;
    return { state: refusal ? 'unfit' : 'away', words };
  } catch (error) {
    const { message } = error as Error;
    if (clients.length === 0) return { state: 'unfit', words: message };
    return refuses(error as Error)
      ? { state: 'unfit', words: `Redis refuses what a queue needs (${message}). See LOCKSTEP_REDIS_URL.` }
      : { state: 'away', words: `Redis does not answer (${message}). See LOCKSTEP_REDIS_URL.` };
  } finally {
    for (const client of clients) client.disconnect();
  }
}

const refuses = ({ message }: Error) => REFUSES.test(message);
const isUntrusted = ({ message }: Error) => UNTRUSTED.test(message);
const isRefusal = (error: Error) => refuses(error) || isUntrusted(error);

/** One to each server that the URL names, by itself; none where it names only one. */
function clientsOfEach(url: string): Redis[] {
  const parsed = parseRedisUrl(url);
  if (!parsed.ok || parsed.address.kind === 'single') return [];
  const { hosts, sentinel, tls, family, ...data } = parsed.address;
  const { username, password } = sentinel ?? data;
  return hosts.map((host) => {
    const client = new Redis({
      ...host,
      ...(username ? { username } : {}),
      ...(password ? { password } : {}),
      ...(family ? { family } : {}),
      ...(tls ? { tls: tlsOptions(tls) } : {}),
      connectTimeout: CONNECT_MS,
      enableReadyCheck: false,
    });
    client.on('error', () => {});
    return client;
  });
}

/** @returns why it could not be opened; undefined when it is open */
function opened(client: RedisClient): Promise<Error | undefined> {
  return new Promise((resolve) => {
    let why = new Error('no answer');
    const late = setTimeout(() => resolve(why), CONNECT_MS + 1_000);
    client.once('ready', () => {
      clearTimeout(late);
      resolve(undefined);
    });
    client.on('error', (error: Error & { lastNodeError?: Error }) => {
      why = error.lastNodeError ?? error;
      if (!isRefusal(why)) return;
      clearTimeout(late);
      resolve(why);
    });
  });
}

/** @throws Error when it stops answering */
export async function fitness(client: RedisClient): Promise<Fitness> {
  const servers = client instanceof Cluster ? client.nodes('master') : [client];
  for (const server of servers) {
    const policy = await evictionPolicy(server);
    const at = client instanceof Cluster ? ` at ${server.options.host}:${server.options.port}` : '';
    if (policy === 'secret') {
      return {
        state: 'unfit',
        words:
          `Redis${at} does not let this user ask INFO, without which BullMQ does not open a queue. Allow it ` +
          '("ACL SETUSER name +info"), or name another user in LOCKSTEP_REDIS_URL.',
      };
    }
    if (policy === undefined) {
      return {
        state: 'unknown',
        words: `Redis${at} does not say its maxmemory-policy (INFO has none, CONFIG GET is refused). See to it that it is noeviction.`,
      };
    }
    if (policy !== 'noeviction') {
      return {
        state: 'unfit',
        words:
          `Redis${at} has the maxmemory-policy ${policy}, so when it is full it drops wake-ups and schedules. Set it to ` +
          'noeviction ("CONFIG SET maxmemory-policy noeviction" and in redis.conf, or in the parameter group of a managed Redis).',
      };
    }
  }
  return { state: 'fit' };
}

/** Managed servers forbid CONFIG. @returns `secret` where INFO is forbidden */
async function evictionPolicy(server: Redis): Promise<string | undefined> {
  const told = await server.info('memory').catch(onlyWhenRefused);
  if (told === undefined) return 'secret';
  const found = /^maxmemory_policy:(\S+)/m.exec(told)?.[1];
  if (found) return found;
  const config = await server.config('GET', 'maxmemory-policy').catch(onlyWhenRefused);
  return Array.isArray(config) && typeof config[1] === 'string' ? config[1] : undefined;
}

function onlyWhenRefused(error: Error): undefined {
  if (!/^(NOPERM|ERR)/.test(error.message)) throw error;
}
