/**
 * For each alert when it must fire, with what it says, and when it must not. Time starts at 0 and series have a value a
 * minute (`every`), in promtool's notation.
 */
export interface AlertCase {
  alert: string;
  /** What happens there. */
  when: string;
  series: Record<string, string>;
  every?: string;
  at: string;
  /** Labels beside alertname and severity, and the description in full; absent: it must be silent. */
  fires?: { labels: Record<string, string>; says: string }[];
}

const job = 'prod/lockstep';
const on = (instance: string, labels = '') =>
  `{job="${job}",instance="${instance}"${labels && `,${labels}`}}`;

/** One source's histogram: all of its events, and those that were in time. */
function histogram(
  metric: string,
  le: string,
  labels: string,
  events: { all: string; inTime: string },
): Record<string, string> {
  return {
    [`${metric}_count${on('a', labels)}`]: events.all,
    [`${metric}_bucket${on('a', `${labels},le="${le}"`)}`]: events.inTime,
  };
}
const lag = (source: string, le: string, events: { all: string; inTime: string }, phase = 'live') =>
  histogram('lockstep_sync_lag_seconds', le, `source="${source}",phase="${phase}"`, events);
const leavers = (source: string, le: string, events: { all: string; inTime: string }) =>
  histogram('lockstep_time_to_deprovision_seconds', le, `source="${source}"`, events);

/** Gauges of the elected process. */
const gauge = (name: string, value: string, labels = '') => ({ [`${name}${on('a', labels)}`]: value });
/** That processes are scraped. */
const scraped = { [`lockstep_sweeper_wakeups_total${on('a')}`]: '0x200' };

const lagSays = (share: string, slo: string) =>
  `${share} of live changes (${slo}) of ${job} became effective later than promised.`;
const leaverSays = (share: string, slo: string) =>
  `${share} of leavers (${slo}) of ${job} were denied later than promised`;

