/**
 * What this server can do and what its resources look like (RFC 7644 §4, RFC 7643 §5 to §7). Promises: what is
 * advertised here is what the other files of this room do; a filter is refused, as RFC 7644 §4 asks.
 */
import { quote } from './body.ts';
import { done, failed, type Refusal, type Result } from './errors.ts';
import type { ScimLimits } from './limits.ts';
import { endpoints } from './represent.ts';
import type { Answer, ScimRequest } from './request.ts';
import { commonAttributes, type DirectorySchemas, type ResourceType, type Schema } from './schema/schema.ts';
import { serviceSchemas } from './schema/service.ts';

type Discover = (request: ScimRequest, id: string) => Result<Answer>;

const URN = 'urn:ietf:params:scim:schemas:core:2.0';
const types: readonly ResourceType[] = ['User', 'Group'];
const descriptions: Record<ResourceType, string> = {
  User: 'A person of the directory.',
  Group: 'A group of the directory, with users and groups as members.',
};

export function openDiscovery(
  limits: ScimLimits,
): Record<'config' | 'resourceTypes' | 'resourceType' | 'schemas' | 'schema', Discover> {
  return {
    config: (request) =>
      done({
        status: 200,
        text: JSON.stringify({
          schemas: [`${URN}:ServiceProviderConfig`],
          patch: { supported: true },
          bulk: { supported: true, maxOperations: limits.bulkOperations, maxPayloadSize: limits.bodyBytes },
          filter: { supported: true, maxResults: limits.pageMax },
          pagination: {
            cursor: true,
            index: true,
            defaultPaginationMethod: 'index',
            defaultPageSize: Math.min(limits.pageDefault, limits.pageMax),
            maxPageSize: limits.pageMax,
            cursorTimeout: limits.cursorSeconds,
          },
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
            {
              type: 'oauth2',
              name: 'OAuth 2.0 client credentials',
              description: `Short-lived bearer tokens from ${request.base}/oauth/token (RFC 6749 §4.4).`,
              specUri: 'https://www.rfc-editor.org/info/rfc6749',
              primary: false,
            },
          ],
          meta: { resourceType: 'ServiceProviderConfig', location: `${request.base}/ServiceProviderConfig` },
        }),
      }),
    resourceTypes: (request) =>
      listed(
        request,
        types.map((name) => resourceType(name, request)),
      ),
    resourceType(request, id) {
      const name = types.find((t) => t.toLowerCase() === id.toLowerCase());
      if (!name) return missing('resource type', id, 'User and Group');
      return done({ status: 200, text: JSON.stringify(resourceType(name, request)) });
    },
    schemas: (request) =>
      listed(
        request,
        schemasOf(request.settings.schemas).map((schema) => schemaResource(schema, request.base)),
      ),
    schema(request, id) {
      const all = schemasOf(request.settings.schemas);
      const schema = all.find((s) => s.id.toLowerCase() === id.toLowerCase());
      if (!schema) return missing('schema', id, all.map((s) => s.id).join(', '));
      return done({ status: 200, text: JSON.stringify(schemaResource(schema, request.base)) });
    },
  };
}

function schemasOf(schemas: DirectorySchemas): Schema[] {
  const ofResources = types.flatMap((type) => {
    const { core, extensions } = schemas[type];
    return [withExternalId(core), ...extensions];
  });
  return [...ofResources, ...serviceSchemas];
}

/**
 * RFC 7643 §3.1 lets a schema list common attributes. externalId is listed, for what Entra ID maps must be found here;
 * id and meta are not, for nobody can map them.
 */
function withExternalId(core: Schema): Schema {
  if (core.attributes.some((a) => a.name === 'externalId')) return core;
  return { ...core, attributes: [...listedCommon, ...core.attributes] };
}
const listedCommon = commonAttributes.filter((a) => a.name === 'externalId');

function resourceType(name: ResourceType, { base, settings }: ScimRequest): object {
  const { core, extensions, requiredExtensions } = settings.schemas[name];
  return {
    schemas: [`${URN}:ResourceType`],
    id: name,
    name,
    endpoint: `/${endpoints[name]}`,
    description: descriptions[name],
    schema: core.id,
    schemaExtensions: extensions.map(({ id }) => ({
      schema: id,
      required: requiredExtensions?.includes(id) ?? false,
    })),
    meta: { resourceType: 'ResourceType', location: `${base}/ResourceTypes/${name}` },
  };
}

function schemaResource(schema: Schema, base: string): object {
  return {
    schemas: [`${URN}:Schema`],
    id: schema.id,
    name: schema.name,
    description: schema.description,
    attributes: schema.attributes,
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
