/**
 * The environment as a typed configuration. Every variable of the contract is read here and nowhere else; what is
 * wrong comes back as sentences that name the variable and say what to write. Secrets never appear in them.
 */
import { isIP, isIPv4 } from 'node:net';
import { z } from 'zod';
import { parseRedisUrl } from './redis-url.ts';

export type DatabaseConfig =
  | { mode: 'embedded' }
  | {
      mode: 'external';
      /** As the application's role, which owns nothing. */
      appUrl: string;
      systemUrl: string;
      /** Only migrate needs it. */
      ownerUrl?: string;
      /** Past a transaction pooler, for LISTEN. */
      directUrl: string;
      /** Whether a pooler that carries no named statements stands between; absent: to be found out. */
      pooler?: boolean;
    };

export interface Config {
  /** Data folder of the embedded mode, as given. */
  home: string;
  host: string;
  /** 0 takes a free port. */
  port: number;
  /** Under which identity providers and browsers reach this server, without a trailing slash. */
  publicUrl?: string;
  /** Believe X-Forwarded-* of the proxy in front. */
  trustProxy: boolean;
  database: DatabaseConfig;
  redisUrl?: string;
  operatorKey?: string;
  /** 32 bytes; absent in embedded mode, where one is made. */
  encryptionKey?: Buffer;
  /** 32 bytes each; they open what they sealed and seal nothing. */
  decryptionKeys: Buffer[];
  demoTenant: boolean;
  logLevel: string;
  /** Between "not ready" and the last request that is taken, when a process stops. */
  drainSeconds: number;
  /** Applied changes older than this are forgotten. */
  changeRetentionDays: number;
  /** SCIM requests a second that one directory may send to one process; Infinity for no limit. */
  scimRequestsPerSecond: number;
  /** SCIM requests older than this are forgotten; 0 keeps none at all. */
  requestRetentionDays: number;
  /** `address[:port]` of the DNS servers that prove domains; none: those of the machine. */
  dnsServers: string[];
}

export type ConfigResult =
  | { ok: true; config: Config; warnings: string[] }
  | { ok: false; problems: string[]; warnings: string[] };

const postgresUrl = url(
  ['postgres:', 'postgresql:'],
  'postgres://role:password@host:5432/database (percent-encode special characters of the password)',
);
const KEY = /^[A-Za-z0-9+/_-]{43}=?$/;
const flag = z.enum(['0', '1'], { error: 'must be 0 or 1' });

