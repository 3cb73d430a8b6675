/** A link that begins a test sign-in: sealed for its connection, good for a quarter of an hour, as often as one likes. */
import type { Credentials } from '../credential/credential.ts';

export const TEST_LINK_SECONDS = 900;

const CONTEXT = 'sso/test';

/** @param expiresAt from {@link TEST_LINK_SECONDS} */
export function sealTest(credentials: Credentials, connectionId: string, expiresAt: Date): string {
  return credentials.seal(JSON.stringify([connectionId, expiresAt.getTime()]), CONTEXT).toString('base64url');
}

/** @returns the connection's id; undefined for what is not ours, or no longer good */
export function openTest(credentials: Credentials, sealed: string): string | undefined {
  try {
    const [id, until] = JSON.parse(credentials.open(Buffer.from(sealed, 'base64url'), CONTEXT)) as [
      string,
      number,
    ];
    return until > Date.now() ? id : undefined;
  } catch {
    return undefined;
  }
}
