/**
 * What a tenant registers of its own for one directory: extension schemas, and attributes that its resources must
 * have. Promises: what `checkSchemaSettings` lets through makes schemas in which every name finds one attribute; the
 * result is a function of the settings alone; nothing registered can stand in the way of a standard attribute.
 */
import { type Attribute, type AttributeType, attribute, type Schema } from './attribute.ts';
import {
  type DirectorySchemas,
  findAttribute,
  groupSchemas,
  type ResourceSchemas,
  type ResourceType,
  standardSchemas,
  userSchemas,
} from './schema.ts';

/** An attribute as it is registered: what is left out is what RFC 7643 §2.2 says. */
export interface AttributeDefinition {
  name: string;
  type: AttributeType;
  description?: string | undefined;
  multiValued?: boolean | undefined;
  required?: boolean | undefined;
  caseExact?: boolean | undefined;
  mutability?: Attribute['mutability'] | undefined;
  returned?: Attribute['returned'] | undefined;
  canonicalValues?: string[] | undefined;
  referenceTypes?: string[] | undefined;
  /** Exactly the attributes of type complex have them; they are not complex themselves. */
  subAttributes?: AttributeDefinition[] | undefined;
}

export interface ExtensionDefinition {
  resourceType: ResourceType;
  /** The URN, as it stands in `schemas`. */
  id: string;
  name: string;
  description?: string | undefined;
  /** Whether each resource must have it. */
  required?: boolean | undefined;
  attributes: AttributeDefinition[];
}

/** An attribute of a standard or registered schema that resources must have: `emails`, `name.familyName`, `urn:…:costCenter`. */
export interface RequiredAttribute {
  resourceType: ResourceType;
  attribute: string;
}

export interface SchemaSettings {
  extensions: ExtensionDefinition[];
  required: RequiredAttribute[];
}

export const noSchemaSettings: SchemaSettings = { extensions: [], required: [] };

/** Where a setting is wrong, as a JSON pointer, and what to do. */
export interface SchemaFlaw {
  path: string;
  message: string;
}

