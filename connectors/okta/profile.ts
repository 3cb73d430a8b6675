/**
 * Okta's user profile in the terms of SCIM, and what an Okta status means here. docs/connectors.md shows the table.
 * https://developer.okta.com/docs/api/openapi/okta-management/management/tag/User/
 */
import type { SourceAttributes, SourceStatus, SourceUser } from '../connector.ts';
import { ConnectorError } from '../connector.ts';

export const ENTERPRISE = 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User';
/** Under it stand the attributes that the customer added to the profile, by their own names. */
export const CUSTOM = 'urn:okta:directory:1.0:user:custom';

/**
 * LOCKED_OUT is active: whoever mistypes a colleague's password must not end that colleague's sessions. STAGED has not
 * been let in yet. A status that Okta adds later gives no access until somebody has decided what it means.
 */
const STATUSES: Record<string, SourceStatus> = {
  ACTIVE: 'active',
  PROVISIONED: 'active',
  RECOVERY: 'active',
  PASSWORD_EXPIRED: 'active',
  PASSWORD_RESET: 'active',
  LOCKED_OUT: 'active',
  STAGED: 'suspended',
  SUSPENDED: 'suspended',
  DEPROVISIONED: 'removed',
};

/** Attributes of Okta's base profile that {@link attributesOf} names by itself. */
const BASE = new Set(
  (
    'login email secondEmail firstName lastName middleName honorificPrefix honorificSuffix title displayName nickName ' +
    'profileUrl primaryPhone mobilePhone streetAddress city state zipCode countryCode postalAddress preferredLanguage ' +
    'locale timezone userType employeeNumber costCenter organization division department managerId manager'
  ).split(' '),
);

type Row = Record<string, unknown>;

/** @throws ConnectorError `malformed` when it is not a user */
export function readUser(row: unknown): SourceUser & { profileNames: string[] } {
  const user = object(row);
  const profile = user && object(user.profile);
  const [id, status] = [text(user?.id), text(user?.status)];
  const userName = text(profile?.login);
  if (!user || !profile || !id || !status || !userName) {
    const named = id === undefined ? 'without id' : `with id ${id}`;
    throw new ConnectorError(
      'malformed',
      `Okta sent a user ${named} that lacks id, status or profile.login. Try again; if it stays, ask Okta's support.`,
    );
  }
  return {
    id,
    status: STATUSES[status] ?? 'suspended',
    attributes: { ...attributesOf(profile), userName },
    changedAt: newest(user.lastUpdated, user.statusChanged),
    profileNames: Object.keys(profile).filter((name) => profile[name] !== null && profile[name] !== ''),
  };
}

export interface OktaGroup {
  id: string;
  displayName: string;
  type: string;
  createdAt: Date | null;
  changedAt: Date | null;
  /** Null: Okta did not tell. */
  membersChangedAt: Date | null;
}

/** @throws ConnectorError `malformed` when it is not a group */
export function readGroup(row: unknown): OktaGroup {
  const group = object(row);
  const [id, displayName] = [text(group?.id), text(object(group?.profile)?.name)];
  if (!group || !id || !displayName) {
    const named = id === undefined ? 'without id' : `with id ${id}`;
    throw new ConnectorError(
      'malformed',
      `Okta sent a group ${named} that lacks id or profile.name. Try again; if it stays, ask Okta's support.`,
    );
  }
  return {
    ...{ id, displayName, type: text(group.type) ?? '' },
    createdAt: newest(group.created),
    changedAt: newest(group.lastUpdated),
    membersChangedAt: newest(group.lastMembershipUpdated),
  };
}

function attributesOf(profile: Row): SourceAttributes {
  const from = (name: string) => text(profile[name]);
  const given = from('firstName');
  const last = from('lastName');
  const whole = [given, last].filter(Boolean).join(' ');
  const street = from('streetAddress');
  const custom = Object.entries(profile).filter(([name, value]) => !BASE.has(name) && isPlain(value));
  const manager = some({ value: from('managerId'), displayName: from('manager') });
  return some({
    name: some({
      ...{ givenName: given, familyName: last, middleName: from('middleName') },
      ...{ honorificPrefix: from('honorificPrefix'), honorificSuffix: from('honorificSuffix') },
    }),
    displayName: from('displayName') ?? (whole === '' ? undefined : whole),
    ...{ nickName: from('nickName'), profileUrl: from('profileUrl'), title: from('title') },
    ...{ userType: from('userType'), preferredLanguage: from('preferredLanguage') },
    ...{ locale: from('locale'), timezone: from('timezone') },
    emails: list(
      from('email') && { value: from('email'), type: 'work', primary: true },
      from('secondEmail') && { value: from('secondEmail'), type: 'other' },
    ),
    phoneNumbers: list(
      from('primaryPhone') && { value: from('primaryPhone'), type: 'work' },
      from('mobilePhone') && { value: from('mobilePhone'), type: 'mobile' },
    ),
    addresses: list(
      some({
        ...{ streetAddress: street, locality: from('city'), region: from('state') },
        ...{ postalCode: from('zipCode'), country: from('countryCode'), formatted: from('postalAddress') },
      }),
    )?.map((address) => ({ ...address, type: 'work' })),
    [ENTERPRISE]: some({
      ...{ employeeNumber: from('employeeNumber'), costCenter: from('costCenter') },
      ...{ organization: from('organization'), division: from('division'), department: from('department') },
      manager,
    }),
    [CUSTOM]: some(Object.fromEntries(custom)),
  }) as SourceAttributes;
}

/** Without what is undefined; undefined when nothing is left. */
function some(from: Row): Row | undefined {
  const entries = Object.entries(from).filter(([, value]) => value !== undefined);
  return entries.length === 0 ? undefined : Object.fromEntries(entries);
}

function list(...values: (Row | string | undefined)[]): Row[] | undefined {
  const kept = values.filter((value): value is Row => typeof value === 'object');
  return kept.length === 0 ? undefined : kept;
}

function isPlain(value: unknown): boolean {
  if (Array.isArray(value))
    return value.length > 0 && value.every((v) => v !== null && typeof v !== 'object');
  return value !== null && value !== '' && value !== undefined && typeof value !== 'object';
}

export function object(value: unknown): Row | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Row) : undefined;
}

/** A text that says something. */
export function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

/** @returns the latest of Okta's times; null when there is none */
export function newest(...times: unknown[]): Date | null {
  const known = times.map((time) => Date.parse(text(time) ?? '')).filter((ms) => !Number.isNaN(ms));
  return known.length === 0 ? null : new Date(Math.max(...known));
}
