/**
 * Microsoft Entra ID, read through Microsoft Graph: users and groups by delta queries, so that a snapshot's delta links
 * are where incremental pulls go on. `connection.ts` and the SDK are loaded when a connection is opened.
 *
 * What a directory's administrator grants the application (application permissions, with admin consent): User.Read.All
 * and GroupMember.Read.All, or Directory.Read.All alone.
 *
 * Graph tells no times of change, so `changedAt` is null throughout.
 *
 * | in Entra ID                                          | here                                                       |
 * | ---------------------------------------------------- | ---------------------------------------------------------- |
 * | object id                                            | `id`                                                       |
 * | accountEnabled true, false                           | status `active`, `suspended`                               |
 * | accountEnabled null                                  | asked again by id; still null: `suspended`, but see below  |
 * | soft-deleted (`@removed` changed; deletedItems)      | status `suspended`                                         |
 * | permanently deleted (`@removed` deleted)             | status `removed`                                           |
 * | userPrincipalName                                    | `userName`; of the soft-deleted without its id in front    |
 * | displayName, givenName, surname                      | `displayName`, `name.givenName`, `name.familyName`         |
 * | mail; otherMails                                     | `emails`: of type work, primary; of type other             |
 * | businessPhones; mobilePhone                          | `phoneNumbers`: of type work; of type mobile               |
 * | jobTitle, userType (Member, Guest), preferredLanguage| `title`, `userType`, `preferredLanguage`                   |
 * | streetAddress, city, state, postalCode, country,     | `addresses`: one of type work; officeLocation is its       |
 * | officeLocation                                       | `formatted`                                                |
 * | employeeId, department, companyName                  | the enterprise extension's `employeeNumber`, `department`, |
 * |                                                      | `organization`                                             |
 * | groups of any kind, and groups in them               | groups, members of kind `group`                            |
 * | devices, service principals and contacts in a group  | left out                                                   |
 *
 * When many users come with accountEnabled null, Graph is hiding it from an application that lost a permission: that is
 * an error, not that many suspensions. Not read: managers, photos, licences, roles of Entra ID itself, administrative
 * units, members of dynamic groups otherwise than Graph has worked them out.
 */
import type { ConnectorKind } from '../connector.ts';
import { type EntraConfig, entraConfig } from './config.ts';
import { answerHint } from './hint.ts';

export type { EntraConfig } from './config.ts';

export const kind: ConnectorKind<EntraConfig> = {
  kind: 'entra',
  config: entraConfig,
  secrets: ['clientSecret', 'privateKey'],
  connect: async (options) => (await import('./connection.ts')).openConnection(options),
  hint: answerHint,
};
