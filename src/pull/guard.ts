/**
 * The guard: how many removals that were inferred from absence may pass. Pure. It counts people where a person would:
 * users who go, and people who lose a membership (a group that goes takes its members' memberships along); groups that go
 * are counted as well, and the holders of each privileged role for themselves. Removals that the source stated are not
 * its business, and approved ones do not count.
 */
import { z } from 'zod';

export interface GuardSettings {
  /** Of what the directory has: above it removals are held. */
  percent: number;
  /** Above this number they are held whatever the percentage; in one run and within 24 hours alike. */
  count: number;
  /** So many may always go: a small directory is not wedged. */
  least: number;
  /** Their holders are counted apart: at most `percent` of them (one at least), never all of them. */
  privilegedRoles: string[];
}

export const guardDefaults: GuardSettings = {
  percent: 20,
  count: 100,
  least: 3,
  privilegedRoles: ['owner'],
};

/** As /v1 takes it: what is absent is the default. */
export const guardSchema = z.strictObject({
  percent: z.number().min(0).max(100).optional(),
  count: z.int().min(0).max(10_000_000).optional(),
  least: z.int().min(0).max(1_000).optional(),
  privilegedRoles: z.array(z.string().trim().min(1).max(100)).max(50).optional(),
});

/** @param stored what an operator set */
export function guardSettings(stored: unknown): GuardSettings {
  const read = guardSchema.safeParse(stored);
  return {
    ...guardDefaults,
    ...Object.fromEntries(
      Object.entries(read.success ? read.data : {}).filter(([, value]) => value !== undefined),
    ),
  };
}

export type HeldReason = 'percent' | 'count' | 'cumulative' | 'privileged';

export interface Counted {
  /** That are absent now, those already held among them. */
  absent: number;
  /** That were let pass within the last 24 hours, approved ones apart. */
  passed: number;
  /** That there are now, the absent ones among them. */
  total: number;
}

/** @returns why they are held; null when they may go */
export function verdict(counted: Counted, settings: GuardSettings): HeldReason | null {
  const { absent, passed, total } = counted;
  if (absent === 0) return null;
  const byPercent = ((total + passed) * settings.percent) / 100;
  const limit = Math.max(settings.least, Math.min(byPercent, settings.count));
  if (absent + passed <= limit) return null;
  if (absent <= limit) return 'cumulative';
  return byPercent < settings.count ? 'percent' : 'count';
}

/** The same of a privileged role's holders, who are few: one may go, the last one never does. */
export function privilegedVerdict(counted: Counted, settings: GuardSettings): HeldReason | null {
  const { absent, passed, total } = counted;
  if (absent === 0) return null;
  const limit = Math.max(1, Math.min(((total + passed) * settings.percent) / 100, settings.count));
  return absent + passed > limit || absent >= total ? 'privileged' : null;
}
