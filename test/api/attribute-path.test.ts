/** A path in an attribute mapping against the schemas: what it comes to, and the words for one that comes to nothing. */
import { describe, expect, test } from 'vitest';
import { resolveAttributePath } from '../../src/api/attribute-path.ts';
import { attribute } from '../../src/scim/schema/attribute.ts';
import { type ResourceSchemas, userSchemas } from '../../src/scim/schema/schema.ts';

const enterprise = 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User';

describe('a path that can never have a value is refused with words', () => {
  test.each<[path: string, words: RegExp]>([
    ['groups', /groups give roles/],
    ['groups.value', /groups give roles/],
    ['id', /read-only/],
    ['meta', /has parts/],
    ['meta.created', /read-only/],
    ['password', /never/],
    [`${enterprise}:manager.displayName`, /read-only/],
    ['name', /"formatted"/],
    ['addresses', /"formatted"/],
    ['addresses[primary eq true]', /"formatted"/],
    ['department', /no attribute of this directory/],
    ['title.x', /no attribute of this directory/],
    [enterprise, /whole schema/],
    [`${enterprise}:nothing`, /no attribute of this directory/],
    ['title[value eq "x"]', /no parts/],
    ['emails.value[type eq "work"]', /no parts/],
    ['emails[type eq "work"].nothing', /"nothing"/],
    ['emails[nothing eq "work"].value', /no attribute "nothing"/],
    ['emails[primary eq "maybe"].value', /true or false/],
    ['emails[type ne "work"].value', /eq only/],
    ['emails[type pr].value', /eq only/],
    ['emails[type eq null].value', /eq only/],
    ['emails[not (type eq "work")].value', /eq only/],
    ['emails[type eq "work" or type eq "home"].value', /eq only/],
    ['emails[type eq "work" and (type eq "a" or type eq "b")].value', /eq only/],
    ['emails[type eq "work"', /character 22/],
    ['emails[type eq work].value', /character 16/],
    ['emails[].value', /character 8/],
    ['a b', /character 3/],
    ['__proto__', /no attribute of this directory/],
    ['constructor', /no attribute of this directory/],
  ])('%s', (text, words) => {
    const resolved = resolveAttributePath(userSchemas, text);
    expect(resolved).toMatchObject({ ok: false, message: expect.stringMatching(words) });
  });
});

test("the directory's own schemas decide, with their types, lists and case", () => {
  const own: ResourceSchemas = {
    core: userSchemas.core,
    extensions: [
      {
        id: 'urn:example:Badge',
        name: 'Badge',
        description: '',
        attributes: [
          attribute('colours', 'string', '', { multiValued: true }),
          attribute('level', 'integer', ''),
          attribute('secret', 'string', '', { returned: 'never' }),
          attribute('doors', 'complex', '', {
            multiValued: true,
            subAttributes: [
              attribute('code', 'string', '', { caseExact: true }),
              attribute('floor', 'integer', ''),
              attribute('keys', 'string', '', { multiValued: true }),
              attribute('since', 'dateTime', ''),
            ],
          }),
        ],
      },
    ],
  };
  const at = (text: string) => resolveAttributePath(own, `URN:Example:Badge:${text}`);
  const where = (...conditions: object[]) => ({
    attribute: ['urn:example:Badge', 'doors'],
    where: conditions,
  });
  expect([at('colours'), at('LEVEL')]).toEqual([
    { ok: true, value: { attribute: ['urn:example:Badge', 'colours'], list: true } },
    { ok: true, value: { attribute: ['urn:example:Badge', 'level'], list: false } },
  ]);
  expect(at('doors[code eq "Ab" and floor eq 3].code')).toEqual({
    ok: true,
    value: {
      ...where({ part: 'code', equals: 'Ab' }, { part: 'floor', equals: 3 }),
      part: 'code',
      list: false,
    },
  });
  expect(at('doors[since eq "2026-02-03T05:00:00+01:00"].keys')).toEqual({
    ok: true,
    value: { ...where({ part: 'since', equals: '2026-02-03T04:00:00.000Z' }), part: 'keys', list: true },
  });
  for (const refused of ['secret', 'doors', 'doors[keys eq "x"].code']) expect(at(refused).ok).toBe(false);
  expect(resolveAttributePath(userSchemas, 'urn:example:Badge:level').ok).toBe(false);
});
