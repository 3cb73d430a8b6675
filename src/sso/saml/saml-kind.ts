/**
 * The settings of a SAML connection. The identity provider is known by its metadata, from an address that is asked again
 * (`metadataUrl`) or as a document (`metadataXml`, which is read and not kept), or by `entityId`, `ssoUrl` and
 * `certificates`. Several certificates are believed at once, so that one can be rolled over into the next.
 */
import { createHash, createPrivateKey, X509Certificate } from 'node:crypto';
import { z } from 'zod';
import type { ConnectionKind, Proved, SettingError, Settings, SettingsRead } from '../kind.ts';
import { outbound, Unreachable, urlTrouble } from '../outbound.ts';
import { readCertificates } from './certificate.ts';
import { type KeyPair, makeKeyPair } from './key-pair.ts';
import { type IdpFacts, MAX_METADATA_BYTES, readIdpMetadata, spNames } from './metadata.ts';
import type { Trust } from './response.ts';

const text = (max: number) =>
  z
    .string({ error: 'is missing or of the wrong type' })
    .trim()
    .min(1, 'must not be empty')
    .max(max, `must have at most ${max} characters`)
    .refine((value) => !/\p{Cc}/u.test(value), 'must not contain control characters');
const url = text(2_000).superRefine((value, context) => {
  const trouble = urlTrouble(value);
  if (trouble) context.addIssue({ code: 'custom', message: trouble });
});
const binding = z.enum(['redirect', 'post'], { error: 'must be redirect or post' });
const attribute = text(500).optional();

const certificates = z
  .array(z.string().max(20_000, 'must have at most 20000 characters'))
  .min(1, 'must hold at least one certificate')
  .max(10, 'must hold at most 10 certificates')
  .transform((given, context) => {
    const pems = new Set<string>();
    given.forEach((one, i) => {
      const read = readCertificates(one);
      if (!read.ok) context.addIssue({ code: 'custom', path: [i], message: read.message });
      else for (const { pem } of read.found) pems.add(pem);
    });
    return [...pems];
  });

const schema = z
  .strictObject({
    metadataUrl: url.optional(),
    metadataXml: z
      .string({ error: 'is of the wrong type' })
      .max(MAX_METADATA_BYTES, `must have at most ${MAX_METADATA_BYTES} characters`)
      .optional(),
    /** Of several in one document it names the one that is meant. */
    entityId: text(1_024).optional(),
    ssoUrl: url.optional(),
    ssoBinding: binding.optional(),
    sloUrl: url.optional(),
    sloBinding: binding.optional(),
    certificates: certificates.optional(),
    /** Of the metadata: until when they are good. */
    validUntil: z.iso.datetime().optional(),
    /** When metadataUrl was last read, and a digest of what it said. */
    fetched: z.strictObject({ at: z.iso.datetime(), digest: text(64) }).optional(),
    /** Sign requests; default: what the metadata ask for. The key is made here. */
    signRequests: z.boolean().optional(),
    signingKey: z.string().max(20_000, 'must have at most 20000 characters').optional(),
    signingCertificate: z.string().max(20_000, 'must have at most 20000 characters').optional(),
    allowSha1: z.boolean().optional(),
    /** Take sign-ins that the identity provider begins. */
    idpInitiated: z.boolean().optional(),
    /** Let the identity provider ask for credentials each time. */
    forceAuthn: z.boolean().optional(),
    /** The NameID format to ask for. */
    nameIdFormat: text(200).optional(),
    /** Names of attributes, where the usual ones do not fit. */
    attributes: z
      .strictObject({
        subject: attribute,
        email: attribute,
        userName: attribute,
        displayName: attribute,
        objectId: attribute,
      })
      .optional(),
  })
  .superRefine(({ signingKey, signingCertificate }, context) => {
    const fault = keyPairFault(signingKey, signingCertificate);
    if (fault) context.addIssue({ code: 'custom', path: ['signingKey'], message: fault });
  });
type Given = z.infer<typeof schema>;

