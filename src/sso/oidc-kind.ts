/** The settings of an OpenID Connect connection. */
import { z } from 'zod';
import type { ConnectionKind, SettingError, Settings } from './kind.ts';
import { discover } from './oidc-discovery.ts';
import { urlTrouble } from './outbound.ts';

const text = (max: number) =>
  z
    .string({ error: 'is missing or of the wrong type' })
    .trim()
    .min(1, 'must not be empty')
    .max(max, `must have at most ${max} characters`)
    .refine((value) => !/\p{Cc}/u.test(value), 'must not contain control characters');

/** Microsoft's issuers that stand for everybody's tenants, or for private accounts: any account there could sign in. */
const ANY_ENTRA_TENANT =
  /^https:\/\/login\.microsoftonline\.com\/(common|organizations|consumers|9188040d-6c67-4c5b-b112-36a304b66dad)(\/|$)/i;
/** Google has one issuer for all its accounts; the claim `hd` says of which Workspace domain one is. */
const GOOGLE = /^https:\/\/accounts\.google\.com\/?$/i;

const issuer = text(500).superRefine((value, context) => {
  const trouble =
    urlTrouble(value) ?? (/[?#]/.test(value) ? 'must have no query and no fragment' : undefined);
  if (trouble) context.addIssue({ code: 'custom', message: trouble });
  else if (ANY_ENTRA_TENANT.test(value)) {
    context.addIssue({
      code: 'custom',
      message:
        'stands for every Microsoft tenant; name one: https://login.microsoftonline.com/<directory (tenant) id>/v2.0',
    });
  }
});

/** Parameters of the authorization request that are Lockstep's to set. */
const OWN_PARAMETERS = new Set([
  'client_id',
  'redirect_uri',
  'response_type',
  'scope',
  'state',
  'nonce',
  'code_challenge',
  'code_challenge_method',
  'request',
  'request_uri',
  'login_hint',
  'prompt',
]);

const authorizationParams = z
  .record(text(100), text(2_000))
  .refine((params) => Object.keys(params).length <= 20, 'must have at most 20 parameters')
  .superRefine((params, context) => {
    for (const name of Object.keys(params)) {
      if (OWN_PARAMETERS.has(name)) {
        context.addIssue({ code: 'custom', path: [name], message: 'is set by Lockstep' });
      }
    }
    const mode = params.response_mode;
    if (mode !== undefined && mode !== 'query' && mode !== 'form_post') {
      context.addIssue({ code: 'custom', path: ['response_mode'], message: 'must be query or form_post' });
    }
  });

const schema = z
  .strictObject({
    issuer,
    clientId: text(500),
    clientSecret: text(2_000).optional(),
    privateKey: z
      .string({ error: 'is of the wrong type' })
      .min(1, 'must not be empty')
      .max(20_000, 'must have at most 20000 characters')
      .optional(),
    /** `kid` of the private key, where the provider asks for one. */
    keyId: text(500).optional(),
    scopes: z.array(text(200)).min(1, 'must name at least one scope').max(50).optional(),
    claims: z
      .strictObject({
        email: text(200).optional(),
        userName: text(200).optional(),
        displayName: text(200).optional(),
        objectId: text(200).optional(),
      })
      .optional(),
    /** Claims without which nobody comes in: of one issuer that vouches for many organisations, the organisation's. */
    requiredClaims: z.record(text(200), text(500)).optional(),
    authorizationParams: authorizationParams.optional(),
    /** Whether the userinfo endpoint is asked as well; default: where there is one. */
    userinfo: z.boolean().optional(),
  })
  .refine((c) => c.clientSecret === undefined || c.privateKey === undefined, {
    path: ['privateKey'],
    message: 'and clientSecret exclude each other',
  })
  .refine((c) => !GOOGLE.test(c.issuer) || c.requiredClaims?.hd !== undefined, {
    path: ['requiredClaims'],
    message:
      'must name the Workspace domain, {"hd": "example.com"}: this issuer vouches for every Google account',
  });

export type OidcSettings = z.infer<typeof schema>;

export const oidcKind: ConnectionKind = {
  kind: 'oidc',
  secrets: ['clientSecret', 'privateKey'],
  destination: ['issuer'],
  parse(given) {
    const read = schema.safeParse(given);
    if (!read.success) return { ok: false, errors: read.error.issues.flatMap(errorsOf).slice(0, 50) };
    const { clientSecret, privateKey, ...config } = read.data;
    const secrets = {
      ...(clientSecret === undefined ? {} : { clientSecret }),
      ...(privateKey === undefined ? {} : { privateKey }),
    };
    return { ok: true, config: withoutAbsent(config), secrets };
  },
  async prove(settings) {
    const found = await discover(oidcSettings(settings));
    if (!found.ok) return found;
    return { ok: true, issuer: found.provider.issuer, ...settings };
  },
  describe: (baseUrl, id) => ({
    redirectUri: `${baseUrl}/sso/oidc/${id}/callback`,
    backchannelLogoutUri: `${baseUrl}/sso/oidc/${id}/backchannel-logout`,
  }),
};

/** Stored settings as they were read when they came. @throws Error when they do not fit this version */
export function oidcSettings({ config, secrets }: Settings): OidcSettings {
  return schema.parse({ ...config, ...secrets });
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

function withoutAbsent(config: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(config).filter(([, value]) => value !== undefined));
}
