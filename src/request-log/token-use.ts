/**
 * When a directory's tokens were last used. Promises: noting a use costs a request one look at a map; a token is
 * written at most once a minute however often it is used; what is remembered is bounded.
 */
import type pg from 'pg';
import { USED } from './statements.ts';

const EVERY_MS = 60_000;
/** Tokens that are remembered; beyond them everything is forgotten once, which costs a write more. */
const REMEMBERED = 20_000;

export interface TokenUse {
  note(tokenId: string, at: Date): void;
  /** Whether there is anything to write. */
  pending(): boolean;
  /** @throws what the database says; what was to be written is then tried again */
  write(timeoutMs: number): Promise<void>;
}

export function openTokenUse(system: pg.Pool): TokenUse {
  const noted = new Map<string, number>();
  let due = new Map<string, Date>();
  return {
    note(tokenId, at) {
      const before = noted.get(tokenId);
      if (before !== undefined && at.getTime() - before < EVERY_MS) return;
      if (noted.size >= REMEMBERED) noted.clear();
      noted.set(tokenId, at.getTime());
      if (due.size < REMEMBERED) due.set(tokenId, at);
    },
    pending: () => due.size > 0,
    async write(timeoutMs) {
      if (due.size === 0) return;
      const taken = due;
      due = new Map();
      const query = {
        name: 'directory_tokens_used',
        text: USED,
        values: [[...taken.keys()], [...taken.values()]],
        query_timeout: timeoutMs,
      };
      try {
        await system.query(query);
      } catch (error) {
        due = new Map([...taken, ...due]);
        throw error;
      }
    },
  };
}
