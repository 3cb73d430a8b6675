/**
 * XML signature wrapping: a genuinely signed element is moved aside, and another one stands where it is read. The eight
 * permutations of "On Breaking SAML: Be Whoever You Want to Be" (USENIX Security 2012) and some more. Each is refused by
 * the form alone, before any library looks at the signature.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readEnvelope } from '../../../src/sso/saml/envelope.ts';
import { openTestDatabase } from '../../harness/database.ts';
import { encode, newId, respond, signed } from './idp.ts';
import { ISSUER, idpKey, otherKey, type Rig, startRig } from './rig.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
let rig: Rig;
beforeAll(async () => {
  database = await openTestDatabase();
  rig = await startRig(database.db);
});
afterAll(async () => {
  await rig.stop();
  await database.drop();
});

const part = (xml: string, pattern: RegExp): string => {
  const found = pattern.exec(xml)?.[0];
  if (found === undefined) throw new Error(`no ${pattern} in ${xml}`);
  return found;
};
const ASSERTION = /<saml:Assertion .*<\/saml:Assertion>/s;
const SIGNATURE = /<ds:Signature .*<\/ds:Signature>/s;
const NAMESPACES = part(
  respond(ISSUER, idpKey, { id: '_', acsUrl: '', issuer: '' }, { sign: 'none' }),
  / xmlns:samlp="[^"]+" xmlns:saml="[^"]+"/,
);

/** Somebody else's words: another ID, another person. */
const evil = (xml: string, id = newId('e')) =>
  xml
    .replace(/ ID="[^"]+"/, ` ID="${id}"`)
    .replaceAll('subject-1', 'admin')
    .replaceAll('ada@', 'admin@');
const evilWithTheSameId = (xml: string) => xml.replaceAll('subject-1', 'admin').replaceAll('ada@', 'admin@');
const without = (xml: string, what: string) => xml.replace(what, '');
/** The response signed. */
const ofResponse: Record<string, (xml: string) => string> = {
  'XSW1: the original within the signature of a copy': (xml) => {
    const signature = part(xml, SIGNATURE);
    const original = without(xml, signature);
    return evil(xml).replace('</ds:Signature>', `${original}</ds:Signature>`);
  },
  'XSW2: the original before the signature of a copy': (xml) => {
    const signature = part(xml, SIGNATURE);
    return evil(xml).replace(signature, without(xml, signature) + signature);
  },
  'the original in an Object of the signature': (xml) => {
    const signature = part(xml, SIGNATURE);
    return evil(xml).replace(
      '</ds:Signature>',
      `<ds:Object>${without(xml, signature)}</ds:Object></ds:Signature>`,
    );
  },
  'the original in Extensions of a copy': (xml) =>
    evil(xml).replace('<samlp:Status>', `<samlp:Extensions>${xml}</samlp:Extensions><samlp:Status>`),
  'the original within a root of another name': (xml) =>
    `<samlp:Wrapper${NAMESPACES}>${evil(xml)}${xml}</samlp:Wrapper>`,
  'a second assertion beside the signed one': (xml) =>
    xml.replace(ASSERTION, (assertion) => evil(assertion) + assertion),
  'an assertion below the status': (xml) =>
    xml.replace('<samlp:Status>', `<samlp:Status>${evil(part(xml, ASSERTION))}`),
};

