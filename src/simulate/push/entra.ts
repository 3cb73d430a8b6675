/**
 * A SCIM client that behaves as the Microsoft Entra ID provisioning service does. As the real one, it
 * - tests the connection with a filter on a random GUID and wants 200 with an empty list;
 * - matches people on userName or externalId (a setting), groups on displayName with `excludedAttributes=members`;
 * - sends only what differs, with capitalised ops and booleans as "True"/"False", in one of two shapes in turn: a path
 *   for each attribute, or one pathless value with dotted and URN keys;
 * - sends `emails[type eq "work"].value` whether it exists or not, and the manager as a bare string;
 * - adds members with `$ref: null`, removes them in turn by a value array and by a filter path;
 * - first blocks who leaves (active "False"), then DELETEs them; a person of the same name who comes later is a new one;
 * - reads an integer Retry-After (see wire.ts).
 *
 * What it does not do: wait for the 40-minute cycle, escrow and quarantine, provisioning on demand, app roles, proxy
 * addresses, telephone numbers, the 30 days between soft and hard deletion, its OAuth sign-in for a token.
 */
import { randomUUID } from 'node:crypto';
import {
  type ClientOptions,
  type Dialect,
  ENTERPRISE,
  GROUP,
  openClient,
  PATCH,
  query,
  quoted,
  type ScimClient,
  type Send,
  USER,
} from './client.ts';
import { displayName, type Organisation, type Person, personOf } from './organisation.ts';
import { idOf, PushFailed, resources } from './wire.ts';

export interface EntraOptions extends ClientOptions {
  /** The attribute on which people are matched. Default `userName`. */
  matchOn?: 'userName' | 'externalId' | undefined;
  /** Sends externalId filters without quotes, as the service has been seen to do. Default false. */
  unquotedExternalId?: boolean | undefined;
}

export function entraClient(options: EntraOptions): ScimClient {
  return openClient(entraDialect(options), options);
}

const MANAGER = `${ENTERPRISE}:manager`;

type Attributes = Record<string, string | null>;
interface PatchOperation {
  op: 'Add' | 'Replace' | 'Remove';
  path?: string;
  value?: unknown;
}

function entraDialect(options: Pick<EntraOptions, 'matchOn' | 'unquotedExternalId'>): Dialect {
  const userIds = new Map<string, string>();
  const groupIds = new Map<string, string>();
  /** What the server was last told of each person. */
  const told = new Map<string, Attributes>();
  let turn = 0;

  const filterFor = (person: Person) => {
    if (options.matchOn !== 'externalId') return `userName eq ${quoted(person.userName)}`;
    return `externalId eq ${options.unquotedExternalId ? person.key : quoted(person.key)}`;
  };

  async function provision(send: Send, organisation: Organisation, person: Person): Promise<void> {
    const [match] = resources(await send('GET', `/Users?${query({ filter: filterFor(person) })}`));
    if (match) {
      userIds.set(person.key, idOf(match));
      told.set(person.key, {});
      return update(send, organisation, person);
    }
    const attributes = attributesOf(person, userIds);
    const created = await send('POST', '/Users', userResource(person, attributes[MANAGER] ?? null), [201]);
    userIds.set(person.key, idOf(created.body));
    told.set(person.key, attributes);
  }

  async function update(send: Send, organisation: Organisation, person: Person): Promise<void> {
    const before = told.get(person.key) ?? {};
    const after = attributesOf(personOf(organisation, person.key), userIds);
    const operations = difference(before, after, turn++ % 2 === 0 ? 'paths' : 'pathless');
    if (operations.length === 0) return;
    await patch(send, `/Users/${known(userIds, person.key)}`, operations);
    told.set(person.key, after);
  }

  const members = (keys: Iterable<string>) =>
    [...keys].flatMap((key) => {
      const id = userIds.get(key);
      return id === undefined ? [] : [{ $ref: null, value: id }];
    });

  function removal(keys: string[]): PatchOperation[] {
    const value = members(keys);
    if (value.length === 0) return [];
    if (turn++ % 2 === 0) return [{ op: 'Remove', path: 'members', value }];
    return value.map((m) => ({ op: 'Remove', path: `members[value eq ${quoted(m.value)}]` }));
  }

  return {
    idp: 'entra',
    userAgent: 'Azure AD Provisioning',
    userIds,
    async test(send) {
      const answer = await send('GET', `/Users?${query({ filter: `userName eq ${quoted(randomUUID())}` })}`);
      if (answer.body.totalResults !== 0)
        throw new PushFailed(
          'the test of the connection expects an empty list for an unknown userName',
          answer.status,
        );
    },
    async push(send, organisation, operation) {
      switch (operation.kind) {
        case 'join':
          return provision(send, organisation, personOf(organisation, operation.person.key));
        case 'move':
        case 'rename':
        case 'deactivate':
        case 'rehire':
          return update(send, organisation, personOf(organisation, operation.person));
        case 'leave': {
          await update(send, organisation, personOf(organisation, operation.person));
          await send('DELETE', `/Users/${known(userIds, operation.person)}`, undefined, [204, 404]);
          told.delete(operation.person);
          return;
        }
        case 'group-create': {
          const { key, name } = operation.group;
          const filter = query({ excludedAttributes: 'members', filter: `displayName eq ${quoted(name)}` });
          const [match] = resources(await send('GET', `/Groups?${filter}`));
          const id = match
            ? idOf(match)
            : idOf((await send('POST', '/Groups', groupResource(key, name), [201])).body);
          groupIds.set(key, id);
          const value = members(operation.group.members);
          if (value.length > 0) await patch(send, `/Groups/${id}`, [{ op: 'Add', path: 'members', value }]);
          return;
        }
        case 'group-rename': {
          const id = known(groupIds, operation.group);
          await send('GET', `/Groups/${id}?excludedAttributes=members`);
          await patch(send, `/Groups/${id}`, [{ op: 'Replace', path: 'displayName', value: operation.name }]);
          return;
        }
        case 'group-delete': {
          await send('DELETE', `/Groups/${known(groupIds, operation.group)}`, undefined, [204, 404]);
          groupIds.delete(operation.group);
          return;
        }
        case 'membership': {
          const added = members(operation.add);
          const operations: PatchOperation[] = [
            ...removal(operation.remove),
            ...(added.length > 0 ? [{ op: 'Add' as const, path: 'members', value: added }] : []),
          ];
          if (operations.length > 0)
            await patch(send, `/Groups/${known(groupIds, operation.group)}`, operations);
          return;
        }
        case 'push-now':
          throw new Error('Entra ID has no "Push Now"');
      }
    },
  };
}

