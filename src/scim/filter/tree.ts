/**
 * A filter as it was written: attribute names unresolved, values as JSON. `at` is the offset of a name in the text,
 * counted from 0, for errors.
 */

export type CompareOperator = 'eq' | 'ne' | 'co' | 'sw' | 'ew' | 'gt' | 'ge' | 'lt' | 'le';

export interface Compare {
  readonly kind: 'compare';
  /** As written: `userName`, `emails.type`, `urn:…:User:manager.value` */
  readonly path: string;
  readonly at: number;
  readonly operator: CompareOperator;
  readonly value: string | number | boolean | null;
  /** The value as written, where it stands without quotes and the lenient reading was asked for. */
  readonly bare?: string;
}

export interface Present {
  readonly kind: 'present';
  readonly path: string;
  readonly at: number;
}

/** Some single value of the attribute meets the whole of `where`. */
export interface Some {
  readonly kind: 'some';
  readonly path: string;
  readonly at: number;
  readonly where: Filter;
}

export type Filter =
  | { readonly kind: 'and' | 'or'; readonly of: readonly Filter[] }
  | { readonly kind: 'not'; readonly of: Filter }
  | Compare
  | Present
  | Some;
