/**
 * The order in which the operations of a bulk request are worked. Promises: it is the order of the request, except
 * that a POST goes before the first operation that refers to it (forward references); POSTs that refer to each other
 * in a circle (RFC 7644 §3.7.1) stand together as one step.
 */

/** Operations by their place in the request; more than one, or one that refers to itself, make a circle. */
export interface Step {
  at: number[];
  circular: boolean;
}

/**
 * Tarjan's strongly connected components, which come out in just this order. Recursion goes as deep as a chain of
 * references is long, so at most to the limit of operations.
 *
 * @param refersTo for each operation the places of the POSTs that it refers to, in its own order
 */
export function inOrder(refersTo: readonly (readonly number[])[]): Step[] {
  const steps: Step[] = [];
  const path: number[] = [];
  const state = refersTo.map(() => ({ seen: -1, lowest: -1, onPath: false }));
  let clock = 0;

  function visit(at: number): { lowest: number } {
    const own = state[at];
    if (!own) throw new Error(`there is no operation ${at}`);
    own.seen = own.lowest = clock;
    own.onPath = true;
    clock += 1;
    path.push(at);
    for (const next of refersTo[at] ?? []) {
      const other = state[next];
      if (other?.seen === -1) own.lowest = Math.min(own.lowest, visit(next).lowest);
      else if (other?.onPath) own.lowest = Math.min(own.lowest, other.seen);
    }
    if (own.lowest === own.seen) {
      const members = path.splice(path.indexOf(at));
      for (const m of members) (state[m] as { onPath: boolean }).onPath = false;
      const circular = members.length > 1 || (refersTo[at] ?? []).includes(at);
      steps.push({ at: members.sort((a, b) => a - b), circular });
    }
    return own;
  }

  for (let at = 0; at < refersTo.length; at += 1) if (state[at]?.seen === -1) visit(at);
  return steps;
}