function userResource(person: Person, manager: string | null): Record<string, unknown> {
  return {
    schemas: [USER, ENTERPRISE],
    externalId: person.key,
    userName: person.userName,
    active: person.state === 'active',
    displayName: displayName(person),
    title: person.title,
    emails: [{ primary: true, type: 'work', value: person.email }],
    meta: { resourceType: 'User' },
    name: { formatted: displayName(person), familyName: person.familyName, givenName: person.givenName },
    roles: [],
    [ENTERPRISE]: { department: person.department, ...(manager === null ? {} : { manager }) },
  };
}

function groupResource(key: string, name: string): Record<string, unknown> {
  return {
    schemas: [GROUP, 'http://schemas.microsoft.com/2006/11/ResourceManagement/ADSCIM/2.0/Group'],
    externalId: key,
    displayName: name,
    meta: { resourceType: 'Group' },
  };
}

/** The attribute mappings: SCIM path → value as Entra sends it. */
function attributesOf(person: Person, userIds: Map<string, string>): Attributes {
  return {
    active: person.state === 'active' ? 'True' : 'False',
    userName: person.userName,
    externalId: person.key,
    displayName: displayName(person),
    title: person.title,
    'name.givenName': person.givenName,
    'name.familyName': person.familyName,
    'name.formatted': displayName(person),
    'emails[type eq "work"].value': person.email,
    [`${ENTERPRISE}:department`]: person.department,
    [MANAGER]: person.manager === null ? null : (userIds.get(person.manager) ?? null),
  };
}

function difference(before: Attributes, after: Attributes, shape: 'paths' | 'pathless'): PatchOperation[] {
  const operations: PatchOperation[] = [];
  const together: Attributes = {};
  for (const [path, value] of Object.entries(after)) {
    const old = before[path] ?? null;
    if (value === old) continue;
    if (value === null) operations.push({ op: 'Remove', path });
    // A value path and the manager have an op of their own in both shapes.
    else if (shape === 'paths' || path.includes('[') || path === MANAGER)
      operations.push({ op: old === null ? 'Add' : 'Replace', path, value });
    else together[path] = value;
  }
  if (Object.keys(together).length > 0) operations.push({ op: 'Replace', value: together });
  return operations;
}

async function patch(send: Send, path: string, operations: PatchOperation[]): Promise<void> {
  await send('PATCH', path, { schemas: [PATCH], Operations: operations }, [200, 204]);
}

function known(ids: Map<string, string>, key: string): string {
  const id = ids.get(key);
  if (id === undefined) throw new Error(`${key} was never pushed`);
  return id;
}
