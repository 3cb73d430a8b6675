/**
 * The public face of filters (RFC 7644 §3.4.2.2): text → tree → SQL over the mirror, or a test in memory. Promises:
 * parsing takes linear time and bounded depth; a filter that is wrong, or that asks what cannot be answered, is a
 * refusal that says where and why, never ignored; the SQL holds no text of the input, and selects the resources that
 * {@link matches} holds true.
 */
export { type CompiledSql, compileFilter, type ResourceType } from './compile.ts';
export { type Lookup, lookupOf } from './lookup.ts';
export { elementMatcher, matches } from './match.ts';
export { filterLimits, type ParseOptions, type Path, parseFilter, parsePath } from './parser.ts';
export { afterPosition, type Position, positionKey } from './position.ts';
export { type Predicate, resolveElementFilter } from './predicate.ts';
export { byId, compileSort, type Order } from './sort.ts';
export type { CompareOperator, Filter } from './tree.ts';
