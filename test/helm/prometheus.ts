/** A real Prometheus that scrapes what it is told to, four times a second, and answers queries. */
import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { stringify } from 'yaml';
import { freePort } from '../../src/http/port.ts';

export interface Sample {
  metric: Record<string, string>;
  value: number;
}
export interface Prometheus {
  query(expr: string): Promise<Sample[]>;
  /** Those of the last hour. */
  exemplars(expr: string): Promise<{ labels: Record<string, string>; value: string }[]>;
  stop(): Promise<void>;
}

/** @param targets host:port of each process of the job `lockstep` */
export async function startPrometheus(
  folder: string,
  targets: string[],
  ruleFiles: string[],
): Promise<Prometheus> {
  const port = await freePort();
  mkdirSync(folder, { recursive: true });
  const file = join(folder, 'prometheus.yaml');
  writeFileSync(
    file,
    stringify({
      global: { scrape_interval: '250ms', scrape_timeout: '250ms', evaluation_interval: '1s' },
      rule_files: ruleFiles,
      scrape_configs: [{ job_name: 'lockstep', static_configs: [{ targets }] }],
    }),
  );
  const server = spawn(
    'prometheus',
    [
      `--config.file=${file}`,
      `--storage.tsdb.path=${join(folder, 'data')}`,
      `--web.listen-address=127.0.0.1:${port}`,
      '--enable-feature=exemplar-storage',
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  let said = '';
  server.stderr.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  const kill = () => server.kill('SIGKILL');
  process.once('exit', kill);
  const ended = new Promise<void>((resolve) => server.once('exit', () => resolve()));
  const url = `http://127.0.0.1:${port}`;
  while (!(await fetch(`${url}/-/ready`).catch(() => undefined))?.ok) {
    if (server.exitCode !== null) throw new Error(said);
    await pause(50);
  }
  return {
    async query(expr) {
      const answer = await fetch(`${url}/api/v1/query`, {
        method: 'POST',
        body: new URLSearchParams({ query: expr }),
      });
      const body = (await answer.json()) as {
        error?: string;
        data?: { result: { metric: Record<string, string>; value: [number, string] }[] };
      };
      if (!body.data) throw new Error(`${expr}: ${body.error}`);
      return body.data.result.map(({ metric, value }) => ({ metric, value: Number(value[1]) }));
    },
    async exemplars(expr) {
      const now = Date.now() / 1000;
      const asked = new URLSearchParams({ query: expr, start: `${now - 3600}`, end: `${now + 60}` });
      const answer = await fetch(`${url}/api/v1/query_exemplars?${asked}`);
      const { data } = (await answer.json()) as {
        data: { exemplars: { labels: Record<string, string>; value: string }[] }[];
      };
      return data.flatMap((series) => series.exemplars);
    },
    async stop() {
      process.off('exit', kill);
      server.kill('SIGTERM');
      await ended;
    },
  };
}