const URN = /^urn:[a-z0-9][a-z0-9-]{1,31}:[a-z0-9()+,\-.:=@;$_!*'%/]{1,200}$/i;
const NAME = /^[A-Za-z][A-Za-z0-9_-]{0,63}$/;
/** Names of every resource, and keys that change an object's own behaviour. */
const RESERVED = new Set(['schemas', 'id', 'externalid', 'meta', 'constructor', 'prototype']);
const CORE = 'urn:ietf:params:scim:schemas:core:';
const API = 'urn:ietf:params:scim:api:';

/** What the shape of the settings cannot tell. No flaw: {@link directorySchemas} may have them. */
export function checkSchemaSettings(settings: SchemaSettings): SchemaFlaw[] {
  const flaws: SchemaFlaw[] = [];
  settings.extensions.forEach((extension, i) => {
    const at = `/extensions/${i}`;
    const wrong = wrongUrn(extension, settings.extensions.slice(0, i));
    if (wrong) flaws.push({ path: `${at}/id`, message: wrong });
    flaws.push(...flawsOfAttributes(extension.attributes, `${at}/attributes`, true));
  });
  if (flaws.length > 0) return flaws;
  const schemas = withExtensions(settings.extensions);
  settings.required.forEach(({ resourceType, attribute: path }, i) => {
    const found = findAttribute(schemas[resourceType], path);
    const named = found?.sub ?? found?.attribute;
    const at = `/required/${i}/attribute`;
    if (!found || !named) flaws.push({ path: at, message: `is no attribute of a ${resourceType}` });
    else if (named.mutability === 'readOnly' || found.attribute.mutability === 'readOnly')
      flaws.push({ path: at, message: 'is set by the service, so nobody can be required to send it' });
    else if (named.returned === 'never')
      flaws.push({ path: at, message: 'is never kept, so it cannot be required' });
    else if (resourceType === 'Group' && found.attribute.name === 'members')
      flaws.push({ path: at, message: 'cannot be required: groups are pushed empty and filled afterwards' });
  });
  return flaws;
}

/** The schemas of a directory with these settings, which have no flaw. */
export function directorySchemas(settings: SchemaSettings): DirectorySchemas {
  if (settings.extensions.length === 0 && settings.required.length === 0) return standardSchemas;
  const schemas = withExtensions(settings.extensions);
  const demanding = (type: ResourceType): ResourceSchemas => {
    const paths = settings.required.filter((r) => r.resourceType === type).map((r) => r.attribute);
    return paths.reduce(demand, schemas[type]);
  };
  return { User: demanding('User'), Group: demanding('Group') };
}

/** A place of stored values; `attribute` null for a whole extension. */
export interface Retired {
  resourceType: ResourceType;
  extension: string;
  attribute: string | null;
}

/** What stored values may stand under by `before` and not, or as another type, by `after`. */
export function retiredBetween(before: SchemaSettings, after: SchemaSettings): Retired[] {
  return before.extensions.flatMap(({ resourceType, id, attributes }): Retired[] => {
    const kept = after.extensions.find((e) => e.resourceType === resourceType && e.id === id);
    if (!kept) return [{ resourceType, extension: id, attribute: null }];
    return attributes
      .filter((a) => {
        const now = kept.attributes.find((k) => k.name === a.name);
        return now === undefined || shapeOf(now) !== shapeOf(a);
      })
      .map((a) => ({ resourceType, extension: id, attribute: a.name }));
  });
}

/** What a stored value looks like, for as far as the definition says. */
function shapeOf({ type, multiValued, subAttributes }: AttributeDefinition): string {
  const parts = (subAttributes ?? []).map((sub) => `${sub.name}:${shapeOf(sub)}`).sort();
  return JSON.stringify([type, multiValued ?? false, parts]);
}

function withExtensions(extensions: readonly ExtensionDefinition[]): DirectorySchemas {
  const of = (type: ResourceType, standard: ResourceSchemas): ResourceSchemas => {
    const own = extensions.filter((e) => e.resourceType === type);
    return {
      core: standard.core,
      extensions: [...standard.extensions, ...own.map(schemaOf)],
      requiredExtensions: own.filter((e) => e.required).map((e) => e.id),
    };
  };
  return { User: of('User', userSchemas), Group: of('Group', groupSchemas) };
}

function schemaOf(definition: ExtensionDefinition): Schema {
  const { id, name, description } = definition;
  return { id, name, description: description ?? name, attributes: definition.attributes.map(attributeOf) };
}

function attributeOf(definition: AttributeDefinition): Attribute {
  const { name, type, description, subAttributes, ...characteristics } = definition;
  const given = Object.fromEntries(
    Object.entries(characteristics).filter(([, value]) => value !== undefined),
  );
  return attribute(name, type, description ?? name, {
    ...given,
    ...(subAttributes ? { subAttributes: subAttributes.map(attributeOf) } : {}),
  });
}

/** The same schemas with the attribute, and what it is a part of, required. */
function demand(schemas: ResourceSchemas, path: string): ResourceSchemas {
  const found = findAttribute(schemas, path);
  if (!found) return schemas;
  const { extension, attribute: whole, sub } = found;
  const required: Attribute = {
    ...whole,
    required: true,
    ...(sub && whole.subAttributes
      ? { subAttributes: whole.subAttributes.map((s) => (s === sub ? { ...s, required: true } : s)) }
      : {}),
  };
  const put = (schema: Schema): Schema => ({
    ...schema,
    attributes: schema.attributes.map((a) => (a === whole ? required : a)),
  });
  if (!extension) {
    // externalId belongs to every resource and to no schema: a schema of this directory lists it from now on.
    const listed = schemas.core.attributes.includes(whole);
    const core = listed
      ? put(schemas.core)
      : { ...schemas.core, attributes: [...schemas.core.attributes, required] };
    return { ...schemas, core };
  }
  const requiredIds = new Set([...(schemas.requiredExtensions ?? []), extension.id]);
  return {
    ...schemas,
    extensions: schemas.extensions.map((s) => (s === extension ? put(s) : s)),
    requiredExtensions: [...requiredIds],
  };
}

function wrongUrn(
  extension: ExtensionDefinition,
  earlier: readonly ExtensionDefinition[],
): string | undefined {
  const { id } = extension;
  const lower = id.toLowerCase();
  if (!URN.test(id) || id.endsWith(':')) {
    return 'must be a URN such as urn:acme:params:scim:schemas:extension:1.0:User';
  }
  if (lower.startsWith(CORE) || lower.startsWith(API))
    return 'is in a part of the names that RFC 7643 reserves';
  const taken = [...userSchemas.extensions, ...groupSchemas.extensions, ...earlier].map((s) =>
    s.id.toLowerCase(),
  );
  if (taken.includes(lower)) return 'is the URN of another schema';
  // `urn:a:b` with an attribute c and `urn:a:b:c` would be told apart by nothing.
  const nested = taken.find((t) => t.startsWith(`${lower}:`) || lower.startsWith(`${t}:`));
  return nested === undefined ? undefined : `and ${nested} begin alike, so that names could mean both`;
}

function flawsOfAttributes(
  attributes: readonly AttributeDefinition[],
  at: string,
  mayBeComplex: boolean,
): SchemaFlaw[] {
  const seen = new Set<string>();
  return attributes.flatMap((definition, i): SchemaFlaw[] => {
    const { name, type } = definition;
    const path = `${at}/${i}`;
    const flaws: SchemaFlaw[] = [];
    const lower = name.toLowerCase();
    if (!NAME.test(name)) {
      flaws.push({ path: `${path}/name`, message: 'must be letters, digits, "-" and "_", a letter first' });
    } else if (RESERVED.has(lower)) flaws.push({ path: `${path}/name`, message: 'is a reserved name' });
    else if (seen.has(lower))
      flaws.push({ path: `${path}/name`, message: 'is the name of another attribute' });
    seen.add(lower);
    if (type === 'complex' && !mayBeComplex) {
      flaws.push({ path: `${path}/type`, message: 'must be simple inside a complex attribute' });
    } else if (type === 'complex' && !definition.subAttributes?.length) {
      flaws.push({ path: `${path}/subAttributes`, message: 'must have at least one attribute' });
    } else if (type !== 'complex' && definition.subAttributes) {
      flaws.push({ path: `${path}/subAttributes`, message: 'belongs to the type complex only' });
    }
    if (definition.mutability === 'writeOnly' && definition.returned !== 'never') {
      flaws.push({ path: `${path}/returned`, message: 'must be never for a writeOnly attribute' });
    }
    if (definition.required && (definition.mutability === 'readOnly' || definition.returned === 'never')) {
      flaws.push({ path: `${path}/required`, message: 'cannot be true for what is not sent or not kept' });
    }
    if (definition.subAttributes && mayBeComplex) {
      flaws.push(...flawsOfAttributes(definition.subAttributes, `${path}/subAttributes`, false));
    }
    return flaws;
  });
}
