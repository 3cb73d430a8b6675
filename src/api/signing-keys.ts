/** /v1/signing-keys: what signs access tokens. The public parts are at /.well-known/jwks.json. */
import { z } from 'zod';
import type { SigningKey } from '../session/session.ts';
import { forbidden } from './problem.ts';
import { type ApiOptions, type Route, reply, route } from './route.ts';
import { iso, isoOrNull, time, uuid } from './schema.ts';

const keys = z
  .strictObject({
    items: z.array(
      z.strictObject({
        id: uuid.meta({ description: '`kid` of its tokens' }),
        createdAt: time,
        signsFrom: time,
        signsUntil: time.nullable().meta({ description: 'Null while no other is to follow' }),
        publishedUntil: time.nullable().meta({ description: 'Until when its tokens are believed' }),
      }),
    ),
  })
  .meta({ id: 'SigningKeys' });

export function signingKeyRoutes({ sessions }: ApiOptions): Route[] {
  return [
    route({
      method: 'get',
      path: '/signing-keys',
      id: 'listSigningKeys',
      summary: 'List the keys whose tokens are believed, never the keys themselves',
      scope: 'signing-keys:read',
      answers: { 200: { description: 'The oldest first', schema: keys } },
      handle: async () => reply(200, { items: (await sessions.keys.list()).map(shown) }),
    }),
    route({
      method: 'post',
      path: '/signing-keys/rotate',
      id: 'rotateSigningKeys',
      summary: 'Let the next key sign',
      description:
        'Rotation happens by itself; this is for doing it sooner. The next key is published now and signs ten minutes ' +
        'later, unless one is waiting already; tokens of the one before stay good. With `immediately`, for a key that was ' +
        'stolen, the new key signs at once, and within a minute no token of another is believed: sessions go on with ' +
        'their next refresh.',
      scope: 'signing-keys:write',
      body: z.strictObject({ immediately: z.boolean().optional() }).optional(),
      answers: { 200: { description: 'The keys, the oldest first', schema: keys } },
      async handle({ principal, body }) {
        if (principal.tenantId !== null) {
          return forbidden(
            'A key that is bound to one tenant cannot rotate the signing keys of all. Use a key of the whole deployment.',
          );
        }
        return reply(200, { items: (await sessions.keys.rotate(body?.immediately ?? false)).map(shown) });
      },
    }),
  ];
}

function shown(key: SigningKey) {
  return {
    id: key.id,
    createdAt: iso(key.createdAt),
    signsFrom: iso(key.signsFrom),
    signsUntil: isoOrNull(key.signsUntil),
    publishedUntil: isoOrNull(key.publishedUntil),
  };
}
