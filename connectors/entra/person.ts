/** Users of Graph as users of SCIM; the table stands in connector.ts. */
import type { SourceAttributes, SourceStatus, SourceUser } from '../connector.ts';
import type { Row } from './graph.ts';

export const USER_SELECT = [
  ...[
    'id',
    'accountEnabled',
    'userPrincipalName',
    'displayName',
    'givenName',
    'surname',
    'mail',
    'otherMails',
  ],
  ...['jobTitle', 'userType', 'preferredLanguage', 'employeeId', 'department', 'companyName'],
  ...[
    'businessPhones',
    'mobilePhone',
    'officeLocation',
    'streetAddress',
    'city',
    'state',
    'postalCode',
    'country',
  ],
].join(',');

const ENTERPRISE = 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User';
const ADDRESS = {
  officeLocation: 'formatted',
  streetAddress: 'streetAddress',
  city: 'locality',
  state: 'region',
  postalCode: 'postalCode',
  country: 'country',
};
const PLAIN = {
  displayName: 'displayName',
  jobTitle: 'title',
  userType: 'userType',
  preferredLanguage: 'preferredLanguage',
};
const NAME = { givenName: 'givenName', surname: 'familyName' };
const EXTENSION = { employeeId: 'employeeNumber', department: 'department', companyName: 'organization' };

/** Properties that together make one multi-valued attribute: a patch replaces it whole, so all of them are needed. */
const TOGETHER = [['mail', 'otherMails'], ['businessPhones', 'mobilePhone'], Object.keys(ADDRESS)];

/** Whether a delta row has some of the properties of a multi-valued attribute, but not all. */
export function isPartial(row: Row): boolean {
  return TOGETHER.some((names) => {
    const there = names.filter((name) => row[name] !== undefined).length;
    return there > 0 && there < names.length;
  });
}

/** Null: the source says that it has none, which is neither enabled nor disabled. undefined: it says nothing. */
export function enabledOf(row: Row): boolean | null | undefined {
  const { accountEnabled } = row;
  if (accountEnabled === undefined || typeof accountEnabled === 'boolean') return accountEnabled;
  return null;
}

export function statusOf(enabled: boolean): SourceStatus {
  return enabled ? 'active' : 'suspended';
}

/**
 * All attributes of a row that has all properties, or those that there are.
 * @returns with `patch` a merge patch (RFC 7396) of the properties in the row: what was cleared is null, and a
 * multi-valued attribute of which the row has only some properties is left out
 */
export function attributesOf(row: Row, patch: boolean): SourceAttributes {
  const attributes: SourceAttributes = {};
  const put = (to: SourceAttributes, name: string, value: unknown) => {
    if (value === undefined || (value === null && !patch)) return;
    to[name] = value;
  };
  const nested = (name: string, table: Record<string, string>) => {
    const inner: SourceAttributes = {};
    for (const [from, to] of Object.entries(table)) put(inner, to, textOf(row[from]));
    if (Object.keys(inner).length > 0) attributes[name] = inner;
  };
  const list = (name: string, properties: readonly string[], values: () => SourceAttributes[]) => {
    const there = properties.filter((property) => row[property] !== undefined).length;
    if (there === 0 || (patch && there < properties.length)) return;
    const made = values();
    if (made.length > 0) attributes[name] = made;
    else if (patch) attributes[name] = null;
  };

  const userName = textOf(row.userPrincipalName);
  if (userName) attributes.userName = userName;
  for (const [from, to] of Object.entries(PLAIN)) put(attributes, to, textOf(row[from]));
  nested('name', NAME);
  nested(ENTERPRISE, EXTENSION);
  list('emails', ['mail', 'otherMails'], () => emailsOf(row));
  list('phoneNumbers', ['businessPhones', 'mobilePhone'], () => [
    ...textsOf(row.businessPhones).map((value) => ({ type: 'work', value })),
    ...textsOf([row.mobilePhone]).map((value) => ({ type: 'mobile', value })),
  ]);
  list('addresses', Object.keys(ADDRESS), () => {
    const address: SourceAttributes = {};
    for (const [from, to] of Object.entries(ADDRESS)) {
      const value = textOf(row[from]);
      if (value) address[to] = value;
    }
    return Object.keys(address).length > 0 ? [{ type: 'work', ...address }] : [];
  });
  return attributes;
}

export function userOf(row: Row & { id: string }, status: SourceStatus): SourceUser {
  const attributes = attributesOf(row, false);
  const userName = typeof attributes.userName === 'string' ? attributes.userName : row.id;
  return { id: row.id, status, attributes: { ...attributes, userName }, changedAt: null };
}

/** Entra puts the id, without hyphens, in front of the name of who is soft-deleted, so that the name is free. */
export function deletedUserOf(row: Row & { id: string }): SourceUser {
  const name = textOf(row.userPrincipalName);
  const mark = row.id.replaceAll('-', '').toLowerCase();
  const marked = name?.toLowerCase().startsWith(mark) && name.length > mark.length;
  return userOf({ ...row, ...(marked && { userPrincipalName: name?.slice(mark.length) }) }, 'suspended');
}

function emailsOf(row: Row): SourceAttributes[] {
  const mail = textOf(row.mail);
  const others = textsOf(row.otherMails).filter((other) => other.toLowerCase() !== mail?.toLowerCase());
  return [
    ...(mail ? [{ type: 'work', value: mail, primary: true }] : []),
    ...others.map((value) => ({ type: 'other', value })),
  ];
}

/** Null for a cleared one, an empty text included; undefined for what is absent. */
function textOf(value: unknown): string | null | undefined {
  if (value === undefined) return undefined;
  return typeof value === 'string' && value !== '' ? value : null;
}

function textsOf(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((one) => typeof one === 'string' && one !== '') : [];
}
