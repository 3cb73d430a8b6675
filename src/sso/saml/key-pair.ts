/** What Lockstep signs its own messages to an identity provider with: made here, the certificate goes into our metadata. */
import { generateKeyPair, X509Certificate } from 'node:crypto';
import { promisify } from 'node:util';
import forge from 'node-forge';

export interface KeyPair {
  /** PEM, PKCS 8; a secret. */
  privateKey: string;
  /** PEM. It only carries the key: nobody checks who issued it. */
  certificate: string;
}

const YEARS = 10;

export async function makeKeyPair(): Promise<KeyPair> {
  const { privateKey } = await promisify(generateKeyPair)('rsa', { modulusLength: 2048 });
  const signer = forge.pki.privateKeyFromPem(privateKey.export({ type: 'pkcs1', format: 'pem' }) as string);
  const certificate = forge.pki.createCertificate();
  certificate.publicKey = forge.pki.setRsaPublicKey(signer.n, signer.e);
  certificate.serialNumber = `01${forge.util.bytesToHex(forge.random.getBytesSync(8))}`;
  const { notBefore, notAfter } = certificate.validity;
  notBefore.setTime(Date.now() - 3_600_000);
  notAfter.setTime(notBefore.getTime());
  notAfter.setUTCFullYear(notBefore.getUTCFullYear() + YEARS);
  const name = [{ name: 'commonName', value: 'Lockstep' }];
  certificate.setSubject(name);
  certificate.setIssuer(name);
  certificate.sign(signer, forge.md.sha256.create());
  return {
    privateKey: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    certificate: new X509Certificate(forge.pki.certificateToPem(certificate)).toString(),
  };
}
