/**
 * Who may try at all, before anything is read or asked of the database. Promises: a source that keeps failing to
 * authenticate is held off, without holding off a token that is known to be good and calls from the same address (all
 * customers of an identity provider do); no caller holds more than its share of the process; what is held off is told
 * when to come back, in whole seconds, which is all that Okta reads; memory is bounded.
 *
 * Counted in the process: several processes allow several times as much.
 */
import { performance } from 'node:perf_hooks';
import { forgetOldest, openAllowances } from '../http/allowance.ts';
import { done, type Result, type ScimError } from './errors.ts';

export interface AdmissionLimits {
  /** Requests of one token under way at once; one more is 429. */
  inFlight: number;
  /** Requests a second of one directory, over a few seconds; Infinity for no limit. */
  requestsPerSecond: number;
  /** Failed authentications a minute from one source at one directory; ten times as many from one source at all. */
  failuresPerMinute: number;
}

export interface Attempt {
  /** Address of the client. */
  source: string;
  /** As in the URL, whatever it is. */
  directoryId: string;
  /** The token's id and the digest of its secret, so that a wrong secret says nothing of the right one; empty for none. */
  token: string;
}

export type Ended = 'entered' | 'failed' | 'other';

export interface Admission {
  /** @returns how to tell that the attempt has ended, exactly once */
  admit(attempt: Attempt): Result<(how: Ended) => void>;
}

/** Good tokens remembered at most. */
const REMEMBERED = 50_000;
/** A directory may use this many seconds' worth of requests at once. */
const BURST_SECONDS = 5;

export function openAdmission(
  limits: AdmissionLimits,
  now: () => number = () => performance.now(),
): Admission {
  const failures = openAllowances(limits.failuresPerMinute, limits.failuresPerMinute / 60, now);
  const failuresAnywhere = openAllowances(limits.failuresPerMinute * 10, limits.failuresPerMinute / 6, now);
  const requests = openAllowances(limits.requestsPerSecond * BURST_SECONDS, limits.requestsPerSecond, now);
  const good = new Set<string>();
  const inFlight = new Map<string, number>();

  return {
    admit({ source, directoryId, token }) {
      const caller = `${directoryId}/${token}`;
      const at = `${source}/${directoryId}`;
      const trusted = token !== '' && good.has(caller);
      if (!trusted) {
        const wait = Math.max(failures.wait(at), failuresAnywhere.wait(source));
        if (wait > 0) return { ok: false, error: heldOff(wait) };
      }
      const running = inFlight.get(caller) ?? 0;
      if (running >= limits.inFlight) return { ok: false, error: crowded(limits.inFlight) };
      if (trusted && Number.isFinite(limits.requestsPerSecond)) {
        const wait = requests.wait(directoryId);
        if (wait > 0) return { ok: false, error: hurried(limits.requestsPerSecond, wait) };
        requests.take(directoryId);
      }
      inFlight.set(caller, running + 1);
      return done((how) => {
        const left = (inFlight.get(caller) ?? 1) - 1;
        if (left > 0) inFlight.set(caller, left);
        else inFlight.delete(caller);
        if (how === 'entered') {
          if (!trusted) remember(good, caller);
        } else if (how === 'failed') {
          good.delete(caller);
          failures.take(at);
          failuresAnywhere.take(source);
        }
      });
    },
  };
}

function remember(known: Set<string>, key: string): void {
  if (known.size >= REMEMBERED) forgetOldest(known);
  known.add(key);
}

function heldOff(seconds: number): ScimError {
  const error = limited(
    'Too many requests without a valid token have come from this address. Correct the token in your identity ' +
      `provider's provisioning settings; the next attempt is taken in ${seconds} s.`,
    seconds,
  );
  return { ...error, reason: 'held_off' };
}

function crowded(limit: number): ScimError {
  return limited(
    `${limit} requests with this token are being answered already, and this one was not taken. Send it again in 1 s.`,
    1,
  );
}

function hurried(limit: number, seconds: number): ScimError {
  return limited(
    `This directory sends more than ${limit} requests a second, and this one was not taken. Send it again in ${seconds} s.`,
    seconds,
  );
}

function limited(detail: string, seconds: number): ScimError {
  return { status: 429, detail, headers: { 'Retry-After': String(seconds) }, entered: true };
}
