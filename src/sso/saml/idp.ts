/**
 * The identity provider of a connection as it is known now. What came from `metadataUrl` is asked for again once a day,
 * when its own time is over, and when a message is signed with a certificate that is not known; the old certificates
 * stay good until the provider's metadata no longer has them.
 */
import type { Credentials } from '../../credential/credential.ts';
import type { Database } from '../../database/database.ts';
import { type Connection, findConnection, openSettings, updateConnection } from '../connection.ts';
import type { Refusal, SsoOptions } from '../room.ts';
import { type SamlSettings, samlKind, samlSettings } from './saml-kind.ts';

const DAY_MS = 24 * 3_600_000;
/** Whoever sends forged messages does not make us ask more often than this. */
const LEAST_MS = 5 * 60_000;
/** Of connections of which it is remembered when they were last asked. */
const REMEMBERED = 10_000;

export type IdpFound = { ok: true; settings: SamlSettings } | ({ ok: false } & Refusal);

export interface Idps {
  of(connection: Connection): Promise<IdpFound>;
  /** After a certificate that is not known. Undefined: nothing newer is to be had now. */
  renewed(connection: Connection): Promise<SamlSettings | undefined>;
}

export function openIdps(options: Pick<SsoOptions, 'db' | 'credentials' | 'log'>): Idps {
  const { db, credentials, log } = options;
  const asked = new Map<string, number>();

  function mayAsk(id: string, now: number): boolean {
    if (now - (asked.get(id) ?? Number.NEGATIVE_INFINITY) < LEAST_MS) return false;
    asked.delete(id);
    if (asked.size >= REMEMBERED) asked.delete(asked.keys().next().value ?? '');
    asked.set(id, now);
    return true;
  }

  async function renew(connection: Connection): Promise<SamlSettings | undefined> {
    if (!mayAsk(connection.id, Date.now())) return undefined;
    const refreshed = await refreshMetadata(db, credentials, connection, 'lockstep');
    if (refreshed.ok) return refreshed.settings;
    log.warn({ connection: connection.id, why: refreshed.detail }, 'SAML metadata could not be refreshed');
    return undefined;
  }

  return {
    async of(connection) {
      let settings: SamlSettings;
      try {
        settings = samlSettings(openSettings(credentials, connection));
      } catch (error) {
        log.error({ err: error, connection: connection.id }, 'the settings of a connection cannot be used');
        return { ok: false, reason: 'connection_broken' };
      }
      const now = Date.now();
      const over = settings.validUntil !== null && settings.validUntil.getTime() <= now;
      const old = settings.fetchedAt !== null && settings.fetchedAt.getTime() + DAY_MS <= now;
      if (settings.metadataUrl !== null && (over || old)) settings = (await renew(connection)) ?? settings;
      if (settings.validUntil !== null && settings.validUntil.getTime() <= now) {
        const until = settings.validUntil.toISOString();
        return {
          ok: false,
          reason: 'connection_broken',
          detail: { why: `the identity provider's metadata were valid until ${until}` },
          advice: `The identity provider's metadata were valid until ${until}: give the connection its new ones.`,
        };
      }
      return { ok: true, settings };
    },
    async renewed(connection) {
      return typeof connection.config.metadataUrl === 'string' ? renew(connection) : undefined;
    },
  };
}

export type Refreshed =
  | { ok: true; connection: Connection; settings: SamlSettings }
  /** A sentence for an administrator. */
  | { ok: false; detail: string };

/** Asks metadataUrl again and writes what it says; another identity provider at the same address is not taken. */
export async function refreshMetadata(
  db: Database,
  credentials: Credentials,
  connection: Connection,
  actor: string,
): Promise<Refreshed> {
  const { tenantId, id, issuer } = connection;
  const stored = openSettings(credentials, connection);
  if (connection.kind !== 'saml' || typeof stored.config.metadataUrl !== 'string') {
    return {
      ok: false,
      detail:
        'This connection has no metadataUrl to be asked. PATCH its config with metadataXml, or with certificates.',
    };
  }
  const proved = await samlKind.prove(stored);
  if (!proved.ok) return proved;
  if (proved.issuer !== issuer) {
    return {
      ok: false,
      detail:
        `The metadata are now those of ${JSON.stringify(proved.issuer)}, and not of ${JSON.stringify(issuer)}. Nothing was ` +
        'changed; PATCH the connection with this metadataUrl if it is meant.',
    };
  }
  const written = await updateConnection(
    db,
    credentials,
    { tenantId, id },
    {
      proved: {
        issuer: proved.issuer,
        settings: { config: proved.config, secrets: proved.secrets },
        from: connection,
      },
    },
    actor,
  );
  // Another process asked at the same time, or somebody changed the config: what stands now is newer.
  const now = written === 'moved' ? await findConnection(db, tenantId, id) : written;
  return now
    ? { ok: true, connection: now, settings: samlSettings(openSettings(credentials, now)) }
    : { ok: false, detail: 'The connection is not there any more.' };
}
