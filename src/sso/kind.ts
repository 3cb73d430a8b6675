/** A kind of connection: how its settings are read, proved at the identity provider, and told to its administrator. */

/** A setting that is wrong: where, as a JSON pointer below the config, and what to write instead. */
export interface SettingError {
  path: string;
  message: string;
}

export interface Settings {
  /** As it is stored and shown. */
  config: Record<string, unknown>;
  /** Sealed for the connection, never shown. */
  secrets: Record<string, unknown>;
}

export type SettingsRead = ({ ok: true } & Settings) | { ok: false; errors: SettingError[] };

/** What the identity provider itself said: its name, and the settings with what its metadata added. */
export type Proved =
  | ({ ok: true; issuer: string } & Settings)
  /** `detail` is for an administrator: what was asked, what came, what to do. */
  | { ok: false; detail: string };

export interface ConnectionKind {
  kind: 'oidc' | 'saml';
  /** Names of the settings that are secrets. */
  secrets: readonly string[];
  /** Names of the settings that say where the secrets go. */
  destination: readonly string[];
  /** Reads what an operator gave; asks nobody. */
  parse(given: Record<string, unknown>): SettingsRead;
  /** Asks the identity provider: discovery (OIDC), metadata (SAML). Bounded in time. */
  prove(settings: Settings): Promise<Proved>;
  /** What is to be entered at the identity provider: name → URL or identifier. */
  describe(baseUrl: string, connectionId: string): Record<string, string>;
}

/**
 * Lays a patch over stored settings: null takes one away. The secrets that are kept go to where they were given for, and
 * nowhere else: who changes a setting that says where gives them again.
 */
export function patchSettings(
  kind: ConnectionKind,
  stored: Settings,
  patch: Record<string, unknown>,
): SettingsRead {
  const merged: Record<string, unknown> = { ...stored.config, ...stored.secrets };
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete merged[name];
    else merged[name] = value;
  }
  const read = kind.parse(merged);
  if (!read.ok) return read;
  const moved = kind.destination.some(
    (name) => JSON.stringify(read.config[name]) !== JSON.stringify(stored.config[name]),
  );
  const kept = Object.keys(read.secrets).filter((name) => !(name in patch));
  if (!moved || kept.length === 0) return read;
  return {
    ok: false,
    errors: kept.map((name) => ({
      path: `/${name}`,
      message: `must be given again with another ${kind.destination.join(' or ')}, so that it goes nowhere it was not given for`,
    })),
  };
}
