import { describe, expect, test } from 'vitest';
import { applyPatch } from '../../../src/scim/patch/patch.ts';
import { groupSchemas } from '../../../src/scim/schema/schema.ts';
import { bob, CORE, ENTERPRISE, home, ID, patched, refused, work } from './example.ts';

describe('Entra ID', () => {
  test('booleans as text, with and without a path', () => {
    expect(patched(bob({ active: true }), [{ op: 'Replace', path: 'active', value: 'False' }])).toEqual({
      active: false,
    });
    expect(patched(bob(), [{ op: 'Add', value: { active: 'True' } }])).toEqual({ active: true });
    expect(
      patched(bob({ emails: [work] }), [
        { op: 'Add', path: 'emails[type eq "work"].primary', value: 'True' },
      ]),
    ).toEqual({
      emails: [{ ...work, primary: true }],
    });
  });

  test('add to emails[type eq "work"].value with no match creates one typed entry', () => {
    const add = { op: 'Add', path: 'emails[type eq "work"].value', value: 'w@x' };
    expect(patched(bob(), [add])).toEqual({ emails: [work] });
    expect(patched(bob({ emails: [home] }), [add])).toEqual({ emails: [home, work] });
    expect(patched(bob({ emails: [{ type: 'Work', value: 'old' }] }), [add])).toEqual({
      emails: [{ type: 'Work', value: 'w@x' }],
    });
  });

  test('several sub-attribute operations build one address, not four', () => {
    const parts = ['streetAddress', 'locality', 'postalCode', 'country'];
    const operations = parts.map((p) => ({ op: 'Add', path: `addresses[type eq "work"].${p}`, value: p }));
    expect(patched(bob(), operations)).toEqual({
      addresses: [{ type: 'work', ...Object.fromEntries(parts.map((p) => [p, p])) }],
    });
    const replaces = operations.map((o) => ({ ...o, op: 'Replace' }));
    expect(patched(bob(), replaces, true)).toEqual(patched(bob(), operations));
  });

  test('replace on a filter without a match is noTarget, or creates where the dialect says so', () => {
    const replace = { op: 'Replace', path: 'emails[type eq "work"].value', value: 'w@x' };
    expect(patched(bob({ emails: [home] }), [replace])).toEqual(
      refused('noTarget', 'emails[type eq "work"].value'),
    );
    expect(patched(bob({ emails: [home] }), [replace], true)).toEqual({ emails: [home, work] });
    expect(patched(bob(), [{ ...replace, path: 'emails[type ne "work"].value' }], true)).toEqual(
      refused('noTarget'),
    );
  });

  test('dotted, URN and value-path keys of a pathless value are expanded', () => {
    const value = {
      'name.givenName': 'G',
      'NAME.familyName': 'F',
      [`${ENTERPRISE}:department`]: 'D',
      [`${ENTERPRISE}:manager`]: 'm',
      [`${CORE}:title`]: 'T',
      'emails[type eq "work"].value': 'w@x',
      displayName: 'B',
    };
    for (const op of ['Add', 'Replace']) {
      expect(patched(bob({ name: { givenName: 'old', middleName: 'M' } }), [{ op, value }], true)).toEqual({
        name: { givenName: 'G', middleName: 'M', familyName: 'F' },
        title: 'T',
        displayName: 'B',
        emails: [work],
        [ENTERPRISE]: { department: 'D', manager: { value: 'm' } },
      });
    }
  });

  test('manager as bare text; "" and null clear it', () => {
    const path = `${ENTERPRISE}:manager`;
    const managed = bob({
      [ENTERPRISE]: { department: 'D', manager: { value: 'old', $ref: 'https://x/old' } },
    });
    for (const op of ['Add', 'Replace']) {
      expect(patched(bob(), [{ op, path, value: 'm' }])).toEqual({
        [ENTERPRISE]: { manager: { value: 'm' } },
      });
      for (const value of ['m', { value: 'm' }, { value: 'm', displayName: 'Boss', foo: 1 }]) {
        expect(patched(managed, [{ op, path, value }])).toEqual({
          [ENTERPRISE]: { department: 'D', manager: { value: 'm' } },
        });
      }
      for (const value of ['', null, { value: '' }, { value: null }]) {
        expect(patched(managed, [{ op, path, value }])).toEqual({ [ENTERPRISE]: { department: 'D' } });
      }
    }
    expect(patched(managed, [{ op: 'Remove', path }])).toEqual({ [ENTERPRISE]: { department: 'D' } });
    expect(patched(managed, [{ op: 'Remove', path, value: 'old' }])).toEqual({
      [ENTERPRISE]: { department: 'D' },
    });
    expect(patched(bob({ [ENTERPRISE]: { manager: { value: 'm' } } }), [{ op: 'Remove', path }])).toEqual({});
  });

  test('roles[primary eq "True"] matches a boolean, and creates one', () => {
    const path = 'roles[primary eq "True"].value';
    const roles = [{ value: 'a' }, { value: 'b', primary: true }];
    expect(patched(bob({ roles }), [{ op: 'Replace', path, value: 'c' }])).toEqual({
      roles: [{ value: 'a' }, { value: 'c', primary: true }],
    });
    expect(patched(bob(), [{ op: 'Add', path, value: 'c' }])).toEqual({
      roles: [{ primary: true, value: 'c' }],
    });
  });

  test('remove of the value of a typed entry leaves no hollow entry behind', () => {
    const before = bob({ emails: [work, home] });
    expect(patched(before, [{ op: 'Remove', path: 'emails[type eq "work"].value' }])).toEqual({
      emails: [home],
    });
    for (const value of ['', null]) {
      expect(patched(before, [{ op: 'Replace', path: 'emails[type eq "work"].value', value }])).toEqual({
        emails: [home],
      });
    }
    expect(patched(bob(), [{ op: 'Remove', path: 'emails[type eq "work"].value' }])).toEqual({});
    expect(patched(bob(), [{ op: 'Add', path: 'emails[type eq "work"].value', value: '' }])).toEqual({});
  });
});

describe('Okta', () => {
  test('deactivates by a pathless replace', () => {
    expect(patched(bob({ active: true }), [{ op: 'replace', value: { active: false } }])).toEqual({
      active: false,
    });
  });

  test('renames a group by a pathless replace that repeats the id', () => {
    const group = { schemas: ['urn:ietf:params:scim:schemas:core:2.0:Group'], id: ID, displayName: 'Old' };
    const rename = (id: string) => [{ op: 'replace', value: { id, displayName: 'New' } }];
    const options = { replaceMissingCreates: false };
    expect(applyPatch(groupSchemas, group, rename(ID), options)).toEqual({
      ok: true,
      value: { ...group, displayName: 'New' },
    });
    expect(applyPatch(groupSchemas, group, rename('other'), options)).toMatchObject({
      ok: false,
      error: { status: 400, scimType: 'mutability' },
    });
    const { id: _id, ...withoutId } = group;
    expect(applyPatch(groupSchemas, withoutId, rename(ID), options)).toMatchObject({ ok: true });
  });
});
