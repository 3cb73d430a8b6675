/**
 * What was measured: figures as they come, and at the end one table with the targets of the project beside them.
 * A target that was not measured in this run is not shown as reached.
 */

export interface Figure {
  section: string;
  name: string;
  value: number;
  unit: string;
  /** Beside what it was measured, and the ratio to it. */
  beside?: { name: string; value: number };
  target?: { words: string; reached: boolean };
}

export interface Report {
  figures: Figure[];
  add(figure: Figure): void;
}

export function openReport(onFigure: (line: string) => void): Report {
  const figures: Figure[] = [];
  return {
    figures,
    add(figure) {
      figures.push(figure);
      onFigure(lineOf(figure));
    },
  };
}

export function lineOf(figure: Figure): string {
  const { beside, target } = figure;
  const ratio = beside
    ? `   ${(figure.value / beside.value).toFixed(2)} × ${beside.name} (${amount(beside.value, figure.unit)})`
    : '';
  const reached = target ? `   ${target.reached ? 'PASS' : 'MISS'} (target: ${target.words})` : '';
  return `  ${figure.name.padEnd(52)} ${amount(figure.value, figure.unit).padStart(14)}${ratio}${reached}`;
}

export function tableOf(figures: readonly Figure[]): string {
  const lines: string[] = [];
  let section = '';
  for (const figure of figures) {
    if (figure.section !== section) {
      section = figure.section;
      lines.push('', section);
    }
    lines.push(lineOf(figure));
  }
  const targets = figures.flatMap((f) => (f.target ? [f] : []));
  lines.push('', 'Targets');
  for (const f of targets) {
    const value = f.beside
      ? `${(f.value / f.beside.value).toFixed(2)} × ${f.beside.name}`
      : amount(f.value, f.unit);
    lines.push(`  ${f.target?.reached ? 'PASS' : 'MISS'}  ${f.name}: ${value}; target ${f.target?.words}`);
  }
  if (targets.length === 0) lines.push('  none measured in this run');
  return lines.join('\n');
}

export function amount(value: number, unit: string): string {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits })} ${unit}`;
}

/** @throws Error for an empty list */
export function median(values: readonly number[]): number {
  return percentile(values, 0.5);
}

/** @param part 0 to 1 @throws Error for an empty list */
export function percentile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const value = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];
  if (value === undefined) throw new Error('no figures to take a percentile of');
  return value;
}