/** The assertion signed. */
const ofAssertion: Record<string, (xml: string) => string> = {
  'XSW3: another assertion before the signed one': (xml) => {
    const assertion = part(xml, ASSERTION);
    return xml.replace(assertion, evil(without(assertion, part(xml, SIGNATURE))) + assertion);
  },
  'XSW4: the signed one within another': (xml) => {
    const assertion = part(xml, ASSERTION);
    const other = evil(without(assertion, part(xml, SIGNATURE)));
    return xml.replace(assertion, other.replace('</saml:Assertion>', `${assertion}</saml:Assertion>`));
  },
  'XSW5: the signature in another, the signed one at the end': (xml) => {
    const assertion = part(xml, ASSERTION);
    const original = without(assertion, part(xml, SIGNATURE));
    return xml.replace(assertion, evil(assertion) + original);
  },
  'XSW6: the signed one within the signature of another': (xml) => {
    const assertion = part(xml, ASSERTION);
    const original = without(assertion, part(xml, SIGNATURE));
    return xml.replace(assertion, evil(assertion).replace('</ds:Signature>', `${original}</ds:Signature>`));
  },
  'XSW7: another one in Extensions': (xml) => {
    const assertion = part(xml, ASSERTION);
    const other = evilWithTheSameId(without(assertion, part(xml, SIGNATURE)));
    return xml.replace(assertion, `<samlp:Extensions>${other}</samlp:Extensions>${assertion}`);
  },
  'XSW8: the signed one in an Object of the signature of another': (xml) => {
    const assertion = part(xml, ASSERTION);
    const original = without(assertion, part(xml, SIGNATURE));
    return xml.replace(
      assertion,
      evilWithTheSameId(assertion).replace(
        '</ds:Signature>',
        `<ds:Object>${original}</ds:Object></ds:Signature>`,
      ),
    );
  },
  'the signed one in Advice of another': (xml) => {
    const assertion = part(xml, ASSERTION);
    const other = evil(without(assertion, part(xml, SIGNATURE)));
    return xml.replace(
      assertion,
      other.replace('<saml:AuthnStatement', `<saml:Advice>${assertion}</saml:Advice><saml:AuthnStatement`),
    );
  },
  'the signed one in an attribute of another': (xml) => {
    const assertion = part(xml, ASSERTION);
    const other = evil(without(assertion, part(xml, SIGNATURE)));
    return xml.replace(
      assertion,
      other.replace('</saml:AttributeValue>', `${assertion}</saml:AttributeValue>`),
    );
  },
  'two signatures in the assertion': (xml) => xml.replace(SIGNATURE, (signature) => signature + signature),
  'two references': (xml) =>
    xml.replace(/<ds:Reference .*<\/ds:Reference>/s, (reference) => reference + reference),
  'two SignedInfo': (xml) => xml.replace(/<ds:SignedInfo>.*<\/ds:SignedInfo>/s, (info) => info + info),
  'a reference to the whole document': (xml) => xml.replace(/URI="#[^"]+"/, 'URI=""'),
  'a reference to something else': (xml) =>
    xml.replace(/URI="#[^"]+"/, `URI="#${/<samlp:Response [^>]*ID="([^"]+)/.exec(xml)?.[1]}"`),
  'a third transform': (xml) =>
    xml.replace(
      '</ds:Transforms>',
      '<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116"><ds:XPath>not(ancestor-or-self::saml:Subject)</ds:XPath></ds:Transform></ds:Transforms>',
    ),
  'a subject in another namespace beside the signed one': (xml) =>
    xml.replace('<samlp:Status>', `<x:Subject xmlns:x="urn:x"/><samlp:Status>`),
  'the Id of the signature like that of the assertion': (xml) =>
    xml.replace('<ds:Signature ', `<ds:Signature Id="${/<saml:Assertion ID="([^"]+)/.exec(xml)?.[1]}" `),
};

for (const [sign, forms] of [
  ['response', ofResponse],
  ['assertion', ofAssertion],
] as const) {
  describe(`the ${sign} signed`, () => {
    for (const [name, wrap] of Object.entries(forms)) {
      test(name, async () => {
        const tenant = await rig.createTenant();
        const browser = rig.openBrowser();
        const request = await tenant.begin(browser);
        const genuine = respond(ISSUER, idpKey, request, { sign });
        expect(readEnvelope(genuine, 'Response', false)).toMatchObject({ ok: true });
        const wrapped = wrap(genuine);
        expect(wrapped).not.toBe(genuine);
        // By the form alone.
        expect(readEnvelope(wrapped, 'Response', false)).toMatchObject({ ok: false });
        const counted = rig.outcomes.response_altered ?? 0;
        const reply = await browser.post(tenant.acsUrl, {
          SAMLResponse: encode(wrapped),
          RelayState: request.relayState,
        });
        expect(['response_altered', 'message_malformed'], reply.text).toContain(reply.reason);
        expect((rig.outcomes.response_altered ?? 0) - counted).toBe(
          reply.reason === 'response_altered' ? 1 : 0,
        );
        expect(await tenant.made()).toMatchObject({ users: 0, members: 0, sessions: 0 });
        expect(await tenant.count(`audit_entry where action = 'sign_in.refused'`)).toBe(1);
        expect(rig.problems).toEqual([]);
      });
    }
  });
}

test('an assertion that was signed for another response is taken with its own words only', async () => {
  // The envelope is not signed: whoever carries it may write a new one, and gains nothing by it.
  const tenant = await rig.createTenant();
  const browser = rig.openBrowser();
  const request = await tenant.begin(browser);
  const assertion = part(respond(ISSUER, idpKey, request), ASSERTION);
  const around = respond(ISSUER, idpKey, request, { sign: 'none' }).replace(ASSERTION, assertion);
  const reply = await browser.post(tenant.acsUrl, {
    SAMLResponse: encode(around),
    RelayState: request.relayState,
  });
  expect(reply.status, reply.text).toBe(303);
  expect(await tenant.count(`mirror_user where doc->>'sub' = 'subject-1'`)).toBe(1);
});

test('an assertion that another key signed is not taken in a response that the right key signed, nor the other way round', async () => {
  for (const [inner, outer] of [
    [otherKey, idpKey],
    [idpKey, otherKey],
  ] as const) {
    const tenant = await rig.createTenant();
    const reply = await tenant.signIn({ sign: 'none' }, (xml) =>
      signed(signed(xml, 'Assertion', inner), 'Response', outer),
    );
    expect(reply.reason).toBe('certificate_unknown');
    expect(await tenant.made()).toMatchObject({ users: 0, members: 0, sessions: 0 });
  }
});
