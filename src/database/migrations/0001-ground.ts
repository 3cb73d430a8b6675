/** The first schema: every table of schema.sql. */
import { readFileSync } from 'node:fs';
import { Migration } from '@mikro-orm/migrations';

export class Ground extends Migration {
  override up(): void {
    this.addSql(readFileSync(new URL('../schema.sql', import.meta.url), 'utf8'));
  }
}
