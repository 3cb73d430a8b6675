/** The rig of pulls with reconciliations beside: a test decides when it is whose turn. */
import { createHash } from 'node:crypto';
import type { Database } from '../../src/database/database.ts';
import type { ReconciliationMode } from '../../src/database/entities.ts';
import {
  listMismatches,
  openReconciler,
  type ReconciliationFacts,
  type ShownItem,
} from '../../src/reconcile/reconcile.ts';
import { createRig } from '../pull/rig.ts';

const nobody = new AbortController().signal;

export async function createReconcileRig(
  db: Database,
  options: { graceMs?: number; tenantId?: string; manyAbsent?: number } = {},
) {
  const errors: unknown[] = [];
  const reconciler = openReconciler({
    db,
    onWritten: () => {},
    onError: (_at, error) => errors.push(error),
    graceMs: options.graceMs ?? 0,
    ...(options.manyAbsent === undefined ? {} : { manyAbsent: options.manyAbsent }),
  });
  const pulls = await createRig(db, {
    reconcile: reconciler,
    ...(options.tenantId === undefined ? {} : { tenantId: options.tenantId }),
  });
  const { tenantId, directoryId } = pulls;
  const at = { tenantId, directoryId };

  return {
    ...pulls,
    at,
    reconciler,
    async turns(): Promise<void> {
      while ((await reconciler.turn(directoryId, nobody)) === 'more');
      while ((await pulls.pulls.turn(directoryId, nobody)) === 'more');
      if (errors.length + pulls.errors.length > 0) throw errors[0] ?? pulls.errors[0];
    },
    /** Asks for one and works it to its end. */
    async reconcile(mode: ReconciliationMode): Promise<ReconciliationFacts & { items: ShownItem[] }> {
      const asked = await reconciler.request(at, mode, 'test');
      await this.turns();
      return this.read(asked?.id ?? '');
    },
    async read(id: string) {
      const found = await reconciler.find(at, id);
      if (!found) throw new Error(`there is no reconciliation ${id}`);
      return { ...found, items: await reconciler.items(at, id, null, 10_000) };
    },
    /** Lets the second pass have its turn, if somebody is due. */
    async secondPass(): Promise<void> {
      await reconciler.due();
      await this.turns();
    },
    /** `side kind subject state`, by the source's id or the e-mail. */
    async mismatches(): Promise<string[]> {
      const rows = await listMismatches(db, tenantId, {}, null, 1_000);
      const names = await pulls.query<{ id: string; name: string }>(
        `select id, external_id as name from mirror_user union all select id, external_id from mirror_group
         union all select id, email from member union all select id, name from directory`,
      );
      const nameOf = new Map(names.map((row) => [row.id, row.name]));
      for (const id of [...pulls.source.users.keys(), ...pulls.source.groups.keys()]) {
        nameOf.set(pulls.mirrorId(id), id);
      }
      return rows.map((m) => `${m.side} ${m.kind} ${nameOf.get(m.subjectId) ?? m.subjectId} ${m.state}`);
    },
    async map(mappings: { group: string; role: string }[]): Promise<void> {
      await pulls.lifecycle.replaceMappings(tenantId, mappings, 'test');
      await pulls.settle();
    },
    /** Every row of every table of the tenant, as one digest a table. */
    async dump(): Promise<Record<string, string>> {
      const { rows: tables } = await db.system.query<{ name: string }>(
        `select table_name as name from information_schema.columns
         where table_schema = 'public' and column_name = 'tenant_id' order by 1`,
      );
      const dump: Record<string, string> = {};
      for (const { name } of tables) {
        const { rows } = await db.system.query<{ row: Record<string, unknown> }>(
          `select to_jsonb(t) as row from ${name} t where tenant_id = $1 order by to_jsonb(t)::text`,
          [tenantId],
        );
        // How far a run has come is a sign of its life, not a fact about the directory.
        const facts = rows.map(({ row: { pages, rows: _, calls, ...row } }) => row);
        dump[name] =
          `${facts.length} ${createHash('sha256').update(JSON.stringify(facts)).digest('hex').slice(0, 12)}`;
      }
      return dump;
    },
    async rolesOf(email: string): Promise<string[]> {
      const rows = await pulls.query<{ role: string }>(
        'select distinct g.role from role_grant g join member m on m.id = g.member_id where m.email = $1 order by 1',
        [email],
      );
      return rows.map((row) => row.role);
    },
  };
}

export type ReconcileRig = Awaited<ReturnType<typeof createReconcileRig>>;
