/** The alerts, by Prometheus' own promtool: each fires when it should, with the right words, and is silent otherwise. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { stringify } from 'yaml';
import { alertCases } from './alerts.ts';
import { root, ruleFiles, rules } from './chart.ts';
import { promtool, promtoolAvailable, promtoolMissing } from './promtool.ts';

promtoolMissing('alerts: that they are valid, fire when they should and are silent otherwise');

const folder = mkdtempSync(join(tmpdir(), 'lockstep-rules-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const alerts = rules.filter((rule) => rule.alert !== undefined);

test('every alert says how bad it is, what happened with its value, and where to read on', () => {
  const names = alerts.map((rule) => rule.alert);
  expect(new Set(names).size).toBe(names.length);
  for (const { alert, expr, labels, annotations } of alerts) {
    expect(labels?.severity, alert).toMatch(/^(critical|warning)$/);
    expect(annotations?.summary, alert).toMatch(/^[A-Z][^{]{8,80}[^.]$/);
    // What is absent has no value to tell.
    if (!/absent\(|unless/.test(expr)) expect(annotations?.description, alert).toContain('$value');
    expect(annotations?.description, alert).toContain('$labels.');
  }
});

test('every runbook_url is a heading of docs/runbook.md, and every heading of a symptom is the end of an alert', () => {
  const headings = [...readFileSync(`${root}/docs/runbook.md`, 'utf8').matchAll(/^## (.+)$/gm)].map(
    ([, text]) => `docs/runbook.md#${anchor(text ?? '')}`,
  );
  const linked = new Set(alerts.map((rule) => rule.annotations?.runbook_url));
  expect([...linked].sort()).toEqual(headings.filter((heading) => !heading.endsWith('#how-to-look')).sort());
});

test('every alert has a case in which it fires and one in which it is silent', () => {
  for (const { alert } of alerts) {
    const cases = alertCases.filter((one) => one.alert === alert);
    expect(
      cases.some((one) => one.fires !== undefined),
      `${alert} fires`,
    ).toBe(true);
    expect(
      cases.some((one) => one.fires === undefined),
      `${alert} is silent`,
    ).toBe(true);
  }
  expect(alertCases.filter((one) => !alerts.some((rule) => rule.alert === one.alert))).toEqual([]);
});

test.skipIf(!promtoolAvailable)('promtool check rules finds nothing', () => {
  expect(promtool('check', 'rules', '--lint-fatal', ...ruleFiles)).toMatchObject({ ok: true });
});

test.skipIf(!promtoolAvailable).each(alertCases)('$alert: $when', (one) => {
  const rule = alerts.find((found) => found.alert === one.alert);
  const every = one.every ?? '1m';
  const file = join(folder, 'case.yaml');
  const expected = (one.fires ?? []).map(({ labels, says }) => ({
    exp_labels: { ...labels, severity: rule?.labels?.severity },
    exp_annotations: { ...rule?.annotations, description: says },
  }));
  writeFileSync(
    file,
    stringify({
      // The objectives take most of the time, and only burn rates are made of them.
      rule_files: ruleFiles.filter(
        (name) => rule?.expr.includes('lockstep:') || name.endsWith('alerts.yaml'),
      ),
      evaluation_interval: every,
      tests: [
        {
          interval: every,
          input_series: Object.entries(one.series).map(([series, values]) => ({ series, values })),
          alert_rule_test: [{ eval_time: one.at, alertname: one.alert, exp_alerts: expected }],
        },
      ],
    }),
  );
  const { ok, said } = promtool('test', 'rules', file);
  expect(ok, said).toBe(true);
});

/** As GitHub and GitLab make them of a heading. */
function anchor(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\w\s-]/g, '')
    .trim()
    .replace(/\s/g, '-');
}
