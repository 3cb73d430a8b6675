/**
 * What is wrong with an integration, told from a directory's settings, its tokens and its newest entries in the request
 * log. Promises: a function of its arguments; every finding that is not ok says what to do; what has been put right
 * since is not complained of.
 */
import { readPaging } from './paging.ts';
import type { TrafficEntry } from './reading.ts';

export interface DirectoryFacts {
  kind: string;
  /** Whose SCIM client pushes, as set or as recognised; null while nobody knows. */
  idp: string | null;
  pausedAt: Date | null;
  pauseReason: string | null;
}

/** By what the identity provider gets in: a bearer token, or an OAuth client that buys short-lived ones. */
export interface CredentialFacts {
  kind: 'token' | 'client';
  id: string;
  expiresAt: Date | null;
  revokedAt: Date | null;
  lastUsedAt: Date | null;
}

export interface Finding {
  /** What was looked at. */
  check: 'directory' | 'tokens' | 'traffic' | 'failures' | 'groups' | 'paging' | 'log';
  ok: boolean;
  words: string;
  /** How often, and when last, where that was counted. */
  count?: number;
  lastAt?: Date;
  /** Id of the newest entry that shows it. */
  example?: string;
}

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** How far back failures are counted. */
const FAILURES_MS = DAY_MS;
/** A client error that comes less often than this is everyday life; a token, a pause or a fault of ours never is. */
const REPEATED = 3;
const EXPIRY_DAYS = 14;
/** Without an entry for longer than that something is wrong: Entra ID asks every 40 minutes, others only when there is something to say. */
const SILENCE_MS: Record<string, number> = { entra: 3 * HOUR_MS };
const SILENCE_OF_OTHERS_MS = 7 * DAY_MS;

/** @param entries the newest first */
export function diagnose(
  directory: DirectoryFacts,
  credentials: readonly CredentialFacts[],
  entries: readonly TrafficEntry[],
  now: Date,
): Finding[] {
  if (directory.kind !== 'scim') {
    const words = `It is of kind ${directory.kind}: nobody pushes to it, so there are no requests to look at.`;
    return [{ check: 'directory', ok: true, words }];
  }
  return [
    paused(directory),
    ...ofCredentials(credentials, now),
    traffic(directory, credentials, entries, now),
    ...failures(entries, now),
    ...groupsFirst(entries, now),
    ...paging(entries, now),
    ...dropped(entries),
  ];
}

function paused({ pausedAt, pauseReason }: DirectoryFacts): Finding {
  if (pausedAt === null) return { check: 'directory', ok: true, words: 'not paused' };
  const reason = pauseReason === null ? '' : ` (${pauseReason})`;
  return {
    check: 'directory',
    ok: false,
    words: `paused since ${day(pausedAt)}${reason}: whatever the identity provider sends is refused. Resume it with PATCH {"paused": false}.`,
  };
}

function ofCredentials(credentials: readonly CredentialFacts[], now: Date): Finding[] {
  const fail = (words: string): Finding => ({ check: 'tokens', ok: false, words });
  const isLive = (t: CredentialFacts) => t.revokedAt === null && (t.expiresAt === null || t.expiresAt > now);
  const live = credentials.filter(isLive);
  if (live.length === 0) {
    const why = credentials.length === 0 ? 'there is none' : 'all of them are revoked or have expired';
    return [
      fail(
        `no living token or client: ${why}. Make one (POST …/tokens, or …/clients for OAuth) and enter it in the identity provider.`,
      ),
    ];
  }
  const soon = new Date(now.getTime() + EXPIRY_DAYS * DAY_MS);
  const ending = live.filter((t) => t.expiresAt !== null && t.expiresAt <= soon);
  const lasting = live.filter((t) => !ending.includes(t));
  const lastUse = Math.max(...live.map(usedAt));
  const findings = ending
    // One that was put out of use for a new one may end.
    .filter((t) => lasting.length === 0 || (lastUse > 0 && usedAt(t) === lastUse))
    .map((t) => {
      const days = Math.ceil(((t.expiresAt?.getTime() ?? 0) - now.getTime()) / DAY_MS);
      const use = t.lastUsedAt === null ? 'never used' : `last used ${time(t.lastUsedAt)}`;
      const next = lasting.length === 0 ? `Make another one (POST …/${t.kind}s)` : 'Another one is there';
      return fail(
        `${t.kind} ${t.id} (${use}) expires in ${days} ${days === 1 ? 'day' : 'days'}, on ${day(t.expiresAt ?? now)}. ${next}: enter it in the identity provider before that day; both work meanwhile.`,
      );
    });
  if (findings.length > 0) return findings;
  return [{ check: 'tokens', ok: true, words: `${live.length} living, none near its end that is in use` }];
}

