/**
 * How a directory's source is reached: its settings as an operator gave them, read by the connector's own schema; the
 * secrets among them sealed for the directory, so that they open for nobody else, and never shown.
 */
import type { Connection, ConnectOptions, ConnectorKind } from '../../connectors/connector.ts';
import { ConnectorError } from '../../connectors/connector.ts';
import type { Connectors } from '../../connectors/connectors.ts';
import type { Credentials } from '../credential/credential.ts';

/** A setting that is wrong: where, as a JSON pointer below the config, and what to write instead. */
export interface ConfigError {
  path: string;
  message: string;
}

export type ConfigRead =
  | { ok: true; config: Record<string, unknown>; secrets: Record<string, unknown> }
  | { ok: false; errors: ConfigError[] };

/** Reads what an operator gave, and takes the secrets apart from the rest. */
export function readConnectorConfig(kind: ConnectorKind, given: Record<string, unknown>): ConfigRead {
  const read = kind.config.safeParse(given);
  if (!read.success) {
    const errors = read.error.issues.flatMap((issue): ConfigError[] => {
      const at = `/${issue.path.map(String).join('/')}`.replace(/^\/$/, '');
      if (issue.code === 'unrecognized_keys') {
        return issue.keys.map((key) => ({ path: `${at}/${key}`, message: 'is not known here' }));
      }
      // Of a secret not even the form is repeated.
      return [
        {
          path: at,
          message: kind.secrets.includes(String(issue.path[0])) ? secretWords(issue) : issue.message,
        },
      ];
    });
    return { ok: false, errors: errors.slice(0, 50) };
  }
  const config: Record<string, unknown> = {};
  const secrets: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(read.data as Record<string, unknown>)) {
    if (value === undefined) continue;
    (kind.secrets.includes(name) ? secrets : config)[name] = value;
  }
  return { ok: true, config, secrets };
}

function secretWords(issue: { code: string; message: string }): string {
  return issue.code === 'invalid_type' ? 'is missing or of the wrong type' : issue.message;
}

/**
 * Lays a patch over the settings: null takes one away. The secrets that are kept go to where they were given for, and
 * nowhere else: who changes another setting gives them again.
 */
export function patchConfig(
  kind: ConnectorKind,
  stored: { config: Record<string, unknown>; secrets: Record<string, unknown> },
  patch: Record<string, unknown>,
): ConfigRead {
  const merged: Record<string, unknown> = { ...stored.config, ...stored.secrets };
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete merged[name];
    else merged[name] = value;
  }
  const read = readConnectorConfig(kind, merged);
  if (!read.ok) return read;
  const moved = JSON.stringify(read.config) !== JSON.stringify(stored.config);
  const kept = Object.keys(read.secrets).filter((name) => !(name in patch));
  if (!moved || kept.length === 0) return read;
  return {
    ok: false,
    errors: kept.map((name) => ({
      path: `/${name}`,
      message:
        'must be given again when another setting changes, so that it goes nowhere it was not given for',
    })),
  };
}

/** For which the secrets of a directory's source are sealed. */
export const secretsContext = (directoryId: string) => `directory/${directoryId}`;

export function sealSecrets(
  credentials: Credentials,
  directoryId: string,
  secrets: Record<string, unknown>,
): Buffer {
  return credentials.seal(JSON.stringify(secrets), secretsContext(directoryId));
}

/** @throws Error when the encryption key is another than they were sealed with */
export function openSecrets(
  credentials: Credentials,
  directoryId: string,
  sealed: Buffer | null,
): Record<string, unknown> {
  if (sealed === null) return {};
  return JSON.parse(credentials.open(sealed, secretsContext(directoryId))) as Record<string, unknown>;
}

export interface Stored {
  directoryId: string;
  connector: string;
  config: Record<string, unknown>;
  secrets: Buffer | null;
}

/** @throws ConnectorError with words for the operator */
export async function connect(
  { connectors, credentials }: { connectors: Connectors; credentials: Credentials },
  stored: Stored,
  options: Omit<ConnectOptions<unknown>, 'config'>,
): Promise<Connection> {
  const kind = await connectors.load(stored.connector);
  if (!kind) {
    throw new ConnectorError(
      'denied',
      `There is no connector "${stored.connector}" in this version of Lockstep. There are: ${connectors.kinds.join(', ')}.`,
    );
  }
  let secrets: Record<string, unknown>;
  try {
    secrets = openSecrets(credentials, stored.directoryId, stored.secrets);
  } catch {
    throw new ConnectorError(
      'denied',
      'The stored credentials do not open with this LOCKSTEP_ENCRYPTION_KEY. Give the key that they were stored with in ' +
        'LOCKSTEP_DECRYPTION_KEYS, or give them again: PATCH the directory with its config.',
    );
  }
  const read = kind.config.safeParse({ ...stored.config, ...secrets });
  if (!read.success) {
    throw new ConnectorError(
      'denied',
      `The stored config does not fit this version's connector (${read.error.issues.map((i) => i.path.join('.')).join(', ')}). PATCH the directory with a new one.`,
    );
  }
  return kind.connect({ ...options, config: read.data });
}