/** As a sign-in needs them. */
export interface SamlSettings {
  entityId: string;
  ssoUrl: string;
  ssoBinding: 'redirect' | 'post';
  sloUrl: string | null;
  sloBinding: 'redirect' | 'post';
  trust: Trust;
  /** What our requests are signed with; null where they are not. */
  signing: KeyPair | null;
  idpInitiated: boolean;
  forceAuthn: boolean;
  nameIdFormat: string | null;
  attributes: NonNullable<Given['attributes']>;
  metadataUrl: string | null;
  fetchedAt: Date | null;
  validUntil: Date | null;
}

export const samlKind: ConnectionKind = {
  kind: 'saml',
  secrets: ['signingKey'],
  // The key signs here and goes nowhere.
  destination: [],
  parse: (given) => parse(given, new Date()),
  prove: (settings) => prove(settings, new Date()),
  describe(baseUrl, id) {
    const { entityId, acsUrl, sloUrl } = spNames(baseUrl, id);
    return { entityId, metadataUrl: entityId, acsUrl, sloUrl };
  },
};

function parse(given: Record<string, unknown>, now: Date): SettingsRead {
  const read = schema.safeParse(given);
  if (!read.success) return { ok: false, errors: read.error.issues.flatMap(errorsOf).slice(0, 50) };
  const { metadataXml, signingKey, fetched, ...rest } = read.data;
  const secrets = signingKey === undefined ? {} : { signingKey };
  const done = (config: Given): SettingsRead => ({ ok: true, config: present(config), secrets });
  if (metadataXml !== undefined) {
    if (rest.metadataUrl !== undefined) {
      return wrong('/metadataXml', 'and metadataUrl exclude each other; set the other one to null');
    }
    const metadata = readIdpMetadata(metadataXml, rest.entityId, now);
    if (!metadata.ok) return wrong('/metadataXml', `cannot be used: the metadata ${metadata.words}`);
    const facts = factsTrouble(metadata.facts);
    return facts ? wrong('/metadataXml', facts) : done(withFacts(rest, metadata.facts));
  }
  if (rest.metadataUrl !== undefined) {
    const byHand =
      fetched === undefined ? (rest.ssoUrl ?? rest.certificates) : digestOf(rest) !== fetched.digest;
    if (byHand) {
      return wrong(
        '/metadataUrl',
        'says itself what ssoUrl and certificates are; leave these out, or set metadataUrl to null to keep them by hand',
      );
    }
    return done({ ...rest, ...(fetched ? { fetched } : {}) });
  }
  const missing = (['entityId', 'ssoUrl', 'certificates'] as const).filter(
    (name) => rest[name] === undefined,
  );
  if (missing.length > 0) {
    return {
      ok: false,
      errors: missing.map((name) => ({
        path: `/${name}`,
        message: 'is missing; give metadataUrl or metadataXml, or entityId, ssoUrl and certificates',
      })),
    };
  }
  return done(rest);
}

async function prove(settings: Settings, now: Date): Promise<Proved> {
  let config = settings.config as Given;
  if (config.metadataUrl !== undefined) {
    const fetched = await fetchMetadata(config.metadataUrl, config.entityId, now);
    if (!fetched.ok) return { ok: false, detail: fetched.words };
    config = withFacts(config, fetched.facts);
    config.fetched = { at: now.toISOString(), digest: digestOf(config) };
  }
  let { secrets } = settings;
  if (config.signRequests && secrets.signingKey === undefined) {
    const made = await makeKeyPair();
    secrets = { ...secrets, signingKey: made.privateKey };
    config = { ...config, signingCertificate: made.certificate };
  }
  return { ok: true, issuer: config.entityId ?? '', config: present(config), secrets };
}

/** @returns words are a sentence for an administrator */
export async function fetchMetadata(
  address: string,
  entityId: string | undefined,
  now: Date,
): Promise<{ ok: true; facts: IdpFacts } | { ok: false; words: string }> {
  try {
    const response = await outbound(address, {}, { maxBytes: MAX_METADATA_BYTES });
    if (response.status !== 200) {
      await response.body?.cancel();
      return {
        ok: false,
        words: `metadataUrl answered with status ${response.status}; it must be the address of the XML document itself.`,
      };
    }
    const read = readIdpMetadata(await response.text(), entityId, now);
    if (!read.ok) return { ok: false, words: `The metadata at metadataUrl ${read.words}.` };
    const trouble = factsTrouble(read.facts);
    return trouble ? { ok: false, words: `The metadata at metadataUrl: ${trouble}.` } : read;
  } catch (error) {
    if (error instanceof Unreachable) return { ok: false, words: error.message };
    throw error;
  }
}