export const alertCases: AlertCase[] = [
  {
    alert: 'LockstepSyncLagBurn',
    when: 'a fifth of what is pushed is late for an hour',
    series: lag('scim', '5', { all: '0+10x90', inTime: '0+8x90' }),
    at: '80m',
    fires: [
      {
        labels: { job, slo: 'sync_lag_pushed' },
        says: `${lagSays('20%', 'sync_lag_pushed')} At this rate the budget of 30 days is gone within days.`,
      },
    ],
  },
  {
    alert: 'LockstepSyncLagBurn',
    when: 'the bounds are written as Prometheus 3 does, and it is pulled changes that are late',
    series: lag('okta', '300.0', { all: '0+10x90', inTime: '0+8x90' }),
    at: '80m',
    fires: [
      {
        labels: { job, slo: 'sync_lag_pulled' },
        says: `${lagSays('20%', 'sync_lag_pulled')} At this rate the budget of 30 days is gone within days.`,
      },
    ],
  },
  {
    alert: 'LockstepSyncLagBurn',
    when: 'a twelfth is late for six hours',
    series: lag('login', '5', { all: '0+12x500', inTime: '0+11x500' }),
    at: '7h',
    fires: [
      {
        labels: { job, slo: 'sync_lag_pushed' },
        says: `${lagSays('8.333%', 'sync_lag_pushed')} At this rate the budget of 30 days is gone within days.`,
      },
    ],
  },
  {
    alert: 'LockstepSyncLagBurn',
    when: 'it is over: the last minutes were in time',
    series: lag('scim', '5', { all: '0+10x120', inTime: '0+8x60 490+10x60' }),
    at: '100m',
  },
  {
    alert: 'LockstepSyncLagBurn',
    when: 'the one change of a quiet hour was late',
    series: lag('scim', '5', { all: '0x40 1x50', inTime: '0x90' }),
    at: '43m',
  },
  {
    alert: 'LockstepSyncLagBurn',
    when: 'a first import takes its time',
    series: lag('scim', '5', { all: '0+10x90', inTime: '0x90' }, 'backfill'),
    at: '80m',
  },
  {
    alert: 'LockstepSyncLagBudget',
    when: 'four in a hundred are late for many hours',
    series: lag('scim', '5', { all: '0+100x120', inTime: '0+96x120' }),
    every: '5m',
    at: '9h',
    fires: [
      {
        labels: { job, slo: 'sync_lag_pushed' },
        says: lagSays('4%', 'sync_lag_pushed').replace(/\.$/, ', for a day or more.'),
      },
    ],
  },
  {
    alert: 'LockstepSyncLagBudget',
    when: 'two in a hundred are late for many hours',
    series: lag('entra', '300', { all: '0+100x120', inTime: '0+98x120' }),
    every: '5m',
    at: '9h',
    fires: [
      {
        labels: { job, slo: 'sync_lag_pulled' },
        says: lagSays('2%', 'sync_lag_pulled').replace(/\.$/, ', for a day or more.'),
      },
    ],
  },
  {
    alert: 'LockstepSyncLagBudget',
    when: 'one in two hundred is late: half of the budget',
    series: lag('scim', '5', { all: '0+200x120', inTime: '0+199x120' }),
    every: '5m',
    at: '9h',
  },
  {
    alert: 'LockstepDeprovisionBurn',
    when: 'one leaver of forty is late for an hour',
    series: leavers('scim', '30', { all: '0+40x90', inTime: '0+39x90' }),
    at: '80m',
    fires: [
      { labels: { job, slo: 'deprovision_pushed' }, says: `${leaverSays('2.5%', 'deprovision_pushed')}.` },
    ],
  },
  {
    alert: 'LockstepDeprovisionBurn',
    when: 'pulled leavers are late for six hours',
    series: leavers('okta', '300', { all: '0+100x500', inTime: '0+99x500' }),
    at: '7h',
    fires: [
      { labels: { job, slo: 'deprovision_pulled' }, says: `${leaverSays('1%', 'deprovision_pulled')}.` },
    ],
  },
  {
    alert: 'LockstepDeprovisionBurn',
    when: 'one leaver in a thousand is late: the budget',
    series: leavers('scim', '30', { all: '0+1000x90', inTime: '0+999x90' }),
    at: '80m',
  },
  {
    alert: 'LockstepDeprovisionBurn',
    when: 'one single leaver was late',
    series: leavers('scim', '30', { all: '0x40 1x50', inTime: '0x90' }),
    at: '43m',
  },
  {
    alert: 'LockstepDeprovisionBudget',
    when: 'four of a thousand leavers are late for many hours',
    series: leavers('operator', '30', { all: '0+1000x120', inTime: '0+996x120' }),
    every: '5m',
    at: '9h',
    fires: [
      {
        labels: { job, slo: 'deprovision_pushed' },
        says: `${leaverSays('0.4%', 'deprovision_pushed')}, for a day or more.`,
      },
    ],
  },
  {
    alert: 'LockstepDeprovisionBudget',
    when: 'two of a thousand leavers are late for many hours',
    series: leavers('entra', '300', { all: '0+1000x120', inTime: '0+998x120' }),
    every: '5m',
    at: '9h',
    fires: [
      {
        labels: { job, slo: 'deprovision_pulled' },
        says: `${leaverSays('0.2%', 'deprovision_pulled')}, for a day or more.`,
      },
    ],
  },
  {
    alert: 'LockstepDeprovisionBudget',
    when: 'half of the budget is used',
    series: leavers('scim', '30', { all: '0+2000x120', inTime: '0+1999x120' }),
    every: '5m',
    at: '9h',
  },
  {
    alert: 'LockstepLeaverWaits',
    when: 'somebody who left five minutes ago is not denied',
    series: gauge('lockstep_open_deprovision_oldest_timestamp_seconds', '0x20'),
    at: '5m',
    fires: [
      {
        labels: { job },
        says: `The directory took somebody out of ${job} 5m 0s ago, and they are not denied yet.`,
      },
    ],
  },
  {
    alert: 'LockstepLeaverWaits',
    when: 'leavers come and are denied within the minute, and at times there is none',
    series: gauge('lockstep_open_deprovision_oldest_timestamp_seconds', '0 30 _ 150 210 _ 330 390 450'),
    at: '6m',
  },
  {
    alert: 'LockstepAccessAfterDeprovision',
    when: 'two are active whom their directory deactivated',
    series: {
      ...gauge('lockstep_mismatch', '2x20', 'kind="active_after_deprovision",state="confirmed"'),
      ...gauge('lockstep_mismatch', '5x20', 'kind="missing",state="confirmed"'),
    },
    at: '3m',
    fires: [
      {
        labels: { job },
        says: `2 members of ${job} are active although their directory says that they left.`,
      },
    ],
  },
  {
    alert: 'LockstepAccessAfterDeprovision',
    when: 'it is suspected only',
    series: {
      ...gauge('lockstep_mismatch', '2x20', 'kind="active_after_deprovision",state="suspected"'),
      ...gauge('lockstep_mismatch', '0x20', 'kind="active_after_deprovision",state="confirmed"'),
    },
    at: '10m',
  },
  {
    alert: 'LockstepMismatch',
    when: 'three have a role too many, also while another process is elected',
    series: {
      [`lockstep_mismatch${on('a', 'kind="wrong_role",state="confirmed"')}`]: '3x8 stale',
      [`lockstep_mismatch${on('b', 'kind="wrong_role",state="confirmed"')}`]: '_x8 3x20',
    },
    at: '15m',
    fires: [
      {
        labels: { job, kind: 'wrong_role' },
        says: `3 members of ${job} differ from their directory: wrong_role.`,
      },
    ],
  },
  {
    alert: 'LockstepMismatch',
    when: 'differences are suspected, unknown, or told by an alert of their own',
    series: {
      ...gauge('lockstep_mismatch', '9x30', 'kind="extra",state="suspected"'),
      ...gauge('lockstep_mismatch', '1x30', 'kind="unknown",state="confirmed"'),
      ...gauge('lockstep_mismatch', '1x30', 'kind="active_after_deprovision",state="confirmed"'),
      ...gauge('lockstep_mismatch', '0x30', 'kind="missing",state="confirmed"'),
    },
    at: '25m',
  },
  {
    alert: 'LockstepDirectoryUnknown',
    when: 'a directory was not read for long',
    series: gauge('lockstep_mismatch', '1x60', 'kind="unknown",state="confirmed"'),
    at: '35m',
    fires: [
      {
        labels: { job },
        says: `1 directories of ${job} could not be read lately, so that their mismatch is unknown.`,
      },
    ],
  },
  {
    alert: 'LockstepDirectoryUnknown',
    when: 'it was unknown for twenty minutes',
    series: gauge('lockstep_mismatch', '1x20 0x40', 'kind="unknown",state="confirmed"'),
    at: '35m',
  },
  {
    alert: 'LockstepWatermarkOld',
    when: 'an Okta directory is twenty minutes behind',
    series: {
      ...gauge('lockstep_watermark_timestamp_seconds', '0x40', 'directory_kind="okta"'),
      ...gauge('lockstep_watermark_timestamp_seconds', '0+60x40', 'directory_kind="entra"'),
    },
    at: '25m',
    fires: [
      {
        labels: { job, directory_kind: 'okta' },
        says: `What happened at an okta of ${job} in the last 25m 0s may not be in the mirror.`,
      },
    ],
  },
  {
    alert: 'LockstepWatermarkOld',
    when: 'it is ten minutes behind',
    series: gauge('lockstep_watermark_timestamp_seconds', '0x10 0+60x60', 'directory_kind="okta"'),
    at: '40m',
  },
  {
    alert: 'LockstepWatermarkVeryOld',
    when: 'nothing was read for over two hours',
    series: gauge('lockstep_watermark_timestamp_seconds', '0x200', 'directory_kind="entra"'),
    at: '130m',
    fires: [
      {
        labels: { job, directory_kind: 'entra' },
        says: `Nothing was read of an entra of ${job} for 2h 10m 0s: whoever left there since keeps access.`,
      },
    ],
  },
  {
    alert: 'LockstepWatermarkVeryOld',
    when: 'nothing was read for an hour',
    series: gauge('lockstep_watermark_timestamp_seconds', '0x60 0+60x60', 'directory_kind="entra"'),
    at: '110m',
  },
  {
    alert: 'LockstepReconcileOld',
    when: 'the last certified one is over two days old',
    series: gauge('lockstep_reconcile_timestamp_seconds', '0x1000', 'directory_kind="okta"'),
    every: '15m',
    at: '50h',
    fires: [
      {
        labels: { job, directory_kind: 'okta' },
        says: `The last certified comparison of an okta directory of ${job} is 2d 2h 0m 0s old; it should be one a day.`,
      },
    ],
  },
  {
    alert: 'LockstepReconcileOld',
    when: 'it is a day and a half old',
    series: gauge('lockstep_reconcile_timestamp_seconds', '0x1000', 'directory_kind="okta"'),
    every: '15m',
    at: '36h',
  },
  {
    alert: 'LockstepComparisonOld',
    when: 'a tenant waits for over two hours',
    series: gauge('lockstep_compared_timestamp_seconds', '0x1000'),
    every: '5m',
    at: '150m',
    fires: [
      {
        labels: { job },
        says: `The members of some tenant of ${job} were compared with its mirrors 2h 30m 0s ago: a mismatch that arose since is not counted.`,
      },
    ],
  },
  {
    alert: 'LockstepComparisonOld',
    when: 'the longest waited for an hour',
    series: gauge('lockstep_compared_timestamp_seconds', '0x1000'),
    every: '5m',
    at: '60m',
  },
  {
    alert: 'LockstepPullsFail',
    when: 'three of four fail',
    series: {
      [`lockstep_pull_runs_total${on('a', 'directory_kind="okta",mode="incremental",outcome="throttled"')}`]:
        '0+3x90',
      [`lockstep_pull_runs_total${on('b', 'directory_kind="okta",mode="incremental",outcome="done"')}`]:
        '0+1x90',
    },
    at: '60m',
    fires: [
      {
        labels: { job, directory_kind: 'okta' },
        says: `75% of the pulls of okta directories of ${job} failed in the last half hour.`,
      },
    ],
  },
  {
    alert: 'LockstepPullsFail',
    when: 'removals are held, pulls are handed over, and one in three fails',
    series: {
      [`lockstep_pull_runs_total${on('a', 'directory_kind="okta",mode="full",outcome="held"')}`]: '0+1x90',
      [`lockstep_pull_runs_total${on('a', 'directory_kind="okta",mode="full",outcome="stopped"')}`]: '0+1x90',
      [`lockstep_pull_runs_total${on('a', 'directory_kind="okta",mode="full",outcome="error"')}`]: '0+1x90',
    },
    at: '60m',
  },
  {
    alert: 'LockstepRemovalsHeld',
    when: 'the guard holds some, for two reasons',
    series: {
      ...gauge('lockstep_held_changes', '40x30', 'reason="percent"'),
      ...gauge('lockstep_held_changes', '2x30', 'reason="privileged"'),
    },
    at: '15m',
    fires: [
      {
        labels: { job },
        says: `42 removals of ${job} were inferred from absence and are held: until somebody approves or rejects them, these people keep access.`,
      },
    ],
  },
  {
    alert: 'LockstepRemovalsHeld',
    when: 'nothing is held',
    series: gauge('lockstep_held_changes', '0x30', 'reason="percent"'),
    at: '15m',
  },
  {
    alert: 'LockstepOwnerLost',
    when: 'one tenant has none',
    series: gauge('lockstep_tenants_without_owner', '1x30'),
    at: '10m',
    fires: [
      { labels: { job }, says: `1 tenants of ${job} have lost their last active owner to their directory.` },
    ],
  },
  {
    alert: 'LockstepOwnerLost',
    when: 'every tenant has one',
    series: gauge('lockstep_tenants_without_owner', '0x30'),
    at: '10m',
  },
  {
    alert: 'LockstepUnappliedOld',
    when: 'a change waits for ten minutes',
    series: gauge('lockstep_oldest_unapplied_timestamp_seconds', '0x30'),
    at: '10m',
    fires: [
      {
        labels: { job },
        says: `The oldest change of ${job} that is not effective was acknowledged 10m 0s ago.`,
      },
    ],
  },
  {
    alert: 'LockstepUnappliedOld',
    when: 'there is always one, but never an old one',
    series: gauge('lockstep_oldest_unapplied_timestamp_seconds', '0+60x30'),
    at: '10m',
  },
  {
    alert: 'LockstepUnappliedVeryOld',
    when: 'a change waits for forty minutes',
    series: gauge('lockstep_oldest_unapplied_timestamp_seconds', '0x60'),
    at: '40m',
    fires: [
      {
        labels: { job },
        says: `The oldest change of ${job} that is not effective was acknowledged 40m 0s ago.`,
      },
    ],
  },
  {
    alert: 'LockstepUnappliedVeryOld',
    when: 'a long import is being worked off',
    series: gauge('lockstep_oldest_unapplied_timestamp_seconds', '0x20 0+60x40'),
    at: '40m',
  },
  {
    alert: 'LockstepChangesParked',
    when: 'seven are set aside',
    series: gauge('lockstep_parked_changes', '7x30'),
    at: '10m',
    fires: [
      {
        labels: { job },
        says: `7 changes of ${job} failed at every attempt and are set aside; access was cut where they were leavers.`,
      },
    ],
  },
  {
    alert: 'LockstepChangesParked',
    when: 'one was, and was replayed at once',
    series: gauge('lockstep_parked_changes', '0 0 1 1 0x30'),
    at: '10m',
  },
  {
    alert: 'LockstepWakeupsLost',
    when: 'two schedulers find six a minute',
    series: {
      [`lockstep_sweeper_wakeups_total${on('a')}`]: '0+3x60',
      [`lockstep_sweeper_wakeups_total${on('b')}`]: '0+3x60',
    },
    at: '30m',
    fires: [
      {
        labels: { job },
        says: `The sweeper found 60 lanes of ${job} in ten minutes whose own wake-up did not come; changes take a second longer each time.`,
      },
    ],
  },
  {
    alert: 'LockstepWakeupsLost',
    when: 'Redis was restarted once',
    series: { [`lockstep_sweeper_wakeups_total${on('a')}`]: '0x5 200x60' },
    at: '30m',
  },
  {
    alert: 'LockstepScimFails',
    when: 'every twentieth request fails',
    series: {
      [`lockstep_scim_requests_total${on('a', 'status="503"')}`]: '0+5x30',
      [`lockstep_scim_requests_total${on('a', 'status="200"')}`]: '0+95x30',
    },
    at: '15m',
    fires: [
      {
        labels: { job },
        says: `5% of the SCIM requests of ${job} are answered 5xx; identity providers try again, and pause after some days.`,
      },
    ],
  },
  {
    alert: 'LockstepScimFails',
    when: 'many are refused, one fails',
    series: {
      [`lockstep_scim_requests_total${on('a', 'status="500"')}`]: '0x10 1x20',
      [`lockstep_scim_requests_total${on('a', 'status="409"')}`]: '0+1x30',
    },
    at: '15m',
  },
  {
    alert: 'LockstepScimUnauthorized',
    when: 'half of them have no good token',
    series: {
      [`lockstep_scim_requests_total${on('a', 'status="401"')}`]: '0+5x90',
      [`lockstep_scim_requests_total${on('a', 'status="200"')}`]: '0+5x90',
    },
    at: '60m',
    fires: [
      {
        labels: { job },
        says: `50% of the SCIM requests of ${job} come with a token that does not count (any more).`,
      },
    ],
  },
  {
    alert: 'LockstepScimUnauthorized',
    when: 'somebody knocks now and then',
    series: {
      [`lockstep_scim_requests_total${on('a', 'status="401"')}`]: '0+1x90',
      [`lockstep_scim_requests_total${on('a', 'status="200"')}`]: '0+50x90',
    },
    at: '60m',
  },
  {
    alert: 'LockstepTokenExpires',
    when: 'the last token of a directory has six days left',
    series: gauge('lockstep_token_expiry_timestamp_seconds', `${6 * 86_400 + 7_200}x200`),
    at: '2h',
    fires: [
      {
        labels: { job },
        says: `A directory of ${job} has no token that lives longer than 6d 0h 0m 0s; after that its identity provider is not let in.`,
      },
    ],
  },
  {
    alert: 'LockstepTokenExpires',
    when: 'it has a month',
    series: gauge('lockstep_token_expiry_timestamp_seconds', `${30 * 86_400}x200`),
    at: '2h',
  },
  {
    alert: 'LockstepSignInsFail',
    when: 'three of four fail',
    series: {
      [`lockstep_sign_ins_total${on('a', 'method="saml",outcome="signature"')}`]: '0+3x90',
      [`lockstep_sign_ins_total${on('a', 'method="saml",outcome="ok"')}`]: '0+1x90',
      [`lockstep_sign_ins_total${on('a', 'method="oidc",outcome="ok"')}`]: '0+9x90',
    },
    at: '60m',
    fires: [
      {
        labels: { job, method: 'saml' },
        says: `75% of the sign-ins by saml at ${job} failed in the last half hour.`,
      },
    ],
  },
  {
    alert: 'LockstepSignInsFail',
    when: 'some try a connection that is being set up, and a few are refused',
    series: {
      [`lockstep_sign_ins_total${on('a', 'method="saml",outcome="test"')}`]: '0+9x90',
      [`lockstep_sign_ins_total${on('a', 'method="saml",outcome="domain"')}`]: '0+1x90',
      [`lockstep_sign_ins_total${on('a', 'method="saml",outcome="ok"')}`]: '0+3x90',
    },
    at: '60m',
  },
  {
    alert: 'LockstepRequestLogDrops',
    when: 'it drops for half an hour',
    series: { [`lockstep_request_log_dropped_total${on('a')}`]: '0+4x60' },
    at: '40m',
    fires: [
      {
        labels: { job },
        says: `60 SCIM requests of ${job} were answered but not kept in the last 15 minutes.`,
      },
    ],
  },
  {
    alert: 'LockstepRequestLogDrops',
    when: 'it dropped some in one burst',
    series: { [`lockstep_request_log_dropped_total${on('a')}`]: '0x5 90x60' },
    at: '40m',
  },
  {
    alert: 'LockstepAbsent',
    when: 'nothing of it was ever seen',
    series: { 'up{job="other"}': '1x30' },
    at: '10m',
    fires: [
      {
        labels: {},
        says: 'Prometheus sees nothing of Lockstep: nothing runs, or nothing is scraped. Until then no other alert can be believed.',
      },
    ],
  },
  {
    alert: 'LockstepAbsent',
    when: 'one of two has gone',
    series: {
      'lockstep_sweeper_wakeups_total{job="staging/lockstep"}': '0x200',
      [`lockstep_sweeper_wakeups_total${on('a')}`]: '0x60 stale',
    },
    at: '80m',
    fires: [
      {
        labels: { job },
        says: `Prometheus sees nothing of Lockstep (${job}): nothing runs, or nothing is scraped. Until then no other alert can be believed.`,
      },
    ],
  },
  {
    alert: 'LockstepAbsent',
    when: 'one process follows another',
    series: {
      [`lockstep_sweeper_wakeups_total${on('a')}`]: '0x60 stale',
      [`lockstep_sweeper_wakeups_total${on('b')}`]: '_x60 0x100',
    },
    at: '90m',
  },
  {
    alert: 'LockstepStateAbsent',
    when: 'processes run, and none of them is elected',
    series: scraped,
    at: '10m',
    fires: [
      {
        labels: { job },
        says: `${job} runs, but none of its processes exports what is unapplied, parked and mismatched: the elected one is not scraped, or the database does not answer.`,
      },
    ],
  },
  {
    alert: 'LockstepStateAbsent',
    when: 'another process of the same Lockstep is elected',
    series: { ...scraped, [`lockstep_unapplied_changes${on('b')}`]: '0x200' },
    at: '10m',
  },
  {
    alert: 'LockstepProcessDown',
    when: 'one of three does not answer',
    series: { [`up${on('a')}`]: '1x30', [`up${on('b')}`]: '0x30', [`up${on('c')}`]: '1x30' },
    at: '10m',
    fires: [{ labels: { job }, says: `1 processes of ${job} do not answer on /metrics.` }],
  },
  {
    alert: 'LockstepProcessDown',
    when: 'all answer, and somebody else does not',
    series: { [`up${on('a')}`]: '1x30', 'up{job="node"}': '0x30' },
    at: '10m',
  },
  {
    alert: 'LockstepPoolExhausted',
    when: 'something waits at every look, in one pool of one process',
    series: {
      [`lockstep_database_waiting${on('a', 'pool="app"')}`]: '3x30',
      [`lockstep_database_waiting${on('a', 'pool="system"')}`]: '0x30',
      [`lockstep_database_waiting${on('b', 'pool="app"')}`]: '0x30',
    },
    at: '10m',
    fires: [
      {
        labels: { job, instance: 'a', pool: 'app' },
        says: `3 pieces of work of a (${job}) wait for a connection of the pool app, and some have at every look for five minutes.`,
      },
    ],
  },
  {
    alert: 'LockstepPoolExhausted',
    when: 'bursts come and are worked off',
    series: { [`lockstep_database_waiting${on('a', 'pool="app"')}`]: '9x3 0 9x3 0 9x3 0 9x3' },
    at: '14m',
  },
  {
    alert: 'LockstepEventLoopSlow',
    when: 'one is late by a second',
    series: {
      [`nodejs_eventloop_lag_p99_seconds${on('a')}`]: '1x30',
      [`nodejs_eventloop_lag_p99_seconds${on('b')}`]: '0.01x30',
    },
    at: '15m',
    fires: [{ labels: { job, instance: 'a' }, says: `The event loop of a (${job}) is late by 1s (p99).` }],
  },
  {
    alert: 'LockstepEventLoopSlow',
    when: 'it was once, and another program always is',
    series: {
      [`nodejs_eventloop_lag_p99_seconds${on('a')}`]: '0.02x5 2 0.02x30',
      'nodejs_eventloop_lag_p99_seconds{job="other",instance="x"}': '3x30',
    },
    at: '15m',
  },
];
