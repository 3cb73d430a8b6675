/**
 * LOCKSTEP_REDIS_URL in all its forms. With `rediss` instead of `redis` the connection is encrypted.
 *
 *     redis://[user:password@]host[:6379][/database]
 *     redis+sentinel://[user:password@]host[:26379],host[:26379]…/master-name[/database]
 *     redis+cluster://[user:password@]host[:6379],host[:6379]…
 *
 * User and password are those of the data servers, percent-encoded. Parameters: `sentinelUsername`,
 * `sentinelPassword`; with TLS `ca`, `cert` and `key` (PEM files), `servername`, and `insecure=1` (no certificate is
 * checked); `family` (4 or 6).
 */

export interface RedisAddress {
  kind: 'single' | 'sentinel' | 'cluster';
  /** One of a single server; of Sentinel the sentinels. */
  hosts: { host: string; port: number }[];
  username?: string;
  password?: string;
  /** Never of a cluster, which has only one. */
  database: number;
  sentinel?: { master: string; username?: string; password?: string };
  tls?: { ca?: string; cert?: string; key?: string; servername?: string; insecure: boolean };
  family?: 4 | 6;
}

export type RedisAddressResult = { ok: true; address: RedisAddress } | { ok: false; error: string };

const FORM =
  /^(rediss?)(?:\+(sentinel|cluster))?:\/\/(?:([^@/?#]*)@)?([^@/?#]+)(?:\/([^?#]*))?(?:\?([^#]*))?$/;
const HOST = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?$/;
const TLS_ONLY = ['ca', 'cert', 'key', 'servername', 'insecure'];
const PARAMETERS = new Set([...TLS_ONLY, 'sentinelUsername', 'sentinelPassword', 'family']);

/** @returns words for a person that never hold a part of the URL that could be a secret */
export function parseRedisUrl(url: string): RedisAddressResult {
  const refused = (error: string): RedisAddressResult => ({ ok: false, error });
  const match = FORM.exec(url);
  if (!match) {
    return refused(
      'is not a URL of the form redis://user:password@host:6379, redis+sentinel://host:26379,host:26379/master-name or ' +
        'redis+cluster://host:6379,host:6379, with rediss for TLS (percent-encode special characters of the password)',
    );
  }
  const [, scheme, form, userinfo, authority = '', path = '', search = ''] = match;
  const kind = (form ?? 'single') as RedisAddress['kind'];
  const hosts: RedisAddress['hosts'] = [];
  for (const part of authority.split(',')) {
    const [, v6, name, port] = HOST.exec(part) ?? [];
    const number = Number(port ?? (kind === 'sentinel' ? 26_379 : 6_379));
    if (!(v6 ?? name) || number < 1 || number > 65_535) {
      return refused('names a host that is none; write host:port, with commas between several');
    }
    hosts.push({ host: v6 ?? name ?? '', port: number });
  }
  if (kind === 'single' && hosts.length > 1) {
    return refused('names several hosts; that is redis+sentinel:// or redis+cluster://');
  }
  const [user, password] = userinfo === undefined ? [] : splitOnce(userinfo, ':').map(decoded);
  if (user === null || password === null)
    return refused('has a user or password that is not percent-encoded');

  const parameters = new URLSearchParams(search.replaceAll('+', '%2B'));
  for (const name of parameters.keys()) {
    if (!PARAMETERS.has(name)) {
      return refused(
        `has the parameter ${/^\w{1,30}$/.test(name) ? `"${name}"` : 'that'} which means nothing here`,
      );
    }
    if (TLS_ONLY.includes(name) && scheme === 'redis') {
      return refused(`has the parameter "${name}", which is for TLS: write rediss instead of redis`);
    }
    if (name.startsWith('sentinel') && kind !== 'sentinel') {
      return refused(`has the parameter "${name}", which is for redis+sentinel://`);
    }
  }
  const segments = path.split('/');
  const master = kind === 'sentinel' ? decoded(segments.shift() ?? '') : undefined;
  if (kind === 'sentinel' && !master) {
    return refused('does not say which master the sentinels watch: redis+sentinel://host:26379/master-name');
  }
  const [database = ''] = segments;
  if (segments.length > 1 || !/^\d{0,5}$/.test(database)) {
    return refused('has a path that is no number of a database, such as /0');
  }
  if (kind === 'cluster' && Number(database) !== 0) {
    return refused('names a database of a cluster, which has only 0');
  }
  const family = parameters.get('family');
  if (family !== null && family !== '4' && family !== '6') return refused('has a family that is not 4 or 6');
  const given = <K extends string>(key: K, value: string | null | undefined) =>
    (value ? { [key]: value } : {}) as { [k in K]?: string };
  return {
    ok: true,
    address: {
      kind,
      hosts,
      database: Number(database),
      ...given('username', user),
      ...given('password', password),
      ...(master
        ? {
            sentinel: {
              master,
              ...given('username', parameters.get('sentinelUsername')),
              ...given('password', parameters.get('sentinelPassword')),
            },
          }
        : {}),
      ...(scheme === 'rediss'
        ? {
            tls: {
              insecure: parameters.get('insecure') === '1',
              ...given('ca', parameters.get('ca')),
              ...given('cert', parameters.get('cert')),
              ...given('key', parameters.get('key')),
              ...given('servername', parameters.get('servername')),
            },
          }
        : {}),
      ...(family === null ? {} : { family: Number(family) as 4 | 6 }),
    },
  };
}

function splitOnce(text: string, at: string): string[] {
  const index = text.indexOf(at);
  return index < 0 ? [text] : [text.slice(0, index), text.slice(index + 1)];
}

/** @returns null where the percent-encoding is broken */
function decoded(text: string): string | null {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}
