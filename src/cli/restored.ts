/**
 * `lockstep restored`: once after the database was restored from a backup, before anything is started on it. What it does,
 * and why, stands in src/process/restored.ts; the whole drill in docs/operations.md.
 */
import { SingleBar } from 'cli-progress';
import type { Database } from '../database/database.ts';
import { openBeside, sealsBeside } from '../process/access.ts';
import { unlock } from '../process/key-ring.ts';
import { acceptCluster, afterRestore, markSynced, type Restored, whereabouts } from '../process/restored.ts';
import { openKeys } from '../session/keys.ts';
import { isUuid } from '../tenant/tenant.ts';
import { configOrExit, exitRefused, exitWith } from './refusal.ts';

export interface RestoredFlags {
  json?: boolean;
  nothingLost?: boolean;
  anyway?: boolean;
  synced?: string[];
}

export async function runRestored(flags: RestoredFlags): Promise<void> {
  const config = configOrExit(flags.synced || flags.nothingLost ? 'look' : 'start');
  let db: Database | undefined;
  const say = (facts: unknown, words: string) =>
    process.stdout.write(flags.json ? `${JSON.stringify(facts)}\n` : `${words}\n`);
  try {
    db = await openBeside(config);
    if (flags.synced) {
      for (const id of flags.synced) {
        if (!isUuid(id) || !(await markSynced(db, id)))
          exitWith(`There is no directory ${id} that is pushed to.`);
      }
      say(
        { synced: flags.synced },
        'Believed again. `lockstep reconcile` says what differs, if anything does.',
      );
      return;
    }
    if (flags.nothingLost) {
      await acceptCluster(db);
      say({ accepted: true }, 'This PostgreSQL is known now; nothing else was changed.');
      return;
    }
    if (!flags.anyway && (await whereabouts(db)).state === 'known') {
      exitWith(
        'This is the PostgreSQL that Lockstep was last used on, and nothing speaks of a restore; everybody would have to ' +
          'sign in again for nothing. If its files were put back from a snapshot, say --anyway.',
      );
    }
    const credentials = await unlock(db, sealsBeside(config));
    const bar = openBar(process.stderr.isTTY && !flags.json);
    const keys = openKeys({ system: db.system, credentials });
    const done = await afterRestore(db, { keys, onTenant: bar.show }).finally(bar.stop);
    say(done, wordsOf(done));
  } catch (error) {
    exitRefused(error);
  } finally {
    await db?.close();
  }
}

const LISTED = 20;

function wordsOf(done: Restored): string {
  const { credentials: c, pushedDirectories: pushed, lastChangeAt } = done;
  const at = lastChangeAt?.toISOString() ?? 'an unknown time';
  const lines = [
    `Tenants: ${done.tenants}. Sessions ended: ${done.sessionsEnded}. Signing keys are new, event numbers have moved on.`,
    `The newest change here is of ${at}. What was set or revoked after it is not here:`,
    `  directory tokens: ${c.directoryTokens}, client secrets: ${c.clients}, keys of /v1: ${c.keys} are good, those you ` +
      'revoked since among them. Revoke them again.',
    `Pulled as a whole after the start, and unknown until then: ${done.pulledDirectories} directories.`,
  ];
  if (pushed.length > 0) {
    lines.push(
      `Pushed to, and unknown until pushed again: ${pushed.length} directories. Let their identity providers push everything ` +
        '(Entra ID: restart provisioning; Okta: force sync), then say so, each: lockstep restored --synced <directory>',
    );
    for (const { id, tenant, name } of pushed.slice(0, LISTED)) lines.push(`  ${id}  ${tenant} / ${name}`);
    if (pushed.length > LISTED) lines.push('  …; all of them: --json');
  }
  lines.push('Now start Lockstep. Redis may be emptied.');
  return lines.join('\n');
}

function openBar(draws: boolean): { show(done: number, of: number): void; stop(): void } {
  if (!draws) return { show: () => {}, stop: () => {} };
  const bar = new SingleBar({
    stream: process.stderr,
    hideCursor: true,
    clearOnComplete: true,
    format: ' {bar} {percentage}% | {value} of {total} tenants, {rate} a second | {left} left',
  });
  const startedAt = performance.now();
  let started = false;
  return {
    show(done, of) {
      const rate = done / ((performance.now() - startedAt) / 1_000);
      const payload = { rate: Math.round(rate), left: `${Math.ceil((of - done) / rate)} s` };
      if (!started) bar.start(of, done, payload);
      started = true;
      bar.update(done, payload);
    },
    stop: () => bar.stop(),
  };
}
