/** The kinds of connections that can be made. The kind `posted` is not: a product's posted sign-ins bring it along. */
import type { ConnectionKind } from './kind.ts';
import { oidcKind } from './oidc-kind.ts';

export const connectionKinds: readonly ConnectionKind[] = [oidcKind];

export function kindOf(name: string): ConnectionKind | undefined {
  return connectionKinds.find(({ kind }) => kind === name);
}
