/**
 * The load generator: a process of its own, because client, server and PostgreSQL share the machine's cores and an
 * event loop must not be shared as well. It speaks HTTP/1.1 over raw sockets, one request under way a connection,
 * which costs a fraction of what a full HTTP client does; how much of a core it used is part of every result.
 *
 * Orders come and results go over IPC (see generator.ts).
 */
import { connect, type Socket } from 'node:net';

/** What to send. In path and bodies `{n}` is a number never used twice, `{id}` and `{name}` come from `values`. */
export interface Plan {
  method: string;
  path: string;
  bodies?: string[];
  values?: { id: string; name: string }[];
  /** So many values with the first body, then the same ones with the next, then the next values. All when absent. */
  window?: number;
  headers: Record<string, string>;
  expect: number[];
}

export interface Order {
  port: number;
  plan: Plan;
  /** Requests under way at the same time. */
  concurrency: number;
  /** Ends after so long, or after so many requests; but not before `atLeast` were sent. */
  seconds?: number;
  requests?: number;
  atLeast?: number;
  /** Requests a second, sent at their time whatever the answers do; as fast as answers come when absent. */
  rate?: number;
}

export interface Result {
  done: number;
  seconds: number;
  /** Answers that were not expected, by status; with the first one's body. */
  wrong: Record<string, number>;
  firstWrong: string | undefined;
  latencyMs: { p50: number; p95: number; p99: number };
  /** Part of one core that this process used. */
  clientCpu: number;
  /** Requests that could not leave at their time, because every connection was busy (only with a rate). */
  late: number;
}

let unique = 0;

class Connection {
  readonly #socket: Socket;
  #answer: ((status: number, body: string) => void) | undefined;
  #failed: ((error: Error) => void) | undefined;
  #text = '';
  #need = -1;
  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.setEncoding('latin1');
    socket.on('data', (chunk) => this.#read(String(chunk)));
    socket.on('error', (error) => this.#failed?.(error));
    socket.on('close', () => this.#failed?.(new Error('the server closed a connection')));
  }

  static open(port: number): Promise<Connection> {
    return new Promise((resolve, reject) => {
      const socket = connect(port, '127.0.0.1', () => resolve(new Connection(socket)));
      socket.once('error', reject);
    });
  }

  send(request: string): Promise<{ status: number; body: string }> {
    return new Promise((resolve, reject) => {
      this.#answer = (status, body) => resolve({ status, body });
      this.#failed = reject;
      this.#socket.write(request);
    });
  }

  close(): void {
    this.#failed = undefined;
    this.#socket.destroy();
  }

  #read(chunk: string): void {
    this.#text += chunk;
    if (this.#need < 0) {
      const end = this.#text.indexOf('\r\n\r\n');
      if (end < 0) return;
      const head = this.#text.slice(0, end);
      if (/transfer-encoding: *chunked/i.test(head)) {
        this.#failed?.(new Error('this client does not read chunked answers'));
        return;
      }
      const length = /\r\ncontent-length: *(\d+)/i.exec(head);
      this.#need = end + 4 + Number(length?.[1] ?? 0);
    }
    if (this.#text.length < this.#need) return;
    const status = Number(this.#text.slice(9, 12));
    const body = this.#text.slice(this.#text.indexOf('\r\n\r\n') + 4);
    this.#text = '';
    this.#need = -1;
    this.#answer?.(status, body);
  }
}

/** A function that makes the next request of a plan as bytes. */
function requests(plan: Plan): () => string {
  const values = plan.values ?? [];
  const bodies = plan.bodies ?? [];
  const head = Object.entries({ host: '127.0.0.1', ...plan.headers })
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('');
  const window = Math.max(1, plan.window ?? values.length);
  let i = 0;
  return () => {
    const turn = Math.floor(i / window);
    const past = Math.floor(turn / Math.max(1, bodies.length)) * window;
    const value = values[(past + (i % window)) % Math.max(1, values.length)];
    const body = bodies[turn % Math.max(1, bodies.length)];
    i += 1;
    unique += 1;
    const fill = (text: string) =>
      text
        .replaceAll('{n}', String(unique))
        .replaceAll('{id}', value?.id ?? '')
        .replaceAll('{name}', value?.name ?? '');
    const filled = body === undefined ? '' : fill(body);
    const length = body === undefined ? '' : `content-length: ${Buffer.byteLength(filled)}\r\n`;
    return `${plan.method} ${fill(plan.path)} HTTP/1.1\r\n${head}${length}\r\n${filled}`;
  };
}

async function run(order: Order): Promise<Result> {
  const next = requests(order.plan);
  const connections = await Promise.all(
    Array.from({ length: order.concurrency }, () => Connection.open(order.port)),
  );
  const latencies: number[] = [];
  const wrong: Record<string, number> = {};
  let firstWrong: string | undefined;
  let sent = 0;
  let late = 0;
  const cpu = process.cpuUsage();
  const startedAt = performance.now();
  const until = order.seconds === undefined ? Infinity : startedAt + order.seconds * 1000;
  const most = order.requests ?? Infinity;
  const least = order.atLeast ?? 0;

  async function one(connection: Connection, dueAt: number): Promise<void> {
    sent += 1;
    const { status, body } = await connection.send(next());
    latencies.push(performance.now() - dueAt);
    if (order.plan.expect.includes(status)) return;
    wrong[status] = (wrong[status] ?? 0) + 1;
    firstWrong ??= body.slice(0, 500);
  }

  if (order.rate === undefined) {
    await Promise.all(
      connections.map(async (connection) => {
        for (let at = performance.now(); (at < until || sent < least) && sent < most; at = performance.now())
          await one(connection, at);
      }),
    );
  } else {
    const free = [...connections];
    const waiting: number[] = [];
    const underWay = new Set<Promise<void>>();
    let failed: unknown;
    const send = (connection: Connection, dueAt: number) => {
      const sending = one(connection, dueAt)
        .then(() => {
          const overdue = waiting.shift();
          if (overdue === undefined) free.push(connection);
          else send(connection, overdue);
        })
        .catch((error: unknown) => {
          failed ??= error;
        })
        .finally(() => underWay.delete(sending));
      underWay.add(sending);
    };
    for (let n = 0; n < most && failed === undefined; ) {
      const now = performance.now();
      if (now >= until) break;
      for (; n < most && startedAt + (n * 1000) / order.rate <= now; n += 1) {
        const dueAt = startedAt + (n * 1000) / order.rate;
        const connection = free.pop();
        if (connection) send(connection, dueAt);
        else {
          late += 1;
          waiting.push(dueAt);
        }
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    while (underWay.size > 0) await Promise.all(underWay);
    if (failed !== undefined) throw failed;
  }

  const seconds = (performance.now() - startedAt) / 1000;
  const used = process.cpuUsage(cpu);
  for (const connection of connections) connection.close();
  latencies.sort((a, b) => a - b);
  const at = (part: number) =>
    latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * part))] ?? 0;
  return {
    done: latencies.length,
    seconds,
    wrong,
    firstWrong,
    latencyMs: { p50: at(0.5), p95: at(0.95), p99: at(0.99) },
    clientCpu: (used.user + used.system) / 1e6 / seconds,
    late,
  };
}

// A number that a run before this process did not use either.
unique = Date.now() * 1000;
process.on('message', (order: Order) => {
  run(order).then(
    (result) => process.send?.({ result }),
    (error: unknown) => process.send?.({ error: String(error) }),
  );
});
process.on('disconnect', () => process.exit(0));