function traffic(
  directory: DirectoryFacts,
  credentials: readonly CredentialFacts[],
  entries: readonly TrafficEntry[],
  now: Date,
): Finding {
  const newest = entries[0];
  const last = Math.max(newest?.at.getTime() ?? 0, ...credentials.map(usedAt));
  if (last === 0) {
    return {
      check: 'traffic',
      ok: false,
      words:
        'no request has arrived yet. Enter the SCIM base URL and a token in the identity provider, start provisioning ' +
        'there, and see that it reaches this server by its public address.',
    };
  }
  const lastAt = new Date(last);
  if (now.getTime() - last > (SILENCE_MS[directory.idp ?? ''] ?? SILENCE_OF_OTHERS_MS)) {
    return {
      check: 'traffic',
      ok: false,
      words: `no request since ${time(lastAt)}. See whether provisioning is still switched on in the identity provider (Entra ID stops it by itself, "quarantine", after many failures).`,
      lastAt,
    };
  }
  return { check: 'traffic', ok: true, words: `last request ${time(lastAt)}`, lastAt };
}

const OF_THE_CALLER = new Set(['no_token', 'unknown', 'revoked', 'expired', 'paused']);

/** Failures of the last day by their cause, the most frequent first. */
function failures(entries: readonly TrafficEntry[], now: Date): Finding[] {
  const groups = new Map<string, TrafficEntry[]>();
  const lastSuccess = entries.find((e) => e.status < 400)?.at ?? new Date(0);
  for (const entry of entries) {
    if (now.getTime() - entry.at.getTime() > FAILURES_MS) break;
    if (entry.cause === null || entry.reason === 'unknown_members') continue;
    // A caller who has been let in since has found the right token, or the directory was resumed.
    if (OF_THE_CALLER.has(entry.reason ?? '') && entry.at < lastSuccess) continue;
    const key = `${entry.status} ${entry.cause}`;
    groups.set(key, [...(groups.get(key) ?? []), entry]);
  }
  const found = [...groups.values()].flatMap((group): Finding[] => {
    const [newest] = group;
    if (!newest) return [];
    const serious = newest.status >= 500 || OF_THE_CALLER.has(newest.reason ?? '');
    if (!serious && group.length < REPEATED) return [];
    const type = newest.scimType === null ? '' : ` ${newest.scimType}`;
    return [
      {
        check: 'failures',
        ok: false,
        words: `${group.length} × ${newest.status}${type} within a day, last ${time(newest.at)} (${newest.method} ${newest.path}): ${newest.cause}`,
        count: group.length,
        lastAt: newest.at,
        example: newest.id,
      },
    ];
  });
  if (found.length > 0) return found.sort((a, b) => (b.count ?? 0) - (a.count ?? 0));
  return [{ check: 'failures', ok: true, words: 'none that repeat' }];
}

function groupsFirst(entries: readonly TrafficEntry[], now: Date): Finding[] {
  const refused = entries.filter(
    (e) => e.reason === 'unknown_members' && now.getTime() - e.at.getTime() <= FAILURES_MS,
  );
  // The same group taken since: its members have arrived.
  const open = refused.filter(
    (r) => !entries.some((e) => e.at > r.at && e.status < 400 && isSameGroup(e, r)),
  );
  const [newest] = open;
  if (!newest) return [];
  return [
    {
      check: 'groups',
      ok: false,
      words: `${open.length} × within a day, last ${time(newest.at)} (${newest.method} ${newest.path}): ${newest.cause}`,
      count: open.length,
      lastAt: newest.at,
      example: newest.id,
    },
  ];
}

/** A group that is created has no id in its path: any creation that went through counts as its. */
function isSameGroup(a: TrafficEntry, b: TrafficEntry): boolean {
  return a.method === b.method && a.path.split('?', 1)[0] === b.path.split('?', 1)[0];
}

function paging(entries: readonly TrafficEntry[], now: Date): Finding[] {
  const ignored = readPaging(entries, now);
  if (!ignored) return [];
  return [
    {
      check: 'paging',
      ok: false,
      words:
        `GET ${ignored.path} has ${ignored.total} results, of which ${ignored.shown} fit a page, and in ${ignored.asked} ` +
        `${ignored.asked === 1 ? 'reading' : 'readings'} the next page was never asked for (last ${time(ignored.lastAt)}). ` +
        'The identity provider does not see the rest. Let it page by startIndex or cursor, or raise its count.',
      count: ignored.asked,
      lastAt: ignored.lastAt,
      example: ignored.example,
    },
  ];
}

function dropped(entries: readonly TrafficEntry[]): Finding[] {
  const count = entries.reduce((sum, e) => sum + e.droppedBefore, 0);
  const newest = entries.find((e) => e.droppedBefore > 0);
  if (!newest) return [];
  return [
    {
      check: 'log',
      ok: false,
      words: `${count} requests are missing in this log, last before ${time(newest.at)}: they came faster than the database took them, or it was away (lockstep_request_log_dropped_total). They were answered all the same; only what is said here is incomplete.`,
      count,
      lastAt: newest.at,
    },
  ];
}

function usedAt(credential: CredentialFacts): number {
  return credential.lastUsedAt?.getTime() ?? 0;
}

function day(at: Date): string {
  return at.toISOString().slice(0, 10);
}

function time(at: Date): string {
  return `${at.toISOString().slice(0, 16).replace('T', ' ')} UTC`;
}
