/**
 * What is behind a refusal, in words for whoever looks after the integration: what happened and what to do next.
 * Promises: a function of the entry alone; the same words for the same cause, whatever the ids, so that entries can be
 * counted by them; null for an answer that is no failure.
 */
import type { Reason } from '../scim/exchange.ts';

export interface Refusal {
  method: string;
  /** Below the directory's base. */
  path: string;
  status: number;
  scimType: string | null;
  reason: string | null;
  /** What the answer said. */
  detail: string | null;
}

const BY_REASON: Record<Reason, string> = {
  no_token:
    "The request carried no bearer token. Enter one of this directory's tokens as the secret token (API token) in the " +
    'identity provider, with "Bearer" authentication (HTTP header).',
  unknown:
    'The token is not one of this directory. The identity provider has the token of another directory, a part of one, ' +
    'or one that was made under another encryption key. Issue a new token for this directory and enter it together ' +
    "with this directory's SCIM base URL.",
  revoked:
    'The token was revoked, but the identity provider still uses it. Enter a living token of this directory in the ' +
    'identity provider.',
  expired:
    'The token has expired, but the identity provider still uses it. Issue a new token for this directory and enter it ' +
    'in the identity provider.',
  paused:
    'The directory is paused, so nothing is taken in. Resume it (PATCH it with "paused": false); the identity provider ' +
    'then has to send again what it sent meanwhile.',
  held_off:
    'So many requests without a valid token came from this address that further ones are not even looked at for a ' +
    'while. Correct the token in whatever sends them (the entries before tell what was wrong with it); it then gets in ' +
    'by itself.',
  unknown_members:
    'The group was pushed before its members: it names users whom the identity provider has not created here, or whom ' +
    'it created under other ids. Assign those users to the application as well, let them be pushed, then push the group ' +
    'again.',
  missing_attribute:
    'A required attribute is missing. Map a source attribute to it in the identity provider (the detail names it), and ' +
    'see that every assigned user has a value there.',
};

const BY_SCIM_TYPE: Record<string, string> = {
  invalidFilter:
    'The filter cannot be read or names an attribute that cannot be filtered on. Correct the matching attribute in the ' +
    'identity provider: userName, externalId and emails.value always work.',
  noTarget:
    'A PATCH names a value that the resource does not have, for example an e-mail of a type that the user has none of. ' +
    'If the identity provider is Entra ID, set the directory\'s idp to "entra", and the value is created instead.',
  mutability:
    'The request changes an attribute that clients may not change, or removes a required one. Take it out of the ' +
    'attribute mapping, or set the mapping to apply on creation only.',
  invalidPath:
    "A PATCH names an attribute that is not in the directory's schemas. Correct its name in the attribute mapping, or " +
    'register the attribute as a schema extension of the directory.',
  invalidSyntax: 'The body is not a SCIM message that can be read. The detail says where it breaks off.',
  invalidValue:
    'An attribute has a value of the wrong kind (the detail names it). Correct the mapping, or the value at its source.',
  tooMany:
    'The request asks for more than is allowed at once. Send fewer operations or values, or ask for a narrower filter.',
  sensitive: 'The request puts sensitive data into its address. Send such a search by POST to /.search.',
};

/** The cause of a failed request; null for one that did not fail. */
export function causeOf(entry: Refusal): string | null {
  const { status, scimType, reason, path } = entry;
  if (status < 400) return null;
  if (reason !== null && Object.hasOwn(BY_REASON, reason)) return BY_REASON[reason as Reason];
  if (path === '/oauth/token' && (status === 400 || status === 401)) return NO_GRANT;
  if (status === 409 || scimType === 'uniqueness') return taken(path);
  if (status === 404) return missing(path);
  const byType =
    scimType !== null && Object.hasOwn(BY_SCIM_TYPE, scimType) ? BY_SCIM_TYPE[scimType] : undefined;
  return byType ?? BY_STATUS[status] ?? (status >= 500 ? OWN_FAULT : null);
}

const NO_GRANT =
  'The identity provider asked for an access token and got none (the detail says why). Enter client id, client secret ' +
  'and token address of one living OAuth client of this directory in the identity provider, with client credentials ' +
  'as the grant.';

function taken(path: string): string {
  if (path.startsWith('/Groups')) {
    return (
      'A group of this name is there already. The identity provider has lost its link to it, or two groups of one name ' +
      "are pushed. Link the existing group in the identity provider's group push, or give one of them another name."
    );
  }
  return (
    'A user with this userName is there already, but the identity provider does not know it: it lost its link, or looks ' +
    'users up by another attribute. Match by userName (Okta: unique identifier field; Entra ID: matching precedence 1), ' +
    'then import or provision again; the existing user is linked instead of created.'
  );
}

function missing(path: string): string {
  const [, resource = '', id = ''] = (path.split('?', 1)[0] ?? '').split('/');
  const kind = { Users: 'user', Groups: 'group' }[resource];
  if (kind !== undefined && id !== '') {
    return (
      `The identity provider remembers the id of a ${kind} that is not in this directory: it was deleted here, or the ` +
      'id comes from another directory that the same application was connected to before. Clear that link (Okta: ' +
      'unassign and assign again, or unlink the pushed group; Entra ID: restart provisioning), and it is looked up anew.'
    );
  }
  return (
    'There is nothing at this address. The SCIM base URL in the identity provider has a wrong ending, most often /Users ' +
    "added or the directory's id cut short. Copy scimBaseUrl as it is."
  );
}

const BY_STATUS: Record<number, string> = {
  405: 'The address does not take this method. The identity provider speaks another dialect of SCIM than 2.0, or its base URL is wrong.',
  408: 'The body of the request took too long to come. The network between the identity provider and this server is slow or breaks off; a proxy in between may hold bodies back.',
  412: 'The resource has changed since the version that the client names (If-Match). It reads it again and repeats; nothing is to be done unless it goes on.',
  413: 'The request is larger than is taken. Let the identity provider send fewer members or operations in one request.',
  415: 'The body is not JSON in UTF-8, or compressed. Set the identity provider to application/scim+json.',
  429: "Requests came faster than this directory's limit, and the client was told when to go on. If it does not slow down, lower its rate or raise the limit.",
  501: 'The identity provider uses a part of SCIM that this server does not offer. Switch that option off (the service provider configuration says what is offered).',
  503: 'The service was short of its database, or the resource was being changed by many at once, so nothing was written. The client repeats it; if it goes on, look at /readyz.',
};

const OWN_FAULT =
  'The service failed by a fault of its own. Its log has the reason under the request id; nothing is to be done in the identity provider.';
