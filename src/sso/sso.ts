/**
 * Signing in: a person's browser comes from a product, goes to the identity provider of its tenant and comes back with
 * what that vouches for; the lifecycle makes it effective, and the product gets a code. To be mounted at `/sso`.
 */
import express from 'express';
import { discoverRouter } from './discover.ts';
import { openDoor } from './exchange.ts';
import { loginHandler } from './login.ts';
import { openOidc } from './oidc.ts';
import type { Protocol, SsoOptions } from './room.ts';
import { openSaml } from './saml/saml.ts';

export type { SsoOptions } from './room.ts';

export function ssoRouter(options: SsoOptions): express.Router {
  const door = openDoor(options);
  const protocols: Protocol[] = [openOidc(options, door), openSaml(options, door)];
  const router = express.Router({ caseSensitive: true });
  for (const protocol of protocols) router.use(`/${protocol.kind}`, protocol.router);
  router.use(discoverRouter(options));
  router.get('/:tenant/login', door.handler(loginHandler(options, door, protocols)));
  router.use(door.onError);
  return router;
}
