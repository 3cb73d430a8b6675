/**
 * The ceilings: Express 5, JSON in and out, and one statement a request by the shortest way that an index offers,
 * over a pool of the same size as Lockstep's. One single-row INSERT with its own commit, one read by id, one read by
 * a text key, one UPDATE by id. A process of the same shape as the server's.
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

interface Row {
  id: string;
  doc: Record<string, unknown>;
}
app.get('/people/:id', async (request, response) => {
  const { rows } = await pool.query<Row>({
    name: 'read_by_id',
    text: 'select id, doc from raw_person where id = $1',
    values: [request.params.id],
  });
  answer(response, rows[0]);
});
app.get('/people', async (request, response) => {
  const { rows } = await pool.query<Row>({
    name: 'read_by_key',
    text: 'select id, doc from raw_person where user_name = $1',
    values: [request.query.userName],
  });
  answer(response, rows[0]);
});
app.patch('/people/:id', async (request, response) => {
  const { rows } = await pool.query<Row>({
    name: 'update_by_id',
    text: 'update raw_person set active = $2, updated_at = now() where id = $1 returning id, doc',
    values: [request.params.id, request.body.active],
  });
  answer(response, rows[0]);
});
app.get('/hello', (_request, response) => {
  response.json({ hello: 'world' });
});

function answer(response: express.Response, row: Row | undefined): void {
  if (row) response.json({ ...row.doc, id: row.id });
  else response.status(404).json({});
}

const server = app.listen(0, '127.0.0.1', () => {
  const address = server.address();
  process.send?.({ port: typeof address === 'object' ? address?.port : undefined });
});
process.on('disconnect', () => process.exit(0));
