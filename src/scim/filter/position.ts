/**
 * A place between two resources of an order, and what follows it: how a page goes on where the one before ended
 * (RFC 9865). Promises: what follows is told by the order's own expressions, types and collations; a position holds
 * the key to the last digit, so that a resource which stays as it is stands on one side of it only, whatever comes
 * and goes around it.
 */
import type { Order } from './sort.ts';

/** The resource that a page ended with: its key as {@link positionKey} gives it, null where it has none. */
export interface Position {
  key: string | null;
  id: string;
}

/** The order's key of a row `r` as text that its type reads back unchanged. */
export function positionKey({ key }: Order): string {
  if (!key) return 'null::text';
  // Microseconds, with the zone, whatever DateStyle the session has.
  return key.type === 'timestamptz' ? `to_json(${key.sql}) #>> '{}'` : `(${key.sql})::text`;
}

/**
 * @param param makes a parameter of type text
 * @returns conditions on `r` to be read one after the other, each in the order's own order. They are several where
 *   resources without a key come behind those with one, or before: apart, each of them is one range of an index
 */
export function afterPosition(
  order: Order,
  position: Position,
  param: (text: string) => string,
): [string, ...string[]] {
  const past = order.descending ? '<' : '>';
  const id = `(${param(position.id)})::uuid`;
  if (!order.key) return [`r.id ${past} ${id}`];
  const { sql, type, nullable } = order.key;
  if (position.key === null) {
    const unkeyed = `${sql} is null and r.id ${past} ${id}`;
    return order.descending ? [unkeyed, `${sql} is not null`] : [unkeyed];
  }
  const keyed = `(${sql}, r.id) ${past} ((${param(position.key)})::${type}, ${id})`;
  return nullable && !order.descending ? [keyed, `${sql} is null`] : [keyed];
}
