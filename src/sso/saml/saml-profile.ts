/** From an assertion to who it is: the subject, the names that identity providers usually give attributes, all claims. */
import { type ProfileRead, readProfile } from '../profile.ts';
import type { Assertion, NameId } from './assertion.ts';
import { EMAIL_ADDRESS, TRANSIENT, UNSPECIFIED } from './names.ts';
import type { SamlSettings } from './saml-kind.ts';

const WS2005 = 'http://schemas.xmlsoap.org/ws/2005/05/identity/claims/';
const MICROSOFT = 'http://schemas.microsoft.com/identity/claims/';
const ENTRA_GROUPS = 'http://schemas.microsoft.com/ws/2008/06/identity/claims/groups';
/** Entra ID sends this in place of groups when there are more than 150. */
const ENTRA_OVERAGE = 'http://schemas.microsoft.com/claims/groups.link';

/** In the order in which they are tried, without regard to case. */
const USUAL = {
  email: ['email', 'mail', 'emailaddress', `${WS2005}emailaddress`, 'urn:oid:0.9.2342.19200300.100.1.3'],
  userName: [
    ...[`${WS2005}name`, `${WS2005}upn`, 'upn', 'userprincipalname', 'username', 'uid', 'login'],
    ...['urn:oid:0.9.2342.19200300.100.1.1', 'urn:oid:1.3.6.1.4.1.5923.1.1.1.6'],
  ],
  displayName: [
    'displayname',
    `${MICROSOFT}displayname`,
    'urn:oid:2.16.840.1.113730.3.1.241',
    'name',
    'cn',
    'urn:oid:2.5.4.3',
  ],
  givenName: ['givenname', 'firstname', 'first_name', `${WS2005}givenname`, 'urn:oid:2.5.4.42'],
  surname: ['surname', 'lastname', 'last_name', 'sn', `${WS2005}surname`, 'urn:oid:2.5.4.4'],
  /** Only names that mean nothing else: an object id ties people together. */
  objectId: [`${MICROSOFT}objectidentifier`],
} as const;

type Names = Pick<SamlSettings, 'attributes' | 'entityId'>;

export type SamlProfileRead = ProfileRead | { ok: false; reason: 'subject_transient' };

/** @param ours our entity id for the connection */
export function profileOf(assertion: Assertion, settings: Names, ours: string): SamlProfileRead {
  const subject = subjectOf(assertion, settings, ours);
  if (subject === 'transient') return { ok: false, reason: 'subject_transient' };
  const { nameId } = assertion;
  const { attributes: chosen } = settings;
  const find = (name: Exclude<keyof typeof USUAL, 'givenName' | 'surname'>) => {
    const configured = chosen[name];
    return configured === undefined ? first(assertion, USUAL[name]) : first(assertion, [configured]);
  };
  const whole = [first(assertion, USUAL.givenName), first(assertion, USUAL.surname)].filter(
    (part) => part !== null,
  );
  const named =
    nameId !== null &&
    (nameId.format === null || nameId.format === UNSPECIFIED || nameId.format === EMAIL_ADDRESS);
  return readProfile({
    subject,
    objectId: find('objectId'),
    userName: find('userName') ?? (named ? nameId.value : null),
    email: find('email') ?? (nameId?.format === EMAIL_ADDRESS ? nameId.value : null),
    displayName: find('displayName') ?? (whole.length > 0 ? whole.join(' ') : null),
    claims: claimsOf(assertion),
  });
}

function subjectOf(assertion: Assertion, settings: Names, ours: string): string | 'transient' | null {
  const configured = settings.attributes.subject;
  if (configured !== undefined) {
    const values = valuesOf(assertion, configured);
    return values.length === 1 ? (values[0] ?? null) : null;
  }
  if (assertion.nameId?.format === TRANSIENT) return 'transient';
  return assertion.nameId === null ? null : subjectOfNameId(assertion.nameId, settings.entityId, ours);
}

/**
 * A name by which the person is known for ever. Qualifiers that say no more than who speaks to whom are left out, so that
 * a provider may begin or cease to send them; others make it another person (SAML 2.0 core, 8.3.7).
 */
export function subjectOfNameId(nameId: NameId, issuer: string, ours: string): string {
  const by = nameId.nameQualifier === issuer ? null : nameId.nameQualifier;
  const to = nameId.spNameQualifier === ours ? null : nameId.spNameQualifier;
  return by || to ? `${by ?? ''}!${to ?? ''}!${nameId.value}` : nameId.value;
}

/** All attributes: one value as text, several as a list; groups always a list. */
export function claimsOf(assertion: Assertion): Record<string, unknown> {
  const claims = [...assertion.attributes].map(([name, values]): [string, unknown] => [
    name,
    values.length === 1 && name !== 'groups' ? values[0] : [...values],
  ]);
  const groups = assertion.attributes.get(ENTRA_GROUPS);
  if (groups && !assertion.attributes.has('groups')) claims.push(['groups', [...groups]]);
  return Object.fromEntries(claims);
}

/** What an administrator should know of it. */
export function notesOf(assertion: Assertion): string[] {
  return assertion.attributes.has(ENTRA_OVERAGE)
    ? [
        'Entra ID did not send the groups, since the person is in more than 150. Let it send only the groups that are ' +
          'assigned to the application.',
      ]
    : [];
}

function first(assertion: Assertion, names: readonly string[]): string | null {
  for (const name of names) {
    const value = valuesOf(assertion, name)[0];
    if (value !== undefined) return value;
  }
  return null;
}

function valuesOf(assertion: Assertion, name: string): readonly string[] {
  const exact = assertion.attributes.get(name);
  if (exact) return exact;
  const wanted = name.toLowerCase();
  for (const [other, values] of assertion.attributes) if (other.toLowerCase() === wanted) return values;
  return [];
}
