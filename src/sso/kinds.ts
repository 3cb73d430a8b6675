/** The kinds of connections that can be made. The kind `posted` is not: a product's posted sign-ins bring it along. */
import type { ConnectionKind } from './kind.ts';
import { oidcKind } from './oidc-kind.ts';
import { samlKind } from './saml/saml-kind.ts';

export const connectionKinds: readonly ConnectionKind[] = [oidcKind, samlKind];

export function kindOf(name: string): ConnectionKind | undefined {
  return connectionKinds.find(({ kind }) => kind === name);
}
