/** What the same machine does with one bare statement a request (raw-server.ts), as orders to the load generator. */
import type { Plan } from './generator.ts';
import { type Person, USER } from './seed.ts';

const headers = { 'content-type': 'application/scim+json', authorization: 'Bearer none' };

export type Ceiling = 'insert' | 'read' | 'readByKey' | 'update';

/** How a ceiling is called beside a figure. */
export const CEILING_NAMES: Record<Ceiling, string> = {
  insert: 'raw INSERT',
  read: 'raw read by id',
  readByKey: 'raw read by key',
  update: 'raw UPDATE by id',
};

/** @param people of the table that the raw server reads (Bench.template's) */
export function ceilingPlan(ceiling: Ceiling, people: Person[]): Plan {
  switch (ceiling) {
    case 'insert':
      return { method: 'POST', path: '/users', bodies: [USER], headers, expect: [201] };
    case 'read':
      return { method: 'GET', path: '/people/{id}', values: people, headers, expect: [200] };
    case 'readByKey':
      return { method: 'GET', path: '/people?userName={name}', values: people, headers, expect: [200] };
    case 'update':
      return {
        method: 'PATCH',
        path: '/people/{id}',
        bodies: [false, true].map((active) => JSON.stringify({ active })),
        values: people,
        headers,
        expect: [200],
      };
  }
}
