/**
 * The shape of an attribute definition (RFC 7643 §2 and §7) and short ways to write one down. Promises: every
 * definition carries all characteristics, spelled as `/Schemas` advertises them, so that it serialises as it stands.
 */

export type AttributeType =
  | 'string'
  | 'boolean'
  | 'decimal'
  | 'integer'
  | 'dateTime'
  | 'reference'
  | 'binary'
  | 'complex';

export interface Attribute {
  readonly name: string;
  readonly type: AttributeType;
  readonly multiValued: boolean;
  readonly description: string;
  readonly required: boolean;
  /** Whether comparisons of its text tell upper from lower case. */
  readonly caseExact: boolean;
  readonly mutability: 'readOnly' | 'readWrite' | 'immutable' | 'writeOnly';
  readonly returned: 'always' | 'never' | 'default' | 'request';
  readonly uniqueness: 'none' | 'server' | 'global';
  /** Suggestions to clients, never enforced. */
  readonly canonicalValues?: readonly string[];
  readonly referenceTypes?: readonly string[];
  /** Exactly the attributes of type complex have them. */
  readonly subAttributes?: readonly Attribute[];
}

export interface Schema {
  /** The URN, in its canonical spelling. */
  readonly id: string;
  readonly name: string;
  readonly description: string;
  readonly attributes: readonly Attribute[];
}

/** What an attribute of RFC 7643 §2.2 is when nothing is said, overridden by `more`. */
export function attribute(
  name: string,
  type: AttributeType,
  description: string,
  more: Partial<Omit<Attribute, 'name' | 'type' | 'description'>> = {},
): Attribute {
  return {
    name,
    type,
    multiValued: false,
    description,
    required: false,
    caseExact: type === 'reference' || type === 'binary',
    mutability: 'readWrite',
    returned: 'default',
    uniqueness: 'none',
    ...more,
  };
}

/** A multi-valued complex attribute with `value`, `display`, `type` and `primary` (RFC 7643 §2.4). */
export function plural(name: string, description: string, parts: PluralParts): Attribute {
  const { value, types, noun, display } = parts;
  return attribute(name, 'complex', description, {
    multiValued: true,
    subAttributes: [
      value,
      attribute(
        'display',
        'string',
        'A human-readable name, primarily used for display purposes.',
        display ?? {},
      ),
      attribute('type', 'string', "A label indicating the attribute's function.", {
        ...(types ? { canonicalValues: types } : {}),
      }),
      attribute(
        'primary',
        'boolean',
        `Whether this is the preferred ${noun}. The value true appears at most once.`,
      ),
    ],
  });
}

export interface PluralParts {
  value: Attribute;
  noun: string;
  types?: readonly string[];
  display?: Partial<Attribute>;
}
