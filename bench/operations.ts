/**
 * What an identity provider asks of a SCIM server, as orders to the load generator: the same bytes to every server.
 * Plain RFC 7644 in the spelling that all of them understand (lower-case `op`, one operation a request).
 */
import type { Plan } from './generator.ts';
import { type Filled, type Ground, type GroupedGround, USER } from './seed.ts';

export function patchBody(...operations: unknown[]): string {
  return JSON.stringify({
    schemas: ['urn:ietf:params:scim:api:messages:2.0:PatchOp'],
    Operations: operations,
  });
}

export function postUser(ground: Ground): Plan {
  return {
    method: 'POST',
    path: `${ground.path}/Users`,
    bodies: [USER],
    headers: ground.headers,
    expect: [201],
  };
}

export function getById(ground: Ground): Plan {
  return {
    method: 'GET',
    path: `${ground.path}/Users/{id}`,
    values: ground.people,
    headers: ground.headers,
    expect: [200],
  };
}

/** @param filter with `{name}` where the value stands */
export function getByFilter(ground: Ground, filter: string, values = ground.people): Plan {
  const encoded = encodeURIComponent(filter).replaceAll('%7Bname%7D', '{name}');
  return {
    method: 'GET',
    path: `${ground.path}/Users?filter=${encoded}&startIndex=1&count=100`,
    values,
    headers: ground.headers,
    expect: [200],
  };
}

export const USER_NAME_FILTER = 'userName eq "{name}"';

export function patchActive(ground: Ground): Plan {
  return {
    method: 'PATCH',
    path: `${ground.path}/Users/{id}`,
    bodies: [false, true].map((active) => patchBody({ op: 'replace', value: { active } })),
    values: ground.people,
    headers: ground.headers,
    expect: [200, 204],
  };
}

/**
 * One member added, and removed some requests later: far enough behind that callers side by side do not undo what is
 * still under way, near enough that the group keeps its size.
 */
export function patchMember(ground: GroupedGround, size: number, concurrency: number): Plan {
  return {
    method: 'PATCH',
    path: `${ground.path}/Groups/${ground.groups[size]}`,
    bodies: [
      patchBody({ op: 'add', path: 'members', value: [{ value: '{id}' }] }),
      patchBody({ op: 'remove', path: 'members[value eq "{id}"]' }),
    ],
    window: concurrency === 1 ? 1 : concurrency * 2,
    values: ground.outsiders,
    headers: ground.headers,
    expect: [200, 204],
  };
}

/** 100 users, far behind the first: by index, as every server understands it. */
export function listDeep(ground: Ground, users: number): Plan {
  return {
    method: 'GET',
    path: `${ground.path}/Users?startIndex=${Math.floor(users * 0.9) + 1}&count=100`,
    headers: ground.headers,
    expect: [200],
  };
}

/** What an identity provider sends when somebody leaves. @throws Error when it is refused */
export async function patchInactive(port: number, tenant: Filled, id: string): Promise<void> {
  const response = await fetch(`http://127.0.0.1:${port}${tenant.path}/Users/${id}`, {
    method: 'PATCH',
    headers: tenant.headers,
    body: JSON.stringify({
      schemas: ['urn:ietf:params:scim:api:messages:2.0:PatchOp'],
      Operations: [{ op: 'replace', value: { active: false } }],
    }),
  });
  if (!response.ok) throw new Error(`PATCH active: ${response.status} ${await response.text()}`);
  await response.body?.cancel();
}
