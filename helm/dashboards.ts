/**
 * Writes the Grafana dashboards of the chart: `node helm/dashboards.ts`. The JSON is what is committed and used; this
 * keeps panels alike and their places right. `$job` is one Lockstep, and ranges are Grafana's $__rate_interval.
 */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

type Unit = 's' | 'short' | 'reqps' | 'ops' | 'percentunit' | 'bytes' | 'dateTimeAsIso' | 'dtdurations';
interface Query {
  expr: string;
  legend: string;
}
interface PanelInput {
  title: string;
  about: string;
  unit: Unit;
  queries: Query[];
  kind?: 'timeseries' | 'stat';
  width?: number;
  /** Above it the value is red. */
  limit?: number;
  stacked?: boolean;
}

const q = (expr: string, legend = ''): Query => ({ expr, legend });
const at = '{job="$job"}';
const rate = (metric: string, labels = '') =>
  `rate(${metric}{job="$job"${labels && `,${labels}`}}[$__rate_interval])`;
const quantiles = (metric: string, by: string, labels = '') =>
  [0.5, 0.99].map((quantile) =>
    q(
      `histogram_quantile(${quantile}, sum by (le, ${by}) (${rate(`${metric}_bucket`, labels)}))`,
      `p${quantile * 100} {{${by}}}`,
    ),
  );
const age = (metric: string, by = '') => `time() - min${by && ` by (${by})`} (${metric}${at})`;

