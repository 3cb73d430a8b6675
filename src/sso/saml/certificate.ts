/** Certificates of an identity provider: containers of the keys that its messages are verified by. */
import { X509Certificate } from 'node:crypto';

export interface Certificate {
  /** PEM. */
  pem: string;
  /** SHA-256 of the whole certificate, in hex. */
  fingerprint: string;
}

const LEAST_BITS = 2048;

/**
 * @param text PEM, or the bare base64 of metadata
 * @returns the certificates that stand in it, or what is wrong, to go on after "must"
 */
export function readCertificates(
  text: string,
): { ok: true; found: Certificate[] } | { ok: false; message: string } {
  const bodies = text.includes('-----')
    ? [...text.matchAll(/-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----/g)].map(
        (m) => m[1] ?? '',
      )
    : [text];
  const found: Certificate[] = [];
  for (const body of bodies) {
    const read = readOne(body.replaceAll(/\s/g, ''));
    if (typeof read === 'string') return { ok: false, message: read };
    found.push(read);
  }
  return found.length > 0
    ? { ok: true, found }
    : { ok: false, message: 'must be an X.509 certificate (PEM or base64), not a key' };
}

function readOne(body: string): Certificate | string {
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(body)) return 'must be an X.509 certificate in PEM or base64';
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(Buffer.from(body, 'base64'));
  } catch {
    return 'must be an X.509 certificate in PEM or base64';
  }
  const { publicKey } = certificate;
  if (publicKey.asymmetricKeyType !== 'rsa') {
    return `must carry an RSA key; this one carries ${publicKey.asymmetricKeyType ?? 'none'}. Let the identity provider sign with RSA-SHA256`;
  }
  const bits = publicKey.asymmetricKeyDetails?.modulusLength ?? 0;
  if (bits < LEAST_BITS) return `must carry a key of at least ${LEAST_BITS} bits; this one has ${bits}`;
  return {
    pem: certificate.toString(),
    fingerprint: certificate.fingerprint256.replaceAll(':', '').toLowerCase(),
  };
}
