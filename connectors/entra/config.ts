/** What a directory of kind `entra` is set up with; refusals are for the person who sets it up. */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { z } from 'zod';

export interface EntraConfig {
  /** The tenant's id or one of its verified domains. */
  entraTenantId: string;
  clientId: string;
  clientSecret?: string | undefined;
  /** PEM of the certificate that is registered with the application, and its RSA key. */
  certificate?: string | undefined;
  privateKey?: string | undefined;
  /** Default https://graph.microsoft.com; other hosts are those of national clouds, or a simulator. */
  graphUrl?: string | undefined;
  /** Default https://login.microsoftonline.com. */
  authorityUrl?: string | undefined;
  /** PEM of authorities to trust beside the usual ones, for a gateway or a simulator. */
  caCertificate?: string | undefined;
}

const pem = z.string().min(1).max(50_000);

/** https, or http on the loopback; without credentials, query and fragment. */
const origin = z
  .string()
  .max(500)
  .refine((value) => {
    if (!URL.canParse(value)) return false;
    const url = new URL(value);
    const loopback = ['127.0.0.1', '[::1]', 'localhost'].includes(url.hostname);
    if (url.protocol !== 'https:' && !(url.protocol === 'http:' && loopback)) return false;
    return url.username === '' && url.password === '' && url.search === '' && url.hash === '';
  }, 'must be an https URL without credentials and query');

export const entraConfig: z.ZodType<EntraConfig> = z
  .strictObject({
    entraTenantId: z
      .string()
      .regex(/^[A-Za-z0-9][A-Za-z0-9.-]{0,252}$/, "must be the tenant's id or one of its domains"),
    clientId: z.string().min(1).max(200),
    clientSecret: z.string().min(1).max(1000).optional(),
    certificate: pem.optional(),
    privateKey: pem.optional(),
    graphUrl: origin.optional(),
    authorityUrl: origin.optional(),
    caCertificate: pem.optional(),
  })
  .superRefine((value, context) => {
    const wrong = (path: string, message: string) =>
      context.addIssue({ code: 'custom', path: [path], message });
    if (value.caCertificate !== undefined && !certificateOf(value.caCertificate)) {
      wrong('caCertificate', 'is not a certificate in PEM');
    }
    if (value.certificate === undefined && value.privateKey === undefined) {
      if (value.clientSecret === undefined) {
        wrong('clientSecret', 'give either clientSecret, or certificate together with privateKey');
      }
      return;
    }
    if (value.clientSecret !== undefined) {
      return wrong(
        'clientSecret',
        'give either clientSecret, or certificate together with privateKey, not both',
      );
    }
    if (value.certificate === undefined) return wrong('certificate', 'privateKey needs its certificate');
    if (value.privateKey === undefined) return wrong('privateKey', 'certificate needs its privateKey');
    const certificate = certificateOf(value.certificate);
    if (!certificate) return wrong('certificate', 'is not a certificate in PEM');
    try {
      const key = createPrivateKey(value.privateKey);
      if (key.asymmetricKeyType !== 'rsa') return wrong('privateKey', 'must be an RSA key');
      if (!certificate.checkPrivateKey(key)) wrong('privateKey', 'is not the key of the certificate');
    } catch {
      wrong('privateKey', 'is not a private key in PEM without a passphrase');
    }
  });

function certificateOf(text: string): X509Certificate | undefined {
  try {
    return new X509Certificate(text);
  } catch {
    return undefined;
  }
}
