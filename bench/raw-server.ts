/**
 * The ceiling that POST /Users is measured against: Express 5, JSON in and out, and one single-row INSERT with its
 * own commit a request, over a pool of the same size as Lockstep's. A process of the same shape as the server's.
 *
 * Environment: RAW_DATABASE_URL, RAW_POOL. Tells its port over IPC.
 */
import { randomUUID } from 'node:crypto';
import express from 'express';
import pg from 'pg';

const pool = new pg.Pool({
  connectionString: process.env.RAW_DATABASE_URL,
  max: Number(process.env.RAW_POOL ?? 16),
});
const app = express();
app.disable('x-powered-by');
app.use(express.json({ type: ['application/json', 'application/scim+json'] }));
app.post('/users', async (request, response) => {
  const id = randomUUID();
  const { rows } = await pool.query<{ created_at: Date }>({
    name: 'insert_user',
    text: 'insert into raw_user (id, user_name, doc) values ($1, $2, $3) returning created_at',
    values: [id, request.body.userName, JSON.stringify(request.body)],
  });
  response.status(201).json({ ...request.body, id, meta: { created: rows[0]?.created_at } });
});
app.get('/hello', (_request, response) => {
  response.json({ hello: 'world' });
});
const server = app.listen(0, '127.0.0.1', () => {
  const address = server.address();
  process.send?.({ port: typeof address === 'object' ? address?.port : undefined });
});
process.on('disconnect', () => process.exit(0));
