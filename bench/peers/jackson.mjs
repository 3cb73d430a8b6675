/**
 * Ory Polis (`@boxyhq/saml-jackson`), its directory sync over its own tables in PostgreSQL, mounted as its own
 * product mounts it: the same look at path, token and query (pages/api/scim/v2.0 there). Where it is generous to it:
 * the callback that it awaits for each change does nothing, and a page may have 100 rows instead of 50.
 *
 * Plain JavaScript, because its types are not there on a checkout whose bench never ran.
 * Environment: PEER_DATABASE_URL, PEER_POOL. Tells its port over IPC.
 */
import { controllers } from '@boxyhq/saml-jackson';
import express from 'express';

const quiet = () => {};
const { directorySyncController } = await controllers({
  externalUrl: 'http://127.0.0.1',
  samlPath: '/saml',
  scimPath: '/scim/v2.0',
  noAnalytics: true,
  db: {
    engine: 'sql',
    type: 'postgres',
    url: `${process.env.PEER_DATABASE_URL}?pool_max_conns=${process.env.PEER_POOL ?? 16}`,
    pageLimit: 100,
  },
  dsync: { callback: async () => {} },
  logger: { info: quiet, warn: quiet, error: (message) => process.stderr.write(`${message}\n`) },
});

const app = express();
app.disable('x-powered-by');
app.use(express.json({ type: ['application/json', 'application/scim+json'], limit: '2mb' }));

/** @param {unknown} value */
const whole = (value) => (value === undefined ? undefined : Number.parseInt(String(value), 10));

app.all('/scim/v2.0/:directoryId/:type{/:id}', async (request, response) => {
  const { directoryId, type, id } = request.params;
  const { status, data } = await directorySyncController.requests.handle({
    method: request.method,
    body: request.body,
    directoryId,
    resourceType: type === 'Users' ? 'users' : 'groups',
    resourceId: id,
    apiSecret: request.headers.authorization?.split(' ')[1] ?? null,
    query: {
      count: whole(request.query.count),
      startIndex: whole(request.query.startIndex),
      filter: request.query.filter,
    },
  });
  response.status(status).json(data);
});

// For the bench: a fresh directory.
let directories = 0;
app.post('/directories', async (_request, response) => {
  directories += 1;
  const { data, error } = await directorySyncController.directories.create({
    name: `bench ${directories}`,
    tenant: `tenant-${directories}`,
    product: 'bench',
    type: 'generic-scim-v2',
  });
  if (error) response.status(500).json(error);
  else response.status(201).json({ path: `/scim/v2.0/${data.id}`, token: data.scim.secret, id: data.id });
});

const server = app.listen(0, '127.0.0.1', () => {
  process.send?.({ port: server.address().port });
});
process.on('disconnect', () => process.exit(0));
