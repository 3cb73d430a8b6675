/**
 * The OpenID providers of connections, as this process knows them: read when first needed, again after a while, and at
 * once when a connection's settings are others.
 */
import type { Credentials } from '../credential/credential.ts';
import { type Connection, openSettings } from './connection.ts';
import { discover, type OidcProvider } from './oidc-discovery.ts';
import { type OidcSettings, oidcSettings } from './oidc-kind.ts';
import type { Refusal } from './room.ts';

export type ProviderFound =
  | { ok: true; provider: OidcProvider; settings: OidcSettings }
  | ({ ok: false } & Refusal);

export interface Providers {
  of(connection: Connection): Promise<ProviderFound>;
}

const FRESH_MS = 15 * 60_000;
/** A provider that was good so long ago is good enough while it does not answer for its document. */
const STALE_MS = 24 * 3_600_000;
/** What failed is not asked again for so long: a provider that is away would hold every browser for seconds. */
const FAILED_MS = 5_000;
const REMEMBERED = 1_000;

interface Known {
  settings: string;
  found: Promise<ProviderFound>;
  until: number;
  /** The last that was found to be good, and when. */
  good: { found: ProviderFound; at: number } | undefined;
}

export function openProviders(credentials: Credentials): Providers {
  const known = new Map<string, Known>();

  async function read(connection: Connection): Promise<ProviderFound> {
    let settings: OidcSettings;
    try {
      settings = oidcSettings(openSettings(credentials, connection));
    } catch {
      return {
        ok: false,
        reason: 'connection_broken',
        detail: { why: 'the stored settings do not open or do not fit' },
      };
    }
    const found = await discover(settings);
    if (!found.ok) return { ok: false, reason: 'idp_unreachable', detail: { why: found.detail } };
    if (found.provider.issuer !== connection.issuer) {
      return { ok: false, reason: 'issuer_mismatch', detail: { where: 'discovery' } };
    }
    return { ok: true, provider: found.provider, settings };
  }

  return {
    of(connection) {
      const settings = JSON.stringify([
        connection.config,
        connection.secrets?.toString('base64'),
        connection.issuer,
      ]);
      const before = known.get(connection.id);
      if (before && before.settings === settings && before.until > Date.now()) return before.found;
      const entry: Known = {
        settings,
        found: read(connection).then((found) => kept(entry, found)),
        until: Date.now() + FRESH_MS,
        good: before?.settings === settings ? before.good : undefined,
      };
      known.delete(connection.id);
      const oldest = known.keys().next();
      if (known.size >= REMEMBERED && !oldest.done) known.delete(oldest.value);
      known.set(connection.id, entry);
      entry.found.catch(() => known.delete(connection.id));
      return entry.found;
    },
  };
}

function kept(entry: Known, found: ProviderFound): ProviderFound {
  const now = Date.now();
  if (found.ok) {
    entry.good = { found, at: now };
    return found;
  }
  entry.until = now + FAILED_MS;
  const stands = found.reason === 'idp_unreachable' && entry.good && now - entry.good.at < STALE_MS;
  return stands && entry.good ? entry.good.found : found;
}
