/**
 * `lockstep rotate-key`: moves every stored secret to LOCKSTEP_ENCRYPTION_KEY, from beside a running fleet. Ends with
 * status 1 while something is sealed by another key; it may be run again at any time, also after a kill -9.
 */
import { SingleBar } from 'cli-progress';
import type { Database } from '../database/database.ts';
import { openBeside, sealsBeside } from '../process/access.ts';
import { missingOf, wordsOf } from '../process/key-ring.ts';
import { countSealed, reseal } from '../process/sealed.ts';
import { configOrExit, exitRefused } from './refusal.ts';

export async function runRotateKey(flags: { json?: boolean }): Promise<number> {
  const config = configOrExit('start');
  let db: Database | undefined;
  try {
    db = await openBeside(config);
    const seals = sealsBeside(config);
    const others = (await countSealed(db.system)).filter(({ keyId }) => keyId !== seals.keyId);
    const here = others.filter(({ keyId }) => seals.keyIds.includes(keyId));
    const bar = openBar(
      here.reduce((sum, { count }) => sum + count, 0),
      process.stderr.isTTY && !flags.json,
    );
    const { resealed, damaged } = await reseal(db, seals, { onResealed: bar.add }).finally(bar.stop);
    const left = (await countSealed(db.system)).filter(({ keyId }) => keyId !== seals.keyId);
    const needed = new Set(left.map(({ keyId }) => keyId));
    const mayGo = seals.keyIds.filter((id) => id !== seals.keyId && !needed.has(id));
    if (flags.json) {
      process.stdout.write(`${JSON.stringify({ key: seals.keyId, resealed, left, mayGo, damaged })}\n`);
      return left.length > 0 ? 1 : 0;
    }
    const moved = Object.entries(resealed).filter(([, count]) => count > 0);
    const words = moved.map(([what, count]) => `${what} ${count}`).join(', ');
    process.stdout.write(
      `The key ${seals.keyId} seals. Sealed again: ${words === '' ? 'nothing was left' : words}.\n`,
    );
    for (const { what, id } of damaged)
      process.stdout.write(
        `Damaged, and left as it is: ${id} (${what}). Give its secrets again, or delete it.\n`,
      );
    if (mayGo.length > 0) {
      process.stdout.write(
        `Nothing stored needs ${mayGo.join(' or ')} any more. Once no process seals by it, and cursors and test links of ` +
          'before are over (an hour), it may go from LOCKSTEP_DECRYPTION_KEYS.\n',
      );
    }
    const missing = missingOf(left, seals);
    if (missing.length > 0) {
      process.stdout.write(`No key here opens ${wordsOf(missing)}: add it to LOCKSTEP_DECRYPTION_KEYS.\n`);
    }
    if (left.length > missing.length && damaged.length === 0) {
      process.stdout.write(
        'A process still seals by another key: finish the roll-out, then run this again.\n',
      );
    }
    return left.length > 0 ? 1 : 0;
  } catch (error) {
    return exitRefused(error);
  } finally {
    await db?.close();
  }
}

function openBar(total: number, draws: boolean): { add(count: number): void; stop(): void } {
  if (!draws || total === 0) return { add: () => {}, stop: () => {} };
  const bar = new SingleBar({
    stream: process.stderr,
    hideCursor: true,
    clearOnComplete: true,
    format: ' {bar} {percentage}% | {value} of {total} secrets, {rate} a second | {left} left',
  });
  const startedAt = performance.now();
  let done = 0;
  bar.start(total, 0, { rate: 0, left: '?' });
  return {
    add(count) {
      done += count;
      const rate = done / ((performance.now() - startedAt) / 1_000);
      bar.update(done, {
        rate: Math.round(rate),
        left: rate > 0 ? `${Math.ceil((total - done) / rate)} s` : '?',
      });
    },
    stop: () => bar.stop(),
  };
}
