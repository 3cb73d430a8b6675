/** Which pushes of a simulated identity provider must not overtake each other: those that share a subject. */
import { expect, test } from 'vitest';
import { apply, emptyOrganisation, type Operation, subjects } from '../../src/simulate/push/organisation.ts';

test('pushes on one group name, the old or the new one, share a subject; those on other names do not', () => {
  const organisation = emptyOrganisation();
  const make = (key: string, name: string): Operation => ({
    kind: 'group-create',
    group: { key, name, members: new Set() },
  });
  /** As the client asks: before it is carried out and after. */
  const carryOut = (operation: Operation) => {
    const before = subjects(organisation, operation);
    apply(organisation, operation, 'okta');
    return new Set([...before, ...subjects(organisation, operation)]);
  };
  const shared = (a: Set<string>, b: Set<string>) => [...a].filter((key) => b.has(key)).length > 0;

  const made = carryOut(make('g1', 'Sales'));
  const renamed = carryOut({ kind: 'group-rename', group: 'g1', name: 'Field' });
  const madeAgain = carryOut(make('g2', 'sales'));
  const deleted = carryOut({ kind: 'group-delete', group: 'g1' });
  const madeOnTheNewName = carryOut(make('g3', 'Field'));
  expect(shared(made, renamed)).toBe(true);
  expect(shared(renamed, madeAgain), 'the old name').toBe(true);
  expect(shared(renamed, madeOnTheNewName), 'the new name').toBe(true);
  expect(shared(deleted, madeOnTheNewName), 'the name of who is deleted').toBe(true);
  expect(shared(madeAgain, madeOnTheNewName)).toBe(false);
});
