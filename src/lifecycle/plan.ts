/**
 * What members would gain and lose under another policy: converged twice over the same facts, once as things are and once
 * as they would be, by the function that the lane calls. Writes nothing.
 */
import { createHash } from 'node:crypto';
import type pg from 'pg';
import { converge } from './converge.ts';
import type { Policy } from './desired.ts';
import { type Facts, loadFacts } from './facts.ts';
import type { Plan, PlanItem } from './lifecycle.ts';

/** The first items of a plan are shown, all are counted and hashed. */
const SHOWN = 1_000;

/** The other policy: what it has beside the tenant's own, so that it is loaded too, and the whole of it. */
export interface Proposal {
  also: Partial<Policy>;
  policy(facts: Facts): Policy;
}

/**
 * @param subject what is planned, as text: a part of the hash
 * @param pages the users concerned, page by page
 */
export async function planRoles(
  client: pg.ClientBase,
  tenantId: string,
  subject: string,
  pages: AsyncIterable<string[]>,
  proposal: Proposal,
): Promise<Plan> {
  const hash = createHash('sha256').update(subject);
  const plan: Plan = { hash: '', counts: { members: 0, gains: 0, losses: 0 }, items: [] };
  for await (const userIds of pages) {
    for (const item of await planItems(client, tenantId, userIds, proposal)) {
      hash.update(JSON.stringify(item));
      plan.counts.members += 1;
      plan.counts.gains += item.gains.length;
      plan.counts.losses += item.loses.length;
      if (plan.items.length < SHOWN) plan.items.push(item);
    }
  }
  plan.hash = hash.digest('hex');
  return plan;
}

async function planItems(
  client: pg.ClientBase,
  tenantId: string,
  userIds: string[],
  proposal: Proposal,
): Promise<PlanItem[]> {
  const facts = await loadFacts(client, tenantId, userIds, proposal.also);
  const asked = new Set(userIds);
  const items: PlanItem[] = [];
  // As if nobody had any role yet, everybody who should have one differs.
  const everyone = { ...facts, grants: new Map() };
  const rolesUnder = (policy: Policy) =>
    new Map(
      converge(everyone, policy).differences.map((d) => [
        d.userIds.find((id) => asked.has(id)),
        { roles: new Set(d.after.grants.map((g) => g.role)), memberId: d.memberId, email: d.after.email },
      ]),
    );
  const now = rolesUnder(facts);
  const then = rolesUnder(proposal.policy(facts));
  for (const userId of new Set([...now.keys(), ...then.keys()])) {
    if (userId === undefined) continue;
    const had = now.get(userId)?.roles ?? new Set<string>();
    const has = then.get(userId)?.roles ?? new Set<string>();
    const gains = [...has.difference(had)].sort();
    const loses = [...had.difference(has)].sort();
    const person = then.get(userId) ?? now.get(userId);
    if (gains.length + loses.length === 0 || !person) continue;
    items.push({ member: facts.links.get(userId)?.memberId ?? userId, email: person.email, gains, loses });
  }
  return items.sort((a, b) => (a.member < b.member ? -1 : 1));
}