const dashboards = {
  'lockstep-overview': {
    title: 'Lockstep: overview',
    panels: [
      stat(
        'Oldest change not effective',
        'Nothing when every change is effective',
        's',
        `(${age('lockstep_oldest_unapplied_timestamp_seconds')}) or vector(0)`,
        120,
      ),
      stat(
        'Oldest leaver not denied',
        'Since their directory said so',
        's',
        `(${age('lockstep_open_deprovision_oldest_timestamp_seconds')}) or vector(0)`,
        60,
      ),
      stat(
        'Confirmed mismatches',
        'Members whose access differs from the source',
        'short',
        `sum(lockstep_mismatch{job="$job",state="confirmed",kind!="unknown"})`,
        1,
      ),
      stat(
        'Directories unknown',
        'Could not be read lately: nobody can say what differs',
        'short',
        `sum(lockstep_mismatch{job="$job",kind="unknown"})`,
        1,
      ),
      stat(
        'Parked changes',
        'Failed at every attempt, and wait for a person',
        'short',
        `max(lockstep_parked_changes${at})`,
        1,
      ),
      stat(
        'Held removals',
        'Inferred from absence, and wait for a decision',
        'short',
        `sum(lockstep_held_changes${at})`,
        1,
      ),
      panel(
        'Sync lag',
        'From the change at its source until an authorization read sees it; a first import apart',
        's',
        quantiles('lockstep_sync_lag_seconds', 'source', 'phase="live"'),
        { width: 12 },
      ),
      panel(
        'Where the lag goes',
        'commit: source to change log; wait: until the lane takes it; converge: until it has committed',
        's',
        quantiles('lockstep_stage_seconds', 'stage'),
        { width: 12 },
      ),
      panel(
        'Time to deprovision',
        "From a leaver's change at its source until status, roles and sessions are denied",
        's',
        quantiles('lockstep_time_to_deprovision_seconds', 'source'),
        { width: 12 },
      ),
      panel(
        'Late, of what must not be',
        'Share of live changes and leavers that missed their objective (rules/objectives.yaml)',
        'percentunit',
        [
          q(late('lockstep_sync_lag_seconds', 'phase="live",source=~"scim|login"', '5'), 'pushed changes'),
          q(late('lockstep_sync_lag_seconds', 'phase="live",source!~"scim|login"', '300'), 'pulled changes'),
          q(
            late('lockstep_time_to_deprovision_seconds', 'source=~"scim|login|mapping|operator"', '30'),
            'pushed leavers',
          ),
          q(
            late('lockstep_time_to_deprovision_seconds', 'source!~"scim|login|mapping|operator"', '300'),
            'pulled leavers',
          ),
        ],
        { width: 12 },
      ),
      panel(
        'Mismatch by kind',
        'Suspected until it is older than the grace time and the source, asked again, agrees',
        'short',
        [q(`sum by (kind, state) (lockstep_mismatch${at})`, '{{kind}} {{state}}')],
        { width: 12, stacked: true },
      ),
      panel(
        'Age of watermarks',
        'Every earlier change of the source is in the mirror, or held',
        's',
        [q(age('lockstep_watermark_timestamp_seconds', 'directory_kind'), '{{directory_kind}}')],
        { width: 12, limit: 900 },
      ),
      panel(
        'Changes not effective',
        'Waiting for their lane; parked ones apart',
        'short',
        [
          q(`max(lockstep_unapplied_changes${at})`, 'unapplied'),
          q(`max(lockstep_parked_changes${at})`, 'parked'),
        ],
        { width: 12 },
      ),
      panel(
        'Changes made effective',
        'By source',
        'ops',
        [q(`sum by (source, phase) (${rate('lockstep_sync_lag_seconds_count')})`, '{{source}} {{phase}}')],
        { width: 12 },
      ),
    ],
  },
  'lockstep-scim': {
    title: 'Lockstep: SCIM and sign-in',
    panels: [
      panel(
        'SCIM requests',
        'By method',
        'reqps',
        [q(`sum by (method) (${rate('lockstep_scim_requests_total')})`, '{{method}}')],
        { stacked: true },
      ),
      panel(
        'Answers',
        'By status',
        'reqps',
        [q(`sum by (status) (${rate('lockstep_scim_requests_total')})`, '{{status}}')],
        { stacked: true },
      ),
      panel(
        'By resource',
        'What identity providers ask about',
        'reqps',
        [q(`sum by (resource) (${rate('lockstep_scim_requests_total')})`, '{{resource}}')],
        { stacked: true },
      ),
      panel(
        'Time to answer',
        'A 2xx is durable: it includes the commit',
        's',
        quantiles('lockstep_scim_request_seconds', 'method'),
      ),
      panel('Refusals', 'By SCIM error type', 'reqps', [
        q(
          `sum by (status, scim_type) (${rate('lockstep_scim_requests_total', 'status=~"4.."')})`,
          '{{status}} {{scim_type}}',
        ),
      ]),
      panel(
        'Share of failures',
        '5xx of all',
        'percentunit',
        [
          q(
            `(sum(${rate('lockstep_scim_requests_total', 'status=~"5.."')}) or vector(0)) / sum(${rate('lockstep_scim_requests_total')})`,
            '5xx',
          ),
        ],
        { limit: 0.02 },
      ),
      panel(
        'Not kept in the request log',
        'Answered, but there was no room for them, or the database was away',
        'reqps',
        [q(`sum(${rate('lockstep_request_log_dropped_total')})`, 'dropped')],
      ),
      panel('Sign-ins', 'By how they came and what became of them', 'ops', [
        q(`sum by (method, outcome) (${rate('lockstep_sign_ins_total')})`, '{{method}} {{outcome}}'),
      ]),
      panel('Sessions', 'Opened, and ended before their time', 'ops', [
        q(`sum(${rate('lockstep_sessions_opened_total')})`, 'opened'),
        q(`sum by (because) (${rate('lockstep_sessions_ended_total')}) or vector(0)`, 'ended {{because}}'),
      ]),
      panel('Introspections', 'By whether the session was good', 'reqps', [
        q(`sum by (active) (${rate('lockstep_introspections_total')})`, 'active={{active}}'),
      ]),
    ],
  },
  'lockstep-pulls': {
    title: 'Lockstep: pulls and reconciliation',
    panels: [
      panel('Pulls', 'Runs that came to their end', 'ops', [
        q(
          `sum by (directory_kind, mode, outcome) (${rate('lockstep_pull_runs_total')})`,
          '{{directory_kind}} {{mode}} {{outcome}}',
        ),
      ]),
      panel(
        'Requests to sources',
        'By status; 0 where no answer came, 429 where the source holds us back',
        'reqps',
        [
          q(
            `sum by (directory_kind, status) (${rate('lockstep_pull_api_calls_total')})`,
            '{{directory_kind}} {{status}}',
          ),
        ],
        { stacked: true },
      ),
      panel(
        'Age of watermarks',
        'The oldest of each kind',
        's',
        [q(age('lockstep_watermark_timestamp_seconds', 'directory_kind'), '{{directory_kind}}')],
        { limit: 900 },
      ),
      panel(
        'Age of the last certified reconciliation',
        'The oldest of each kind; one a day',
        's',
        [q(age('lockstep_reconcile_timestamp_seconds', 'directory_kind'), '{{directory_kind}}')],
        { limit: 172_800 },
      ),
      panel(
        'Held removals',
        'By which limit of the guard',
        'short',
        [q(`sum by (reason) (lockstep_held_changes${at})`, '{{reason}}')],
        { stacked: true },
      ),
      panel('Mismatch', 'By kind', 'short', [q(`sum by (kind) (lockstep_mismatch${at})`, '{{kind}}')], {
        stacked: true,
      }),
      panel(
        'Lag of pulled changes',
        'From the event at the source',
        's',
        quantiles('lockstep_sync_lag_seconds', 'source', 'source!~"scim|login"'),
      ),
      panel('Jobs of pulls', 'They carry wake-ups, not changes', 'short', [
        q(`sum by (state) (lockstep_queue_jobs{job="$job",queue="pulls"})`, '{{state}}'),
      ]),
    ],
  },
  'lockstep-fleet': {
    title: 'Lockstep: fleet',
    panels: [
      panel('Processes', 'That answer Prometheus', 'short', [
        q(`sum(up${at})`, 'up'),
        q(`count(up${at})`, 'known'),
      ]),
      panel('Jobs of lanes', 'They carry wake-ups, not changes', 'short', [
        q(`sum by (state) (lockstep_queue_jobs{job="$job",queue="lanes"})`, '{{state}}'),
      ]),
      panel(
        'Waiting for a lane',
        'From the commit until a worker takes it',
        's',
        quantiles('lockstep_stage_seconds', 'stage', 'stage="wait"'),
      ),
      panel(
        'Converging',
        'From there until its transaction has committed: the database',
        's',
        quantiles('lockstep_stage_seconds', 'stage', 'stage="converge"'),
      ),
      panel('Wake-ups found by the sweeper', 'Lanes whose own wake-up was lost', 'ops', [
        q(`sum(${rate('lockstep_sweeper_wakeups_total')})`, 'lanes'),
      ]),
      panel('CPU', 'Cores by process', 'short', [
        q(`sum by (instance) (${rate('process_cpu_seconds_total')})`, '{{instance}}'),
      ]),
      panel('Memory', 'Resident, by process', 'bytes', [
        q(`max by (instance) (process_resident_memory_bytes${at})`, '{{instance}}'),
      ]),
      panel(
        'Event loop',
        'How late it is, p99',
        's',
        [q(`max by (instance) (nodejs_eventloop_lag_p99_seconds${at})`, '{{instance}}')],
        { limit: 0.5 },
      ),
      panel(
        'HTTP requests',
        'By group of routes; what no probe and no scrape asks',
        'reqps',
        [
          q(
            `sum by (group) (${rate('lockstep_http_requests_total', 'group!~"health|metrics"')})`,
            '{{group}}',
          ),
        ],
        { stacked: true },
      ),
      panel(
        'Time to answer over HTTP',
        'By group of routes',
        's',
        quantiles('lockstep_http_request_seconds', 'group', 'group!~"health|metrics"'),
      ),
      panel(
        'HTTP failures',
        '5xx, and clients that were gone before the answer, of all',
        'percentunit',
        [
          q(
            `(sum(${rate('lockstep_http_requests_total', 'status=~"5..|0"')}) or vector(0)) / sum(${rate('lockstep_http_requests_total')})`,
            'failed',
          ),
        ],
        { limit: 0.02 },
      ),
      panel(
        'Database connections in use',
        'Share of what a pool may hold, by process',
        'percentunit',
        [
          q(
            'max by (instance, pool) (lockstep_database_connections{job="$job",state="used"} / ignoring (state) lockstep_database_connections_max{job="$job"})',
            '{{instance}} {{pool}}',
          ),
        ],
        { limit: 1 },
      ),
      panel(
        'Waiting for a database connection',
        'Work that has none, since all of its pool are in use',
        'short',
        [q(`sum by (instance, pool) (lockstep_database_waiting${at})`, '{{instance}} {{pool}}')],
        { limit: 1 },
      ),
      panel('Garbage collection', 'Share of the time', 'percentunit', [
        q(`sum by (instance) (${rate('nodejs_gc_duration_seconds_sum')})`, '{{instance}}'),
      ]),
      panel(
        'Tenants without an active owner',
        'An operator gives the role to somebody else',
        'short',
        [q(`max(lockstep_tenants_without_owner${at})`, 'tenants')],
        { limit: 1 },
      ),
    ],
  },
};

