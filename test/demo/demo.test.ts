import { execFile } from 'node:child_process';
import { PassThrough } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { type DemoSummary, type DemoTarget, runDemo } from '../../src/demo/demo.ts';

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

function demo(...args: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [main, 'demo', ...args], (_error, stdout, stderr) =>
      resolve({ status: child.exitCode ?? -1, stdout, stderr }),
    );
  });
}

test('the demo ends by itself with status 0, every change effective and nothing mismatching', async () => {
  const { status, stdout, stderr } = await demo('--changes', '30', '--seed', '7');
  expect(stderr).toBe('');
  expect(stdout).toContain('120 of 120 changes effective');
  expect(stdout).toContain('Mismatches: 0 reported by Lockstep, 0 found');
  for (const source of ['Okta', 'Entra']) {
    expect(stdout).toMatch(new RegExp(`${source} pull +\\d+ ms {2}the first pull brings 16 people`));
    expect(stdout.match(new RegExp(`${source} pull +\\d+ ms`, 'g'))).toHaveLength(30);
  }
  for (const source of ['OpenID', 'SAML']) {
    expect(stdout.match(new RegExp(`${source} +\\d+ ms {2}.* signs in: `, 'g'))).toHaveLength(4);
    expect(stdout.match(new RegExp(`${source} +.* tries again, and is refused`, 'g'))).toHaveLength(4);
  }
  expect(stdout.match(/ push +\d+ ms {2}.* is deactivated: introspection says no/g)).toHaveLength(8);
  expect(stdout).toContain('8 of 8 people signed in');
  // Not a terminal: plain lines, no drawing.
  expect(stdout).not.toContain('\u001b');
  expect(stdout.match(/ms {2}.* joins$/gm)?.length).toBeGreaterThan(20);
  expect(status).toBe(0);
});

test('a member of each tenant changed behind its directory makes the demo end with status 1', async () => {
  const out = new PassThrough();
  const chunks: string[] = [];
  out.on('data', (chunk) => chunks.push(String(chunk)));
  const status = await runDemo(['--changes', '12', '--json'], {
    stdout: out as unknown as NodeJS.WriteStream,
    beforeComparison: giveARole,
  });
  const summary = JSON.parse(chunks.join('')) as DemoSummary;
  expect(summary.effective).toBe(summary.changes);
  const wrong = ['acme', 'globex', 'initech', 'hooli'].map((tenant) =>
    expect.stringMatching(new RegExp(`^${tenant}: .*roles .*intruder`)),
  );
  expect(summary.mismatches.found).toEqual(wrong);
  expect(summary.signIns).toMatchObject({ people: 8, signedIn: 8, cut: 8, refusedAfterwards: 8 });
  expect(status).toBe(1);
});

async function giveARole({ baseUrl, operatorKey, tenants }: DemoTarget): Promise<void> {
  const headers = { authorization: `Bearer ${operatorKey}` };
  for (const tenant of tenants) {
    const path = `${baseUrl}/v1/tenants/${tenant}/members`;
    const list = (await (await fetch(`${path}?status=active`, { headers })).json()) as {
      items: { id: string }[];
    };
    const given = await fetch(`${path}/${list.items[0]?.id}/roles/intruder`, { method: 'PUT', headers });
    expect(given.status).toBe(204);
  }
}

test('a flag that the demo does not know is told, and nothing is started', async () => {
  const { status, stderr } = await demo('--changes', 'many');
  expect(stderr).toContain('--changes must be a whole number');
  expect(status).toBe(1);
});
