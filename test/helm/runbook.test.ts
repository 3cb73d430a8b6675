/** What the runbook tells a person on call to type: its SQL runs as the system role, its files and commands are there. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { expect, test } from 'vitest';
import { createTestDatabase } from '../harness/database.ts';
import { root } from './chart.ts';

const runbook = readFileSync(join(root, 'docs/runbook.md'), 'utf8');

test('every statement runs as the system role', async () => {
  const blocks = [...runbook.matchAll(/```sql\n([^`]+)```/g)].map(([, sql]) => sql ?? '');
  const inline = [...runbook.matchAll(/`(select [^`]+)`/g)].map(([, sql]) => sql ?? '');
  expect(blocks.length).toBeGreaterThan(6);
  const database = await createTestDatabase();
  const client = new pg.Client(database.systemUrl);
  await client.connect();
  try {
    for (const sql of [...blocks, ...inline]) await expect(client.query(sql), sql).resolves.toBeDefined();
  } finally {
    await client.end();
    await database.drop();
  }
});

test('every symptom says what is noticed, where to look, what to do and when to escalate', () => {
  for (const section of runbook.split(/^## /m).slice(2)) {
    const title = section.split('\n')[0];
    for (const part of ['Customers notice', 'Look', 'Do', 'Escalate'])
      expect(section, title).toContain(`**${part}**`);
  }
});

test('links within the documents lead somewhere', () => {
  for (const [, target = ''] of runbook.matchAll(/\]\(([^)]+)\)/g)) {
    if (target.startsWith('#')) {
      const anchors = [...runbook.matchAll(/^## (.+)$/gm)].map(
        ([, h]) =>
          `#${h
            ?.toLowerCase()
            .replace(/[^\w\s-]/g, '')
            .replace(/\s/g, '-')}`,
      );
      expect(anchors).toContain(target);
    } else expect(existsSync(join(root, 'docs', target)), target).toBe(true);
  }
});