function late(metric: string, labels: string, le: string): string {
  const inTime = rate(`${metric}_bucket`, `${labels},le=~"${le}([.]0)?"`);
  return `1 - sum(${inTime}) / sum(${rate(`${metric}_count`, labels)})`;
}

function stat(title: string, about: string, unit: Unit, expr: string, limit: number): PanelInput {
  return { title, about, unit, queries: [q(expr)], kind: 'stat', width: 4, limit };
}

function panel(
  title: string,
  about: string,
  unit: Unit,
  queries: Query[],
  more: Pick<PanelInput, 'width' | 'limit' | 'stacked'> = {},
): PanelInput {
  return { title, about, unit, queries, ...more };
}

// biome-ignore lint/suspicious/noTemplateCurlyInString: Grafana's way to name a variable
const datasource = { type: 'prometheus', uid: '${datasource}' };

function grafana(uid: string, { title, panels }: { title: string; panels: PanelInput[] }): unknown {
  let [x, y, row] = [0, 0, 0];
  return {
    uid,
    title,
    tags: ['lockstep'],
    schemaVersion: 39,
    editable: true,
    refresh: '30s',
    time: { from: 'now-3h', to: 'now' },
    links: [
      {
        type: 'dashboards',
        tags: ['lockstep'],
        title: 'Lockstep',
        asDropdown: true,
        keepTime: true,
        includeVars: true,
      },
    ],
    templating: {
      list: [
        { name: 'datasource', label: 'Prometheus', type: 'datasource', query: 'prometheus' },
        {
          ...{ name: 'job', label: 'Lockstep', type: 'query', datasource, refresh: 2, sort: 1 },
          query: { query: 'label_values(lockstep_sweeper_wakeups_total, job)', refId: 'job' },
        },
      ],
    },
    panels: panels.map((input, n) => {
      const w = input.width ?? 12;
      const h = input.kind === 'stat' ? 4 : 8;
      if (x + w > 24) [x, y, row] = [0, y + row, 0];
      const gridPos = { x, y, w, h };
      [x, row] = [x + w, Math.max(row, h)];
      return drawn(input, n + 1, gridPos);
    }),
  };
}