const environment = z.object({
  LOCKSTEP_HOME: z.string().default('.lockstep'),
  LOCKSTEP_HOST: z.string().default('127.0.0.1'),
  LOCKSTEP_PORT: z
    .string()
    .default('8080')
    .superRefine((value, context) => {
      const message = value.startsWith('tcp://')
        ? 'was set by Kubernetes for a Service named "lockstep"; set enableServiceLinks: false in the pod'
        : 'must be a port from 0 to 65535 (0 takes a free one), for example 8080';
      if (!/^\d{1,5}$/.test(value) || Number(value) > 65_535) context.addIssue({ code: 'custom', message });
    }),
  LOCKSTEP_PUBLIC_URL: url(['http:', 'https:'], 'https://lockstep.example.com').optional(),
  LOCKSTEP_TRUST_PROXY: flag.default('0'),
  LOCKSTEP_DATABASE_URL: postgresUrl.optional(),
  LOCKSTEP_OWNER_DATABASE_URL: postgresUrl.optional(),
  LOCKSTEP_SYSTEM_DATABASE_URL: postgresUrl.optional(),
  LOCKSTEP_DIRECT_DATABASE_URL: postgresUrl.optional(),
  LOCKSTEP_DATABASE_POOLER: flag.optional(),
  LOCKSTEP_REDIS_URL: z
    .string()
    .superRefine((value, context) => {
      const parsed = parseRedisUrl(value);
      if (!parsed.ok) context.addIssue({ code: 'custom', message: parsed.error });
    })
    .optional(),
  LOCKSTEP_OPERATOR_KEY: z
    .string()
    .min(16, 'must have at least 16 characters; `openssl rand -base64 32` makes a good one')
    .max(512, 'must have at most 512 characters')
    .optional(),
  LOCKSTEP_ENCRYPTION_KEY: z
    .string()
    .refine((value) => KEY.test(value), {
      error: 'must be 32 bytes in base64; `openssl rand -base64 32` makes one',
    })
    .optional(),
  LOCKSTEP_DECRYPTION_KEYS: z
    .string()
    .default('')
    .transform((value) => value.split(',').flatMap((part) => part.trim() || []))
    .refine((keys) => keys.every((key) => KEY.test(key)), {
      error: 'must be encryption keys (32 bytes in base64 each) with commas between',
    }),
  LOCKSTEP_DEMO_TENANT: flag.optional(),
  LOCKSTEP_LOG_LEVEL: z
    .enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'], {
      error: 'must be trace, debug, info, warn, error, fatal or silent',
    })
    .default('info'),
  LOCKSTEP_DRAIN_SECONDS: z
    .string()
    .regex(/^\d{1,3}$/, 'must be a number of seconds from 0 to 999')
    .optional(),
  LOCKSTEP_CHANGE_RETENTION_DAYS: z
    .string()
    .regex(/^[1-9]\d{0,4}$/, 'must be a number of days from 1 to 99999')
    .default('30'),
  LOCKSTEP_SCIM_REQUESTS_PER_SECOND: z
    .string()
    .regex(/^\d{1,6}$/, 'must be a number of requests a second, or 0 for no limit')
    .default('0'),
  LOCKSTEP_REQUEST_RETENTION_DAYS: z
    .string()
    .regex(/^(0|[1-9]\d{0,4})$/, 'must be a number of days from 0 (no request log) to 99999')
    .default('7'),
  LOCKSTEP_DNS_SERVERS: z
    .string()
    .default('')
    .transform((value) => value.split(',').flatMap((part) => part.trim() || []))
    .refine((servers) => servers.every(isServer), {
      error: 'must be IP addresses of DNS servers with commas between, each with its port if it is not 53',
    }),
});
type Environment = z.infer<typeof environment>;

export type Purpose = 'start' | 'migrate' | 'look';

/**
 * @param purpose `migrate` needs the owner's URL and no encryption key, `look` (commands that only read) neither
 */
export function readConfig(env: NodeJS.ProcessEnv, purpose: Purpose = 'start'): ConfigResult {
  const given = Object.fromEntries(
    Object.entries(env).filter(([name, value]) => name.startsWith('LOCKSTEP_') && value?.trim()),
  );
  const warnings = Object.keys(given)
    .filter((name) => !(name in environment.shape) && !/^LOCKSTEP_(TEST_|SERVICE_|PORT_)/.test(name))
    .map((name) => `${name} means nothing to Lockstep; is it misspelt?`);
  const parsed = environment.safeParse(given);
  if (!parsed.success) {
    const problems = parsed.error.issues.map((issue) => `${String(issue.path[0])} ${issue.message}.`);
    return { ok: false, problems, warnings };
  }
  const problems = missing(parsed.data, purpose);
  if (problems.length > 0) return { ok: false, problems, warnings };
  return { ok: true, config: assemble(parsed.data, env), warnings };
}

function missing(env: Environment, purpose: Purpose): string[] {
  const problems: string[] = [];
  if (!env.LOCKSTEP_DATABASE_URL) {
    for (const name of ['LOCKSTEP_OWNER_DATABASE_URL', 'LOCKSTEP_SYSTEM_DATABASE_URL'] as const) {
      if (env[name]) {
        problems.push(
          `${name} is set but LOCKSTEP_DATABASE_URL is not. Set it to the same database as the application's role, ` +
            'or unset both to use the embedded PostgreSQL.',
        );
      }
    }
    return problems;
  }
  if (!env.LOCKSTEP_SYSTEM_DATABASE_URL) {
    problems.push(
      'LOCKSTEP_SYSTEM_DATABASE_URL is not set. With LOCKSTEP_DATABASE_URL it is needed: the same database as the ' +
        'system role (sweeper, metrics), a plain login role that owns nothing.',
    );
  }
  if (purpose === 'migrate' && !env.LOCKSTEP_OWNER_DATABASE_URL) {
    problems.push(
      'LOCKSTEP_OWNER_DATABASE_URL is not set. "lockstep migrate" needs it: the same database as the role that ' +
        'owns the schema.',
    );
  }
  if (purpose === 'start' && !env.LOCKSTEP_ENCRYPTION_KEY) {
    problems.push(
      'LOCKSTEP_ENCRYPTION_KEY is not set. With LOCKSTEP_DATABASE_URL it is needed, the same for every process of ' +
        'this database: 32 bytes in base64; `openssl rand -base64 32` makes one.',
    );
  }
  return problems;
}

