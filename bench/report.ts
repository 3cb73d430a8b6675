/**
 * What was measured: figures as they come, and at the end one table with the targets of the project beside them.
 * A target that was not measured in this run is not shown as reached.
 */

export interface Latency {
  p50: number;
  p99: number;
}

export interface Beside {
  name: string;
  value: number;
}

export interface Target {
  words: string;
  reached: boolean;
  /** What was measured, in the target's terms. */
  measured: string;
}

export interface Figure {
  section: string;
  name: string;
  value: number;
  unit: string;
  latencyMs?: Latency;
  /** Beside what it was measured; the ratio to each is shown. */
  beside?: Beside[];
  targets?: Target[];
}

/** Words where there is no figure: what was not measured, and why. */
export interface Remark {
  section: string;
  name: string;
  words: string;
}

/** Figures side by side, printed as Markdown, as docs/performance.md has them. */
export interface Table {
  title: string;
  columns: string[];
  rows: string[][];
}

export interface Report {
  figures: (Figure | Remark)[];
  tables: Table[];
  add(figure: Figure | Remark): void;
}

export function openReport(onFigure: (line: string) => void): Report {
  const figures: (Figure | Remark)[] = [];
  return {
    figures,
    tables: [],
    add(figure) {
      figures.push(figure);
      onFigure(lineOf(figure));
    },
  };
}

/** A target that a ratio must reach. */
export function atLeast(least: number, value: number, beside: Beside): Target {
  return compared(`≥ ${least.toFixed(2)} × ${beside.name}`, value, beside, (ratio) => ratio >= least);
}

/** A target that a ratio must not pass. */
export function atMost(most: number, value: number, beside: Beside): Target {
  return compared(`≤ ${most.toFixed(2)} × ${beside.name}`, value, beside, (ratio) => ratio <= most);
}

function compared(words: string, value: number, beside: Beside, holds: (ratio: number) => boolean): Target {
  const ratio = value / beside.value;
  return { words, reached: holds(ratio), measured: `${ratio.toFixed(2)} × ${beside.name}` };
}

export function lineOf(figure: Figure | Remark): string {
  const name = `  ${figure.name.padEnd(56)}`;
  if ('words' in figure) return `${name} ${figure.words}`;
  const { latencyMs, beside = [], targets = [] } = figure;
  return [
    `${name} ${amount(figure.value, figure.unit).padStart(14)}`,
    ...(latencyMs ? [`p50 ${amount(latencyMs.p50, 'ms')}, p99 ${amount(latencyMs.p99, 'ms')}`] : []),
    ...beside.map(
      (b) => `${(figure.value / b.value).toFixed(2)} × ${b.name} (${amount(b.value, figure.unit)})`,
    ),
    ...targets.map((t) => `${t.reached ? 'PASS' : 'MISS'} (target: ${t.words})`),
  ].join('   ');
}

export function tableOf(figures: readonly (Figure | Remark)[]): string {
  const lines: string[] = [];
  let section = '';
  for (const figure of figures) {
    if (figure.section !== section) {
      section = figure.section;
      lines.push('', section);
    }
    lines.push(lineOf(figure));
  }
  const targets = figures.flatMap((f) =>
    'words' in f ? [] : (f.targets ?? []).map((target) => ({ name: f.name, target })),
  );
  const reached = targets.filter(({ target }) => target.reached);
  lines.push(
    '',
    `Targets: ${reached.length} of ${targets.length} that were measured in this run are reached`,
  );
  // What is missed stands last, where whoever waited for it looks.
  for (const { name, target } of [...reached, ...targets.filter((t) => !t.target.reached)]) {
    const said = target.reached ? 'PASS' : 'MISS';
    lines.push(`  ${said}  ${name}: ${target.measured}; target ${target.words}`);
  }
  return lines.join('\n');
}

export function markdownOf(table: Table): string {
  const row = (cells: string[]) => `| ${cells.join(' | ')} |`;
  return [
    table.title,
    '',
    row(table.columns),
    row(table.columns.map(() => '---')),
    ...table.rows.map(row),
  ].join('\n');
}

export function amount(value: number, unit: string): string {
  return `${plain(value)} ${unit}`;
}

/** A number with as many digits as its size makes worth reading. */
export function plain(value: number): string {
  const digits = Number.isInteger(value) || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** @throws Error for an empty list */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const low = sorted[Math.floor((sorted.length - 1) / 2)];
  const high = sorted[Math.floor(sorted.length / 2)];
  if (low === undefined || high === undefined) throw new Error('no figures to take a median of');
  return (low + high) / 2;
}

/** @param part 0 to 1 @throws Error for an empty list */
export function percentile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const value = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];
  if (value === undefined) throw new Error('no figures to take a percentile of');
  return value;
}
