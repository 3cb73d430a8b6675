/** What an administrator of a simulated directory does, as JSON: the body of POST /_simulator/operations. */
import { z } from 'zod';
import { seeded } from '../random.ts';
import { operateAtRandom, type Population, type User } from './population.ts';

const attributes = z.strictObject({
  ...Object.fromEntries(
    (['userName', 'email', 'givenName', 'familyName', 'displayName', 'title', 'department'] as const).map(
      (name) => [name, z.string().min(1).max(200).optional()],
    ),
  ),
  employeeNumber: z.string().max(100).optional(),
  city: z.string().max(200).optional(),
  country: z.string().max(200).optional(),
  mobilePhone: z.string().max(100).nullable().optional(),
  manager: z.string().max(100).nullable().optional(),
}) as z.ZodType<Partial<Record<string, string>>>;

/** `user` is an id or a userName, `group` an id or a name. */
const user = z.string().max(300);
const group = z.string().max(300);

export const operation = z.discriminatedUnion('do', [
  z.strictObject({
    do: z.literal('add_user'),
    attributes: attributes.optional(),
    variant: z.string().optional(),
  }),
  z.strictObject({
    do: z.literal('change_user'),
    user,
    attributes: attributes.default({}),
    variant: z.string().optional(),
  }),
  z.strictObject({ do: z.enum(['suspend', 'restore', 'remove', 'erase']), user }),
  z.strictObject({ do: z.literal('add_group'), name: z.string().min(1).max(200).optional() }),
  z.strictObject({
    do: z.literal('change_group'),
    group,
    name: z.string().max(200).optional(),
    description: z.string().max(500).optional(),
  }),
  z.strictObject({ do: z.literal('erase_group'), group }),
  z.strictObject({
    do: z.enum(['add_members', 'remove_members']),
    group,
    users: z.array(user).default([]),
    groups: z.array(group).default([]),
  }),
  z.strictObject({
    do: z.literal('random'),
    times: z.int().min(1).max(100_000).default(1),
    seed: z.int().min(0).optional(),
  }),
]);

export type Operation = z.input<typeof operation>;

/**
 * @returns words, and the id of whom or what it made or touched
 * @throws Error that names whom or what there is not
 */
export function operate(population: Population, input: Operation): { did: string; id?: string } {
  const op = operation.parse(input);
  switch (op.do) {
    case 'add_user': {
      const made = population.addUser(op.attributes, op.variant === undefined ? {} : { variant: op.variant });
      return { did: `added ${made.userName}`, id: made.id };
    }
    case 'change_user': {
      const found = userOf(population, op.user);
      population.changeUser(found.n, op.attributes, op.variant);
      return { did: `changed ${found.userName}`, id: found.id };
    }
    case 'suspend':
    case 'restore':
    case 'remove':
    case 'erase': {
      const found = userOf(population, op.user);
      population[op.do](found.n);
      return { did: `${op.do}: ${found.userName}`, id: found.id };
    }
    case 'add_group': {
      const made = population.addGroup(op.name);
      return { did: `added group ${made.name}`, id: made.id };
    }
    case 'change_group': {
      const found = groupOf(population, op.group);
      population.changeGroup(found.n, {
        ...(op.name !== undefined && { name: op.name }),
        ...(op.description !== undefined && { description: op.description }),
      });
      return { did: `changed group ${found.name}`, id: found.id };
    }
    case 'erase_group': {
      const found = groupOf(population, op.group);
      population.eraseGroup(found.n);
      return { did: `erased group ${found.name}`, id: found.id };
    }
    case 'add_members':
    case 'remove_members': {
      const found = groupOf(population, op.group);
      const users = op.users.map((u) => userOf(population, u).n);
      const groups = op.groups.map((g) => groupOf(population, g).n);
      if (op.do === 'add_members') population.addMembers(found.n, users, groups);
      else population.removeMembers(found.n, users, groups);
      return { did: `${op.do}: ${found.name}`, id: found.id };
    }
    case 'random': {
      const random = op.seed === undefined ? undefined : seeded(op.seed);
      let words = '';
      for (let n = 0; n < op.times; n += 1) words = operateAtRandom(population, random);
      return { did: op.times === 1 ? words : `${op.times} operations` };
    }
  }
}

function userOf(population: Population, name: string): User {
  const found = population.findUser(name) ?? population.findUserName(name);
  if (!found) throw new Error(`nobody here has the id or userName ${name}`);
  return found;
}

function groupOf(population: Population, name: string) {
  const found = population.findGroup(name);
  if (found) return found;
  for (let n = 0; n < population.groupCount; n += 1) {
    const group = population.group(n);
    if (!group.erased && group.name === name) return group;
  }
  throw new Error(`no group here has the id or name ${name}`);
}
