/**
 * What this server can do and what its resources look like (RFC 7644 §4, RFC 7643 §5 to §7). Promises: what is
 * advertised here is what the other files of this room do; a filter is refused, as RFC 7644 §4 asks.
 */
import { quote } from './body.ts';
import { done, failed, type Refusal, type Result } from './errors.ts';
import type { PageLimits } from './list.ts';
import { endpoints, type ResourceType } from './represent.ts';
import type { Answer, ScimRequest } from './request.ts';
import {
  commonAttributes,
  groupSchemas,
  type ResourceSchemas,
  type Schema,
  userSchemas,
} from './schema/schema.ts';
import { serviceSchemas } from './schema/service.ts';

type Discover = (request: ScimRequest, id: string) => Result<Answer>;

const URN = 'urn:ietf:params:scim:schemas:core:2.0';
const types: Record<ResourceType, ResourceSchemas> = { User: userSchemas, Group: groupSchemas };
const descriptions: Record<ResourceType, string> = {
  User: 'A person of the directory.',
  Group: 'A group of the directory, with users and groups as members.',
};

export function openDiscovery(
  limits: PageLimits,
): Record<'config' | 'resourceTypes' | 'resourceType' | 'schemas' | 'schema', Discover> {
  const all = new Map<string, Schema>();
  for (const { core, extensions } of Object.values(types)) {
    for (const schema of [core, ...extensions]) all.set(schema.id.toLowerCase(), schema);
  }

  for (const schema of serviceSchemas) all.set(schema.id.toLowerCase(), schema);

  return {
    config: (request) =>
      done({
        status: 200,
        text: JSON.stringify({
          schemas: [`${URN}:ServiceProviderConfig`],
          patch: { supported: true },
          bulk: { supported: false, maxOperations: 0, maxPayloadSize: 0 },
          filter: { supported: true, maxResults: limits.pageMax },
          changePassword: { supported: false },
          sort: { supported: true },
          etag: { supported: true },
          authenticationSchemes: [
            {
              type: 'oauthbearertoken',
              name: 'Bearer token',
              description: "The directory's token in the Authorization header (RFC 6750).",
              specUri: 'https://www.rfc-editor.org/info/rfc6750',
              primary: true,
            },
          ],
          meta: { resourceType: 'ServiceProviderConfig', location: `${request.base}/ServiceProviderConfig` },
        }),
      }),
    resourceTypes: (request) =>
      listed(
        request,
        (Object.keys(types) as ResourceType[]).map((name) => resourceType(name, request.base)),
      ),
    resourceType(request, id) {
      const name = (Object.keys(types) as ResourceType[]).find((t) => t.toLowerCase() === id.toLowerCase());
      if (!name) return missing('resource type', id, 'User and Group');
      return done({ status: 200, text: JSON.stringify(resourceType(name, request.base)) });
    },
    schemas: (request) =>
      listed(
        request,
        [...all.values()].map((schema) => schemaResource(schema, request.base)),
      ),
    schema(request, id) {
      const schema = all.get(id.toLowerCase());
      if (!schema) return missing('schema', id, [...all.values()].map((s) => s.id).join(', '));
      return done({ status: 200, text: JSON.stringify(schemaResource(schema, request.base)) });
    },
  };
}

function resourceType(name: ResourceType, base: string): object {
  const { core, extensions } = types[name];
  return {
    schemas: [`${URN}:ResourceType`],
    id: name,
    name,
    endpoint: `/${endpoints[name]}`,
    description: descriptions[name],
    schema: core.id,
    schemaExtensions: extensions.map((schema) => ({ schema: schema.id, required: false })),
    meta: { resourceType: 'ResourceType', location: `${base}/ResourceTypes/${name}` },
  };
}

/**
 * RFC 7643 §3.1 lets a schema list common attributes. externalId is listed, for what Entra ID maps must be found here;
 * id and meta are not, for nobody can map them.
 */
const listedCommon = commonAttributes.filter((a) => a.name === 'externalId');
const resources = new Set(Object.values(types).map(({ core }) => core.id));

function schemaResource(schema: Schema, base: string): object {
  return {
    schemas: [`${URN}:Schema`],
    id: schema.id,
    name: schema.name,
    description: schema.description,
    attributes: resources.has(schema.id) ? [...listedCommon, ...schema.attributes] : schema.attributes,
    meta: { resourceType: 'Schema', location: `${base}/Schemas/${schema.id}` },
  };
}

function listed(request: ScimRequest, resources: object[]): Result<Answer> {
  if (request.query.has('filter')) {
    return failed(403, undefined, 'This list cannot be filtered. Read all of it, or one entry by its id.');
  }
  return done({
    status: 200,
    text: JSON.stringify({
      schemas: ['urn:ietf:params:scim:api:messages:2.0:ListResponse'],
      totalResults: resources.length,
      startIndex: 1,
      itemsPerPage: resources.length,
      Resources: resources,
    }),
  });
}

function missing(kind: string, id: string, known: string): Refusal {
  return failed(404, undefined, `There is no ${kind} ${quote(id)}. This server has ${known}.`);
}
