/** The handle of the load generator's process: an order in, a result out, one at a time. */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Order, Result } from './load.ts';

export type { Order, Plan, Result } from './load.ts';

export interface Generator {
  /** @throws Error when the load could not be made, or when an answer was not one of the expected ones */
  run(order: Order): Promise<Result>;
  stop(): void;
}

export function openGenerator(): Generator {
  const child = fork(fileURLToPath(new URL('load.ts', import.meta.url)), { stdio: 'inherit' });
  let last: Promise<unknown> = Promise.resolve();
  return {
    run(order) {
      const result = last.then(() => ask(child, order)).then((r) => refuseWrong(order, r));
      last = result.catch(() => {});
      return result;
    },
    stop: () => child.disconnect(),
  };
}

function ask(child: ChildProcess, order: Order): Promise<Result> {
  return new Promise((resolve, reject) => {
    const gone = () => reject(new Error('the load generator ended'));
    child.once('exit', gone);
    child.once('message', (message: { result?: Result; error?: string }) => {
      child.off('exit', gone);
      if (message.result) resolve(message.result);
      else reject(new Error(`${order.plan.method} ${order.plan.path}: ${message.error}`));
    });
    child.send(order);
  });
}

/** A figure over wrong answers is no figure. */
function refuseWrong(order: Order, result: Result): Result {
  const statuses = Object.entries(result.wrong);
  if (statuses.length > 0) {
    const said = statuses.map(([status, n]) => `${n} × ${status}`).join(', ');
    throw new Error(
      `${order.plan.method} ${order.plan.path}: ${said} of ${result.done}; first: ${result.firstWrong}`,
    );
  }
  return result;
}
