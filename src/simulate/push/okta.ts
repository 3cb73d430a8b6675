/**
 * A SCIM client that behaves as Okta does when it provisions an app. As the real one, it
 * - looks a person up with `userName eq "…"` and adopts who is there, reactivating a deactivated one;
 * - as an app made with the wizard (the default) sends PUT for every change of a person, after a GET; as a catalogue
 *   app PATCHes `active` and PUTs the rest;
 * - never DELETEs a person: whoever leaves becomes `active: false`;
 * - pushes a group by POST without members, PATCHes members, renames by a pathless replace whose value has the id,
 *   and on "Push Now" replaces the members by none and adds them again;
 * - reads only an integer Retry-After and gives up after 10 tries (see wire.ts).
 *
 * What it does not do: profile import from the app, password sync, entitlements, linking a pushed group to an existing
 * one by hand, manager attributes, retries of a failed task by an administrator.
 */
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
import { displayName, groupsOf, type Organisation, type Person, personOf } from './organisation.ts';
import { idOf, resources } from './wire.ts';

export interface OktaOptions extends ClientOptions {
  /** How the app was made: `wizard` always PUTs people, `catalogue` PATCHes active. Default `wizard`. */
  app?: 'wizard' | 'catalogue' | undefined;
}

export function oktaClient(options: OktaOptions): ScimClient {
  return openClient(oktaDialect(options.app ?? 'wizard'), options);
}

function oktaDialect(app: 'wizard' | 'catalogue'): Dialect {
  const userIds = new Map<string, string>();
  const groupIds = new Map<string, string>();
  const provisioned = (keys: Iterable<string>, organisation: Organisation) =>
    [...keys].flatMap((key) => {
      const id = userIds.get(key);
      const person = organisation.people.get(key);
      return id !== undefined && person?.state === 'active' ? [{ value: id, display: person.userName }] : [];
    });

  async function provision(send: Send, person: Person): Promise<void> {
    const found = await send('GET', `/Users?${userNameFilter(person.userName)}`);
    const [match] = resources(found);
    if (match) {
      userIds.set(person.key, idOf(match));
      await put(send, person);
      return;
    }
    const created = await send('POST', '/Users', { ...userResource(person), password: '1mz050nq' }, [201]);
    userIds.set(person.key, idOf(created.body));
  }

  async function put(send: Send, person: Person): Promise<void> {
    const id = known(userIds, person.key);
    await send('GET', `/Users/${id}`);
    await send('PUT', `/Users/${id}`, { ...userResource(person), id, meta: { resourceType: 'User' } }, [200]);
  }

  async function activate(send: Send, person: Person): Promise<void> {
    if (app === 'wizard') return put(send, person);
    const value = { active: person.state === 'active' };
    await patch(send, `/Users/${known(userIds, person.key)}`, [{ op: 'replace', value }]);
  }

  async function addMembers(send: Send, organisation: Organisation, group: string, keys: Iterable<string>) {
    const value = provisioned(keys, organisation);
    if (value.length === 0) return;
    await patch(send, `/Groups/${known(groupIds, group)}`, [{ op: 'add', path: 'members', value }]);
  }

  return {
    idp: 'okta',
    userAgent: 'Okta SCIM Client 1.0.0',
    userIds,
    async test(send) {
      await send('GET', `/Users?${query({ startIndex: 1, count: 1 })}`);
    },
    async push(send, organisation, operation) {
      switch (operation.kind) {
        case 'join':
          return provision(send, personOf(organisation, operation.person.key));
        case 'move':
        case 'rename':
          return put(send, personOf(organisation, operation.person));
        case 'deactivate':
        case 'leave':
          return activate(send, personOf(organisation, operation.person));
        case 'rehire': {
          const person = personOf(organisation, operation.person);
          const found = await send('GET', `/Users?${userNameFilter(person.userName)}`);
          const [match] = resources(found);
          if (!match) return provision(send, person);
          userIds.set(person.key, idOf(match));
          await activate(send, person);
          // Who is assigned again is pushed into the groups again; the server may have kept them, and does not mind.
          for (const group of groupsOf(organisation, person.key)) {
            if (groupIds.has(group.key)) await addMembers(send, organisation, group.key, [person.key]);
          }
          return;
        }
        case 'group-create': {
          const { key, name } = operation.group;
          const found = await send('GET', `/Groups?${groupNameFilter(name)}`);
          const [match] = resources(found);
          const id = match
            ? idOf(match)
            : idOf(
                (await send('POST', '/Groups', { schemas: [GROUP], displayName: name, members: [] }, [201]))
                  .body,
              );
          groupIds.set(key, id);
          return addMembers(send, organisation, key, operation.group.members);
        }
        case 'group-rename': {
          const id = known(groupIds, operation.group);
          await patch(send, `/Groups/${id}`, [{ op: 'replace', value: { id, displayName: operation.name } }]);
          return;
        }
        case 'group-delete': {
          await send('DELETE', `/Groups/${known(groupIds, operation.group)}`, undefined, [204, 404]);
          groupIds.delete(operation.group);
          return;
        }
        case 'membership': {
          const removals = operation.remove.flatMap((key) => {
            const id = userIds.get(key);
            return id === undefined ? [] : [{ op: 'remove', path: `members[value eq ${quoted(id)}]` }];
          });
          const additions = provisioned(operation.add, organisation);
          const operations = [
            ...removals,
            ...(additions.length > 0 ? [{ op: 'add', path: 'members', value: additions }] : []),
          ];
          if (operations.length > 0)
            await patch(send, `/Groups/${known(groupIds, operation.group)}`, operations);
          return;
        }
        case 'push-now': {
          const members = organisation.groups.get(operation.group)?.members ?? [];
          await patch(send, `/Groups/${known(groupIds, operation.group)}`, [
            { op: 'replace', path: 'members', value: [] },
          ]);
          return addMembers(send, organisation, operation.group, members);
        }
      }
    },
  };
}

function userResource(person: Person): Record<string, unknown> {
  return {
    schemas: [USER, ENTERPRISE],
    userName: person.userName,
    name: { givenName: person.givenName, familyName: person.familyName },
    emails: [{ primary: true, value: person.email, type: 'work' }],
    displayName: displayName(person),
    title: person.title,
    locale: 'en-US',
    externalId: person.key,
    groups: [],
    active: person.state === 'active',
    [ENTERPRISE]: { department: person.department },
  };
}

function userNameFilter(userName: string): string {
  return query({ filter: `userName eq ${quoted(userName)}`, startIndex: 1, count: 100 });
}

function groupNameFilter(name: string): string {
  return query({ filter: `displayName eq ${quoted(name)}`, startIndex: 1, count: 100 });
}

async function patch(send: Send, path: string, operations: unknown[]): Promise<void> {
  await send('PATCH', path, { schemas: [PATCH], Operations: operations }, [200, 204]);
}

function known(ids: Map<string, string>, key: string): string {
  const id = ids.get(key);
  if (id === undefined) throw new Error(`${key} was never pushed`);
  return id;
}