function withFacts(config: Given, facts: IdpFacts): Given {
  const { sloUrl: _, validUntil: __, ...rest } = config;
  return {
    ...rest,
    entityId: facts.entityId,
    ssoUrl: facts.ssoUrl,
    ssoBinding: facts.ssoBinding,
    sloBinding: facts.sloBinding,
    certificates: facts.certificates,
    signRequests: config.signRequests ?? facts.wantsSignedRequests,
    ...(facts.sloUrl === null ? {} : { sloUrl: facts.sloUrl }),
    ...(facts.validUntil === null ? {} : { validUntil: facts.validUntil }),
  };
}

function factsTrouble(facts: IdpFacts): string | undefined {
  for (const [name, address] of [
    ['SingleSignOnService', facts.ssoUrl],
    ['SingleLogoutService', facts.sloUrl],
  ] as const) {
    const trouble = address === null ? undefined : urlTrouble(address);
    if (trouble) return `the address of its ${name} ${trouble}`;
  }
  return undefined;
}

function digestOf(config: Given): string {
  const { entityId, ssoUrl, ssoBinding, sloUrl, sloBinding, certificates: pems } = config;
  return createHash('sha256')
    .update(JSON.stringify([entityId, ssoUrl, ssoBinding, sloUrl, sloBinding, pems]))
    .digest('hex');
}

/** Stored settings as they were read when they came. @throws Error when they do not fit this version */
export function samlSettings({ config, secrets }: Settings): SamlSettings {
  const read = schema.parse({ ...config, ...secrets });
  const { entityId, ssoUrl, certificates: pems, signingKey, signingCertificate } = read;
  if (entityId === undefined || ssoUrl === undefined || pems === undefined) {
    throw new Error('a SAML connection without its identity provider');
  }
  return {
    entityId,
    ssoUrl,
    ssoBinding: read.ssoBinding ?? 'redirect',
    sloUrl: read.sloUrl ?? null,
    sloBinding: read.sloBinding ?? 'redirect',
    trust: {
      certificates: pems,
      fingerprints: pems.map((pem) =>
        new X509Certificate(pem).fingerprint256.replaceAll(':', '').toLowerCase(),
      ),
      allowSha1: read.allowSha1 ?? false,
    },
    signing:
      signingKey === undefined || signingCertificate === undefined || !read.signRequests
        ? null
        : { privateKey: signingKey, certificate: signingCertificate },
    idpInitiated: read.idpInitiated ?? false,
    forceAuthn: read.forceAuthn ?? false,
    nameIdFormat: read.nameIdFormat ?? null,
    attributes: read.attributes ?? {},
    metadataUrl: read.metadataUrl ?? null,
    fetchedAt: read.fetched ? new Date(read.fetched.at) : null,
    validUntil: read.validUntil === undefined ? null : new Date(read.validUntil),
  };
}

function keyPairFault(key: string | undefined, certificate: string | undefined): string | undefined {
  if (key === undefined && certificate === undefined) return undefined;
  if (key === undefined || certificate === undefined)
    return 'and signingCertificate belong together; without both a pair is made here';
  try {
    return new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key))
      ? undefined
      : 'is not the key of signingCertificate';
  } catch {
    return 'and signingCertificate must be PEM: an RSA key and its certificate';
  }
}

function wrong(path: string, message: string): SettingsRead {
  return { ok: false, errors: [{ path, message }] };
}

/** Of a secret, not even the form is repeated: zod's messages name no value. */
function errorsOf(issue: z.core.$ZodIssue): SettingError[] {
  const at = issue.path
    .map((part) => `/${String(part).replaceAll('~', '~0').replaceAll('/', '~1')}`)
    .join('');
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({ path: `${at}/${key}`, message: 'is not known here' }));
  }
  return [{ path: at, message: issue.message }];
}

function present(config: Given): Record<string, unknown> {
  return Object.fromEntries(Object.entries(config).filter(([, value]) => value !== undefined));
}
