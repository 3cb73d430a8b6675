/**
 * Products that sign people in by Lockstep: where a browser may be sent back to, and where the product hears that a
 * session has ended. They are the deployment's, not a tenant's.
 */
import type { Database } from '../database/database.ts';
import { newId } from '../id/id.ts';

export interface ProductFacts {
  id: string;
  name: string;
  returnTo: string[];
  logoutUrl: string | null;
  createdAt: Date;
}

export interface ProductInput {
  name: string;
  returnTo: string[];
  logoutUrl: string | null;
}

const COLUMNS = `id, name, return_to as "returnTo", logout_url as "logoutUrl", created_at as "createdAt"`;

/** @returns undefined when another product has the name */
export async function createProduct(db: Database, input: ProductInput): Promise<ProductFacts | undefined> {
  const { rows } = await db.pool.query<ProductFacts>(
    `insert into product (id, name, return_to, logout_url) values ($1, $2, $3, $4)
     on conflict (name) do nothing returning ${COLUMNS}`,
    [newId(), input.name, input.returnTo, input.logoutUrl],
  );
  return rows[0];
}

/** @returns 'taken' when another product has the name, undefined when there is no such product */
export async function changeProduct(
  db: Database,
  id: string,
  input: ProductInput,
): Promise<ProductFacts | 'taken' | undefined> {
  try {
    const { rows } = await db.pool.query<ProductFacts>(
      `update product set name = $2, return_to = $3, logout_url = $4 where id = $1 returning ${COLUMNS}`,
      [id, input.name, input.returnTo, input.logoutUrl],
    );
    return rows[0];
  } catch (error) {
    if ((error as { code?: string }).code === '23505') return 'taken';
    throw error;
  }
}

export async function listProducts(db: Database): Promise<ProductFacts[]> {
  return (await db.pool.query<ProductFacts>(`select ${COLUMNS} from product order by id`)).rows;
}

/** Sessions that it began stay; where they end, nobody is told. */
export async function removeProduct(db: Database, id: string): Promise<boolean> {
  return (await db.pool.query('delete from product where id = $1', [id])).rowCount === 1;
}
