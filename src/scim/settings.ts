/**
 * By what a directory's requests are read: its schemas and its identity provider. Promises: kept in memory, and never
 * out of date all the same, for each statement names the version that its request was read by, and one of another
 * version is not carried out ('moved'); bounded; nothing is kept of a caller who was not let in.
 */
import type { DirectoryStore, Idp, Proof } from '../directory/directory.ts';
import { done, type Result, refused } from './errors.ts';
import { directorySchemas, noSchemaSettings, type SchemaSettings } from './schema/directory-schemas.ts';
import { type DirectorySchemas, standardSchemas } from './schema/schema.ts';

export interface Settings {
  version: number;
  schemas: DirectorySchemas;
  /** Whose client pushes, where an operator said so. */
  idp: Idp | null;
  /** The same, as earlier requests have shown. */
  idpDetected: Idp | null;
}

export interface SettingsCache {
  /** What is known, or read now with the caller's own proof. */
  of(proof: Proof): Promise<Result<Settings>>;
  /** What is remembered, without asking. */
  known(directoryId: string): Settings | undefined;
  /** To be called when a statement answered 'moved'. */
  forget(directoryId: string): void;
}

/** Directories remembered at most; those without schemas of their own share one set. */
const REMEMBERED = 10_000;

export function openSettings(store: Pick<DirectoryStore, 'settings'>): SettingsCache {
  // In the order of their reading: the oldest goes first.
  const known = new Map<string, Settings>();

  return {
    async of(proof) {
      const remembered = known.get(proof.directoryId);
      if (remembered) return done(remembered);
      const read = await store.settings(proof);
      if (read.outcome !== 'ok')
        return refused(read.outcome, 'The request', { pauseReason: read.pauseReason });
      const { version, idp, idpDetected, schemas } = read.settings;
      const settings: Settings = { version, idp, idpDetected, schemas: schemasOf(schemas) };
      if (known.size >= REMEMBERED) {
        for (const oldest of known.keys()) {
          known.delete(oldest);
          break;
        }
      }
      known.set(proof.directoryId, settings);
      return done(settings);
    },
    known: (directoryId) => known.get(directoryId),
    forget(directoryId) {
      known.delete(directoryId);
    },
  };
}

/** What /v1 has checked when it was saved. */
function schemasOf(stored: unknown): DirectorySchemas {
  const settings = { ...noSchemaSettings, ...(stored as Partial<SchemaSettings> | null) };
  return settings.extensions.length + settings.required.length === 0
    ? standardSchemas
    : directorySchemas(settings);
}
