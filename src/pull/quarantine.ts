/**
 * When a directory goes into quarantine: what its credentials are allowed to see has shrunk, so that what it says is
 * less than what there is. Pure but for what the mirror is asked of a vanished attribute. A quarantined directory
 * infers nothing; it leaves by the next snapshot that is as good as the one before, or by an operator.
 */
import type { Certificate } from '../../connectors/connector.ts';

/** What is kept of a certificate for the next comparison. */
export type Reference = Pick<Certificate, 'counts' | 'scopes' | 'attributes' | 'configuration'>;

export interface Shrunk {
  /** In words for an administrator; null when only attributes may tell. */
  reason: string | null;
  /** Attributes that came before and do not come any more; how many users have them decides. */
  attributes: string[];
}

/** Below this, everybody can leave at once; the guard counts them. */
const FEW = 3;

/** Compares a snapshot's certificate with that of the last good one. */
export function shrunk(now: Reference, before: Reference | null): Shrunk {
  if (before === null) return { reason: null, attributes: [] };
  const scopes = before.scopes.filter((scope) => !now.scopes.includes(scope));
  const attributes = before.attributes.filter((name) => !now.attributes.includes(name));
  let reason: string | null = null;
  if (scopes.length > 0) {
    reason =
      `The credentials may no longer read ${scopes.join(', ')}. Give the permission back at the identity provider, or ` +
      'accept the smaller view by releasing the quarantine.';
  } else if (before.counts.users > FEW && now.counts.users === 0) {
    reason = `The source shows no users any more; it showed ${before.counts.users}. Check the credentials and filters.`;
  } else if (before.counts.groups > FEW && now.counts.groups === 0) {
    reason =
      `The source shows no groups any more; it showed ${before.counts.groups}. Check the permission to read groups, or ` +
      'release the quarantine if they are really gone.';
  }
  return { reason, attributes };
}

/** @param users of `total` who have this attribute in the mirror */
export function attributeVanished(name: string, users: number, total: number): string | null {
  if (users <= Math.max(FEW, total / 5)) return null;
  return (
    `The attribute ${name}, which ${users} users have, does not come any more. Give the permission to read it back, or ` +
    'release the quarantine if it is really gone.'
  );
}
