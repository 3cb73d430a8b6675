/**
 * Who is asking: what a SCIM request shows, as the parameters with which every function of directory.sql begins.
 */

/** What a SCIM request shows of who is asking. `digest` is the keyed digest of the token's secret, 32 bytes. */
export interface Proof {
  directoryId: string;
  tokenId: string;
  digest: Buffer;
}

/** Who is asking, and by which version of the directory's settings the request was read. */
export interface Caller extends Proof {
  /** `version` of {@link DirectorySettings}; null where nothing was read by them. */
  settings: number | null;
  /**
   * Of which trace and span the request is, as 48 hexadecimal digits: kept with the changes that it makes. Concurrent
   * requests of one caller share a statement, each with its own. Absent where it is not traced.
   */
  trace?: string;
}

export function proofValues(proof: Proof): [string, string, string] {
  return [proof.directoryId, proof.tokenId, bits(proof.digest)];
}

export function callerValues(caller: Caller): [string, string, string, number | null] {
  return [...proofValues(caller), caller.settings];
}

/** 32 bytes as the text of a `bit(256)`. */
export function bits(digest: Buffer): string {
  let text = '';
  for (const byte of digest) text += byte.toString(2).padStart(8, '0');
  return text;
}

// Two tokens of one directory are two callers: each statement checks one token, and one version of the settings.
export function callerKey(caller: Caller): string {
  return `${caller.directoryId}/${caller.tokenId}/${caller.digest.toString('base64')}/${caller.settings}`;
}
