/** The OpenAPI 3.1 document of /v1, made from the routes and from the same zod schemas that validate. */
import { z } from 'zod';
import { createDocument, type ZodOpenApiOperationObject, type ZodOpenApiPathsObject } from 'zod-openapi';
import { scopes } from '../tenant/scope.ts';
import { problemSchema } from './problem.ts';
import { pathParts } from './request.ts';
import type { Route } from './route.ts';

export function openApi(routes: readonly Route[]): Record<string, unknown> {
  const paths: ZodOpenApiPathsObject = {};
  for (const r of routes) {
    const item = paths[r.path] ?? {};
    item[r.method] = operation(r);
    paths[r.path] = item;
  }
  const described = createDocument({
    openapi: '3.1.0',
    info: {
      title: 'Lockstep',
      version: '1',
      description:
        "Keeps tenants' memberships in lockstep with their directories. `{tenant}` takes an id or a slug. Errors are " +
        'RFC 9457 problem documents. A foreign id answers as an unknown one. Lists are pages: send `nextCursor` as ' +
        '`cursor` until it is null.',
    },
    servers: [{ url: '/v1' }],
    components: {
      securitySchemes: {
        key: {
          type: 'http',
          scheme: 'bearer',
          description: `A key of /v1. \`noun:write\` includes \`noun:read\`. Scopes: ${Object.entries(scopes)
            .map(([name, what]) => `\`${name}\` ${what}`)
            .join('; ')}.`,
        },
      },
    },
    paths,
  });
  return described as unknown as Record<string, unknown>;
}

function operation(r: Route): ZodOpenApiOperationObject {
  const names = [...r.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name ?? '');
  const needs = r.scope === null ? '' : `Needs the scope \`${r.scope}\`.`;
  const path = z.object(
    Object.fromEntries(names.map((name) => [name, z.string().meta({ description: describePart(name) })])),
  );
  return {
    operationId: r.id,
    summary: r.summary,
    description: [r.description, needs].filter(Boolean).join('\n\n'),
    tags: [r.path.split('/').findLast((part) => part !== '' && !part.startsWith('{')) ?? ''],
    security: r.scope === null ? [] : [{ key: [r.scope] }],
    requestParams: { ...(names.length > 0 ? { path } : {}), ...(r.query ? { query: r.query } : {}) },
    ...(r.body
      ? {
          requestBody: {
            required: !r.body.safeParse(undefined).success,
            content: { 'application/json': { schema: r.body } },
          },
        }
      : {}),
    responses: {
      ...Object.fromEntries(
        Object.entries(r.answers).map(([status, a]) => [
          status,
          {
            description: a.description,
            ...(a.schema ? { content: { 'application/json': { schema: a.schema } } } : {}),
          },
        ]),
      ),
      default: {
        description: 'A problem document',
        content: { 'application/problem+json': { schema: problemSchema } },
      },
    },
  };
}

function describePart(name: string): string {
  if (name === 'tenant') return 'Id or slug of the tenant';
  if (name === 'role') return 'Name of the role';
  return `Id of the ${pathParts[name]?.noun ?? name}`;
}
