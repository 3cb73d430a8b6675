/** The files of the chart, as they are committed. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';

const at = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url)).replace(/[/]$/, '');
export const root = at('.');
export const chartFolder = at('helm/lockstep');

export interface Rule {
  alert?: string;
  record?: string;
  expr: string;
  for?: string;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
}

export const ruleFiles = readdirSync(`${chartFolder}/rules`).map((name) => `${chartFolder}/rules/${name}`);

export function rulesOf(file: string): Rule[] {
  const { groups } = parse(readFileSync(file, 'utf8')) as { groups: { rules: Rule[] }[] };
  return groups.flatMap((group) => group.rules);
}

export const rules = ruleFiles.flatMap(rulesOf);

export interface Panel {
  id: number;
  title: string;
  type: string;
  gridPos: { x: number; y: number; w: number; h: number };
  targets?: { expr: string; refId: string; legendFormat?: string; instant?: boolean }[];
}
export interface Dashboard {
  uid: string;
  title: string;
  panels: Panel[];
  templating: { list: { name: string; type: string; query?: string | { query: string } }[] };
}

export const dashboards = readdirSync(`${chartFolder}/dashboards`).map((name) => ({
  name,
  dashboard: JSON.parse(readFileSync(`${chartFolder}/dashboards/${name}`, 'utf8')) as Dashboard,
}));