function drawn(input: PanelInput, id: number, gridPos: object): unknown {
  const kind = input.kind ?? 'timeseries';
  const steps = [
    { color: 'green', value: null },
    ...(input.limit === undefined ? [] : [{ color: 'red', value: input.limit }]),
  ];
  return {
    ...{ id, type: kind, title: input.title, description: input.about, datasource, gridPos },
    fieldConfig: {
      defaults: {
        unit: input.unit,
        min: 0,
        thresholds: { mode: 'absolute', steps },
        ...(kind === 'timeseries' && {
          custom: {
            ...(input.stacked && { stacking: { mode: 'normal' }, fillOpacity: 20 }),
            ...(input.limit !== undefined && { thresholdsStyle: { mode: 'line' } }),
          },
        }),
      },
      overrides: [],
    },
    options:
      kind === 'stat'
        ? { reduceOptions: { calcs: ['lastNotNull'] }, colorMode: 'value', graphMode: 'area' }
        : { legend: { displayMode: 'list', placement: 'bottom' }, tooltip: { mode: 'multi' } },
    targets: input.queries.map(({ expr, legend }, n) => ({
      ...{ refId: String.fromCharCode(65 + n), datasource, expr },
      ...(legend && { legendFormat: legend }),
    })),
  };
}

/** The files as they should be, by name. */
export const files = Object.entries(dashboards).map(([uid, dashboard]) => ({
  name: `${uid}.json`,
  content: `${JSON.stringify(grafana(uid, dashboard), null, 2)}\n`,
}));

if (import.meta.main) {
  for (const { name, content } of files) {
    writeFileSync(fileURLToPath(new URL(`lockstep/dashboards/${name}`, import.meta.url)), content);
  }
}
