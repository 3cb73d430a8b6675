/**
 * A stored row as the JSON text of a SCIM resource. Promises: a whole resource is spliced from the stored text
 * without being parsed; only a projection or a list of groups or members costs a parse. `meta.location` is the
 * address under which the same answer is found.
 */
import type { Stored } from '../directory/directory.ts';
import type { JsonObject } from './body.ts';
import { etag } from './etag.ts';
import { type Projection, project, shapeOf, wants } from './projection.ts';
import type { Answer, ScimRequest } from './request.ts';
import type { ResourceType } from './schema/schema.ts';

/** What an answer depends on beside the row. */
type Asked = Pick<ScimRequest, 'base' | 'settings'>;

/** Where resources of the type live, below the base. */
export const endpoints: Record<ResourceType, string> = { User: 'Users', Group: 'Groups' };

/** @param base the directory's absolute SCIM base URL, in characters that JSON needs not escape */
export function locationOf(type: ResourceType, id: string, base: string): string {
  return `${base}/${endpoints[type]}/${id}`;
}

export function resourceText(type: ResourceType, row: Stored, asked: Asked, projection?: Projection): string {
  const { base, settings } = asked;
  const doc = row.doc;
  const rest = doc.length > 2 ? `,${doc.slice(1, -1)}` : '';
  const related = relatedText(type, row, base, projection);
  const text =
    `{"id":"${row.id}"${rest}${related},"meta":{"resourceType":"${type}",` +
    `"created":"${row.createdAt.toISOString()}","lastModified":"${row.updatedAt.toISOString()}",` +
    `"location":"${locationOf(type, row.id, base)}","version":"W/\\"${row.version}\\""}}`;
  const shape = shapeOf(settings.schemas[type], projection);
  return shape ? JSON.stringify(project(JSON.parse(text) as JsonObject, shape)) : text;
}

interface Related {
  value: string;
  display: string | null;
  type: string;
}

function relatedText(
  type: ResourceType,
  row: Stored,
  base: string,
  projection: Projection | undefined,
): string {
  const name = type === 'User' ? 'groups' : 'members';
  if (row.related === null || !wants(projection, name)) return '';
  const entries = (JSON.parse(row.related) as Related[]).map(({ value, display, type: kind }) => ({
    value,
    $ref: locationOf(type === 'User' || kind === 'Group' ? 'Group' : 'User', value, base),
    ...(display === null ? {} : { display }),
    type: kind,
  }));
  return `,"${name}":${JSON.stringify(entries)}`;
}

/** One resource as an answer, with its Location and ETag; 304 carries no body. */
export function single(
  type: ResourceType,
  status: number,
  row: Stored,
  asked: Asked,
  projection: Projection | undefined,
): Answer {
  const headers = { Location: locationOf(type, row.id, asked.base), ETag: etag(row.version) };
  return status === 304
    ? { status, headers }
    : { status, headers, text: resourceText(type, row, asked, projection) };
}
