/**
 * Which connectors there are: every folder beside this file that has a `connector.ts`. A further one is one new folder;
 * no list names it. Each is loaded when it is first needed.
 */
import { existsSync, readdirSync } from 'node:fs';
import { extname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { ConnectorKind } from './connector.ts';

export interface Connectors {
  /** Their names, which are the kinds of directories that can be pulled. */
  readonly kinds: readonly string[];
  /** @returns undefined for a kind that there is no folder for */
  load(kind: string): Promise<ConnectorKind | undefined>;
}

/** `.ts` in the checkout, `.js` in the installed package. */
const FILE = `connector${extname(import.meta.filename)}`;

/** A kind as the database takes it. */
const KIND = /^[a-z][a-z0-9_-]{0,31}$/;

/** @param folder where the connectors' folders are; default: this one */
export function openConnectors(folder: string = import.meta.dirname): Connectors {
  const kinds = readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && KIND.test(entry.name) && entry.name !== 'scim')
    .map((entry) => entry.name)
    .filter((name) => existsSync(join(folder, name, FILE)))
    .sort();
  return {
    kinds,
    async load(kind) {
      if (!kinds.includes(kind)) return undefined;
      const module = (await import(pathToFileURL(join(folder, kind, FILE)).href)) as {
        kind?: ConnectorKind;
      };
      if (module.kind?.kind !== kind) {
        throw new Error(`connectors/${kind}/connector.ts does not export "kind" with kind: '${kind}'`);
      }
      return module.kind;
    },
  };
}
