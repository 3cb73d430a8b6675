/**
 * A progress bar for whoever watches, and nothing for a log: it draws only on a terminal, above it lines scroll by.
 */
import { MultiBar, Presets } from 'cli-progress';

export interface Progress {
  /** @param done of the total, in the same unit */
  update(done: number, label?: string): void;
  /** Prints a line without tearing the bar. */
  line(text: string): void;
  stop(): void;
}

export interface ProgressOptions {
  total: number;
  /** Where to draw and print. */
  stream: NodeJS.WriteStream;
  /** Shows the seconds that are left by this reckoning; the bar's own estimate otherwise. */
  secondsLeft?: (() => number) | undefined;
}

export function openProgress(options: ProgressOptions): Progress {
  const { stream, total } = options;
  if (!stream.isTTY) {
    return { update: () => {}, line: (text) => stream.write(`${text}\n`), stop: () => {} };
  }
  const bars = new MultiBar(
    {
      stream,
      hideCursor: true,
      clearOnComplete: true,
      stopOnComplete: false,
      etaBuffer: 50,
      format: options.secondsLeft
        ? ' {bar} {percentage}% | {left} left | {label}'
        : ' {bar} {percentage}% | {eta_formatted} left | {label}',
    },
    Presets.shades_classic,
  );
  const left = () => ({ left: options.secondsLeft ? duration(options.secondsLeft()) : '' });
  const bar = bars.create(total, 0, { label: '', ...left() });
  return {
    update: (done, label) =>
      bar.update(Math.min(done, total), { ...(label === undefined ? {} : { label }), ...left() }),
    line: (text) => bars.log(`${text}\n`),
    stop: () => bars.stop(),
  };
}

function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}
