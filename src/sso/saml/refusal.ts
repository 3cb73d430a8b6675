/** Why a message of an identity provider is not believed: a reason that is counted, and words for whoever can mend it. */
import type { RefusalReason } from '../refusal.ts';

export interface SamlRefusal {
  ok: false;
  reason: RefusalReason;
  /** Whole sentences for an administrator: what happened, and what to do. Plain text, to be escaped. */
  words: string;
  /** The identity provider's own words, where it says itself that nobody signed in. */
  said?: string;
}

export function refusal(reason: RefusalReason, words: string): SamlRefusal {
  return { ok: false, reason, words };
}

/** What a stranger wrote, short enough to be shown. Control and direction characters are left out. */
export function quoted(text: string | undefined, most = 200): string {
  const shown = plain(text ?? '', most);
  return shown === '' ? 'nothing' : `"${shown}"`;
}

export function plain(text: string, most: number): string {
  const shown = text
    .replaceAll(/[\p{Cc}\p{Cf}]/gu, ' ')
    .trim()
    .toWellFormed();
  return shown.length > most ? `${shown.slice(0, most)}…`.toWellFormed() : shown;
}