/** So long Kubernetes may go on sending requests to a pod that it stops. */
const KUBERNETES_DRAIN_SECONDS = '5';

function assemble(env: Environment, machine: NodeJS.ProcessEnv): Config {
  const app = env.LOCKSTEP_DATABASE_URL;
  const database: DatabaseConfig =
    app && env.LOCKSTEP_SYSTEM_DATABASE_URL
      ? {
          mode: 'external',
          appUrl: app,
          systemUrl: env.LOCKSTEP_SYSTEM_DATABASE_URL,
          directUrl: env.LOCKSTEP_DIRECT_DATABASE_URL ?? app,
          ...(env.LOCKSTEP_DATABASE_POOLER ? { pooler: env.LOCKSTEP_DATABASE_POOLER === '1' } : {}),
          ...(env.LOCKSTEP_OWNER_DATABASE_URL ? { ownerUrl: env.LOCKSTEP_OWNER_DATABASE_URL } : {}),
        }
      : { mode: 'embedded' };
  return {
    home: env.LOCKSTEP_HOME,
    host: env.LOCKSTEP_HOST,
    port: Number(env.LOCKSTEP_PORT),
    trustProxy: env.LOCKSTEP_TRUST_PROXY === '1',
    database,
    demoTenant: (env.LOCKSTEP_DEMO_TENANT ?? (database.mode === 'embedded' ? '1' : '0')) === '1',
    logLevel: env.LOCKSTEP_LOG_LEVEL,
    drainSeconds: Number(
      env.LOCKSTEP_DRAIN_SECONDS ?? (machine.KUBERNETES_SERVICE_HOST ? KUBERNETES_DRAIN_SECONDS : '0'),
    ),
    changeRetentionDays: Number(env.LOCKSTEP_CHANGE_RETENTION_DAYS),
    scimRequestsPerSecond: Number(env.LOCKSTEP_SCIM_REQUESTS_PER_SECOND) || Number.POSITIVE_INFINITY,
    requestRetentionDays: Number(env.LOCKSTEP_REQUEST_RETENTION_DAYS),
    dnsServers: env.LOCKSTEP_DNS_SERVERS,
    decryptionKeys: env.LOCKSTEP_DECRYPTION_KEYS.map((key) => Buffer.from(key, 'base64')),
    ...(env.LOCKSTEP_PUBLIC_URL ? { publicUrl: env.LOCKSTEP_PUBLIC_URL.replace(/\/+$/, '') } : {}),
    ...(env.LOCKSTEP_REDIS_URL ? { redisUrl: env.LOCKSTEP_REDIS_URL } : {}),
    ...(env.LOCKSTEP_OPERATOR_KEY ? { operatorKey: env.LOCKSTEP_OPERATOR_KEY } : {}),
    ...(env.LOCKSTEP_ENCRYPTION_KEY
      ? { encryptionKey: Buffer.from(env.LOCKSTEP_ENCRYPTION_KEY, 'base64') }
      : {}),
  };
}

/** `192.0.2.1`, `192.0.2.1:5353`, `[2001:db8::1]:5353`, `2001:db8::1`. */
function isServer(value: string): boolean {
  const bare = /^\[(.+)\](:\d{1,5})?$/.exec(value)?.[1] ?? value;
  return isIP(bare) !== 0 || isIPv4(bare.replace(/:\d{1,5}$/, ''));
}

function url(protocols: string[], example: string) {
  return z.string().refine((value) => URL.canParse(value) && protocols.includes(new URL(value).protocol), {
    error: `is not a URL of the form ${example}`,
  });
}
