/**
 * SCIM 2.0 (RFC 7643, 7644) of one directory, to be mounted at `/scim/v2/:directory`: the public face of this room.
 * Promises: a 2xx means that mirror and change log hold what was sent; every refusal is a SCIM error with the
 * request id; who may not enter learns nothing, not even whether the directory, the path or the body is right;
 * nothing about a caller is cached, and what is cached of a directory (settings.ts) is checked by each statement.
 */
import { performance } from 'node:perf_hooks';
import express from 'express';
import type { Credentials } from '../credential/credential.ts';
import type { DirectoryStore, Proof } from '../directory/directory.ts';
import { baseUrl } from '../http/base-url.ts';
import { sourceOf } from '../http/source.ts';
import { newId } from '../id/id.ts';
import { type Ended, openAdmission } from './admission.ts';
import { ClientGone, type JsonObject, openBodies, quote } from './body.ts';
import { openBulk } from './bulk/bulk.ts';
import type { Handlers, OperationLog } from './bulk/perform.ts';
import { openCursors } from './cursor.ts';
import { recognise } from './dialect.ts';
import { openDiscovery } from './discovery.ts';
import {
  done,
  errorText,
  failed,
  type Refusal,
  type Result,
  refused,
  type ScimError,
  thrown,
} from './errors.ts';
import type { Exchange } from './exchange.ts';
import { openGroups } from './groups.ts';
import { defaultLimits, type ScimLimits } from './limits.ts';
import { openLists } from './list.ts';
import { openTokenEndpoint } from './oauth.ts';
import { type Answer, type Handler, isUuid, queryOf, readProof, type ScimRequest } from './request.ts';
import { neverReturned, type ResourceType, standardSchemas } from './schema/schema.ts';
import { openSettings, type Settings } from './settings.ts';
import { openUsers } from './users.ts';

export type { ScimLimits } from './limits.ts';

/** What a request was and became, for metrics. */
export interface ObservedRequest {
  requestId: string;
  method: string;
  /** User, Group, ServiceProviderConfig, ResourceType, Schema, Search, Me, Bulk, or unknown. */
  resource: string;
  status: number;
  /** Empty when the answer has none. */
  scimType: string;
  seconds: number;
  /** As in the URL where that is a uuid, else empty; not proof that the directory exists. */
  directoryId: string;
}

export type { Exchange } from './exchange.ts';

/** A request that failed through no fault of the client. */
export interface ScimLogEntry {
  requestId: string;
  method: string;
  path: string;
  directoryId: string;
  status: number;
  error: unknown;
}

export interface ScimOptions {
  store: DirectoryStore;
  credentials: Credentials;
  /** Absolute URL under which clients reach this server, without a trailing slash; the Host header's when absent. */
  publicUrl?: string;
  /** Whether X-Forwarded-Proto, -Host, -Port and -Prefix are set by a proxy of ours. */
  trustProxy: boolean;
  limits?: Partial<ScimLimits>;
  observe?: (request: ObservedRequest) => void;
  /** Told of each request that names a directory, after its answer was sent; must not throw and is not awaited. */
  record?: (exchange: Exchange) => void;
  log: (entry: ScimLogEntry) => void;
}

/** What came with a request, for the request log. */
interface Sent {
  /** Once the token was looked at. */
  proof: Proof | null;
  body: Buffer | null;
}

const NOBODY: JsonObject = {};
/** Bytes of a body from which the caller is checked before it is read: nobody else makes us hold more. */
const BODY_OF_ANYBODY = 64 * 1024;
/** Times that a request is read again because the directory's settings were changed under it. */
const READINGS = 5;
const WITH_BODY = new Set(['POST', 'PUT', 'PATCH']);
const LEARN_MS = 60_000;
const LEARNING = 10_000;

export function scimRouter(options: ScimOptions): express.Router {
  const { store, credentials, log, observe, record } = options;
  const limits = { ...defaultLimits, ...options.limits };
  const users = openUsers(store);
  const groups = openGroups(store);
  const lists = openLists(store, openCursors(credentials, limits.cursorSeconds), limits);
  const discovery = openDiscovery(limits);
  const settingsOf = openSettings(store);
  const admission = openAdmission(limits);
  const bodies = openBodies(limits);
  const grantToken = openTokenEndpoint({
    store,
    credentials,
    admission,
    trustProxy: options.trustProxy,
    log: (entry) => log({ method: 'POST', path: '/oauth/token', ...entry }),
  });
  const router = express.Router({ mergeParams: true });
  router.use(singleSlashes);

  /**
   * Answers with what `handler` says, whatever happens in it. Where it `takesBody`, a body that cannot be read is
   * refused before it is asked; where not, the address is wrong whatever the body is, or that there is none.
   */
  function endpoint(resource: string, handler: Handler, takesBody = true): express.RequestHandler {
    return async (req, res) => {
      const receivedAt = new Date();
      const started = performance.now();
      const requestId = newId();
      const path = req.params as { directory?: string; id?: string };
      const directoryId = path.directory ?? '';
      let answer: Answer;
      let refusal: ScimError | undefined;
      const sent: Sent = { proof: null, body: null };
      try {
        const result = await attempt(handler, req, directoryId, requestId, receivedAt, takesBody, sent);
        if (result.ok) {
          answer = result.value;
        } else {
          refusal = result.error;
          answer = errorAnswer(result.error, requestId);
        }
      } catch (error) {
        if (error instanceof ClientGone) return;
        const failure = thrown(error);
        log({
          requestId,
          method: req.method,
          path: req.baseUrl + req.path,
          directoryId,
          status: failure.status,
          error,
        });
        refusal = failure;
        // Whether the caller would have been let in, nobody knows.
        sent.proof = null;
        answer = errorAnswer(failure, requestId);
      }
      send(res, answer, requestId);
      const durationMs = performance.now() - started;
      const named = isUuid(directoryId) ? directoryId.toLowerCase() : '';
      const scimType = refusal?.scimType ?? null;
      observe?.({
        requestId,
        method: req.method,
        resource,
        status: answer.status,
        scimType: scimType ?? '',
        seconds: durationMs / 1000,
        directoryId: named,
      });
      if (!record || named === '') return;
      const genuine = refusal?.reason === 'unknown' ? null : (sent.proof?.tokenId ?? null);
      const letIn = genuine !== null && !refusal?.unauthenticated;
      record({
        id: requestId,
        directoryId: named,
        tokenId: genuine,
        at: receivedAt,
        method: req.method,
        path: req.url,
        status: answer.status,
        scimType,
        reason: refusal?.reason ?? null,
        detail: refusal?.detail ?? null,
        durationMs,
        requestBody: letIn ? sent.body : null,
        responseBody: letIn && req.method !== 'HEAD' ? (answer.text ?? null) : null,
        changes: answer.changes ?? null,
        secretNames: neverReturned(settingsOf.known(named)?.schemas ?? standardSchemas),
      });
    };
  }

  /** Answers a request whose source and token may try. */
  async function attempt(
    handler: Handler,
    req: express.Request,
    directoryId: string,
    requestId: string,
    receivedAt: Date,
    takesBody: boolean,
    sent: Sent,
  ): Promise<Result<Answer>> {
    const proof = readProof(credentials, directoryId, req.headers.authorization);
    const source = sourceOf(req, options.trustProxy);
    const token = proof.ok ? `${proof.value.tokenId}/${proof.value.digest.toString('base64')}` : '';
    const admitted = admission.admit({ source, directoryId: directoryId.toLowerCase(), token });
    if (!admitted.ok) return admitted;
    let ended: Ended = 'other';
    try {
      if (proof.ok) sent.proof = proof.value;
      const result = proof.ok
        ? await respond(handler, proof.value, req, requestId, receivedAt, takesBody, sent)
        : proof;
      if (result.ok) ended = 'entered';
      else if (result.error.unauthenticated) {
        // A request that shows no token at all guesses nothing.
        if (req.headers.authorization !== undefined) ended = 'failed';
      } else if (result.error.entered) ended = 'entered';
      return result;
    } finally {
      admitted.value(ended);
    }
  }

  async function respond(
    handler: Handler,
    proof: Proof,
    req: express.Request,
    requestId: string,
    receivedAt: Date,
    takesBody: boolean,
    sent: Sent,
  ): Promise<Result<Answer>> {
    const settings = await settingsOf.of(proof);
    if (!settings.ok) return settings;
    const request: ScimRequest = {
      requestId,
      receivedAt,
      caller: { ...proof, settings: settings.value.version },
      settings: settings.value,
      userAgent: req.get('user-agent'),
      base: baseUrl(req, options) + req.baseUrl,
      query: queryOf(req.url),
      ifMatch: req.get('if-match'),
      ifNoneMatch: req.get('if-none-match'),
    };
    const body = takesBody ? await bodyOf(request, req, sent) : done(NOBODY);
    const { id = '' } = req.params as { id?: string };
    if (!body.ok) return steady(async () => body)(request, id, NOBODY);
    const result = await steady(handler)(request, id, body.value);
    if (result.ok) learn(request, body.value);
    return result;
  }

  async function bodyOf(request: ScimRequest, req: express.Request, sent: Sent): Promise<Result<JsonObject>> {
    if (!WITH_BODY.has(req.method)) return done(NOBODY);
    if (!(Number(req.headers['content-length']) <= BODY_OF_ANYBODY)) {
      const refusal = await enter(request);
      if (refusal && !refusal.error.moved) return refusal;
    }
    return bodies.read(req, (bytes) => {
      if (bytes.length > 0) sent.body = bytes;
    });
  }

  /**
   * A refusal is shown to who may enter, and by settings that still hold; a request that was read by others is read
   * again by the new ones: it had written nothing.
   */
  const steady =
    (handler: Handler): Handler =>
    async (request, id, body) => {
      let asked = request;
      for (let reading = 1; ; reading += 1) {
        let result = await handler(asked, id, body);
        if (!result.ok && !result.error.entered) result = (await enter(asked)) ?? result;
        if (result.ok || !result.error.moved || reading === READINGS) return result;
        settingsOf.forget(asked.caller.directoryId);
        const settings = await settingsOf.of(asked.caller);
        if (!settings.ok) return settings;
        asked = withSettings(asked, settings.value);
      }
    };

  const learning = new Map<string, number>();
  /** Remembers whose client it is, at most once a minute a directory; a request never waits for that. */
  function learn({ caller, settings, userAgent, query }: ScimRequest, body: JsonObject): void {
    if (settings.idp !== null) return;
    const filter = query.get('filter');
    const idp = recognise({ userAgent, body, ...(filter === null ? {} : { filter }) });
    if (idp === null || idp === settings.idpDetected) return;
    const now = performance.now();
    if (now - (learning.get(caller.directoryId) ?? Number.NEGATIVE_INFINITY) < LEARN_MS) return;
    if (learning.size >= LEARNING) learning.clear();
    learning.set(caller.directoryId, now);
    // A later request shows it again.
    store.recognise(caller, idp).catch(() => {});
  }

  /** The refusal of a caller who may not enter, or of settings that have moved: with it, nothing else is said. */
  async function enter({ caller }: ScimRequest): Promise<Refusal | undefined> {
    const read = await store.settings(caller);
    if (read.outcome !== 'ok') return refused(read.outcome, 'The request', read);
    return read.settings.version === caller.settings ? undefined : refused('moved', 'The request');
  }

  /** A handler that needs no store of its own but whose caller must be let in all the same. */
  const entered =
    (handler: (...input: Parameters<Handler>) => Result<Answer> | Promise<Result<Answer>>): Handler =>
    async (request, id, body) =>
      (await enter(request)) ?? handler(request, id, body);

  /** A handler of one resource: an id that is no uuid names none of ours. */
  const one =
    (kind: string, handler: Handler): Handler =>
    async (request, id, body) => {
      if (isUuid(id)) return handler(request, id.toLowerCase(), body);
      return failed(
        404,
        undefined,
        `The ${kind} ${quote(id)} does not exist in this directory. Look it up by its name; ids are those that this server gave.`,
      );
    };

  /** The handlers of one resource for a bulk request, each operation of which is a request of its own. */
  const inBulk = (kind: string, { create, read, replace, patch, remove }: Handlers): Handlers => ({
    create: steady(create),
    read: steady(one(kind, read)),
    replace: steady(one(kind, replace)),
    patch: steady(one(kind, patch)),
    remove: steady(one(kind, remove)),
  });
  const logOperation: OperationLog = ({ requestId, caller }, method, path, { status, error }) =>
    log({ requestId, method, path, directoryId: caller.directoryId, status, error });

  type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  function route(
    path: string,
    resource: string,
    handlers: Partial<Record<Method, Handler>>,
    takesBody = true,
  ): void {
    const on = router.route(path);
    if (handlers.GET) on.get(endpoint(resource, handlers.GET));
    if (handlers.POST) on.post(endpoint(resource, handlers.POST, takesBody));
    if (handlers.PUT) on.put(endpoint(resource, handlers.PUT, takesBody));
    if (handlers.PATCH) on.patch(endpoint(resource, handlers.PATCH, takesBody));
    if (handlers.DELETE) on.delete(endpoint(resource, handlers.DELETE));
    const allow = [...Object.keys(handlers), ...(handlers.GET ? ['HEAD'] : []), 'OPTIONS'].join(', ');
    // The same for every directory, so that it needs no token.
    on.options((_req, res) => send(res, { status: 204, headers: { Allow: allow } }, newId()));
    const refusal: Refusal = {
      ok: false,
      error: {
        status: 405,
        detail: `This address does not take the method of the request. It takes ${allow}.`,
        headers: { Allow: allow },
      },
    };
    on.all(endpoint(resource, async () => refusal, false));
  }

  const search =
    (...types: ResourceType[]): Handler =>
    (request, _id, body) =>
      lists.search(request, body, types);
  route('/Users/.search', 'User', { POST: search('User') });
  route('/Groups/.search', 'Group', { POST: search('Group') });
  route('/.search', 'Search', { POST: search('User', 'Group') });
  // A query against the root is one over all resources (RFC 7644 §3.4.2.1).
  route('/', 'Search', { GET: (request) => lists.list(request, ['User', 'Group']) });
  route('/Users/:id', 'User', {
    GET: one('user', users.read),
    PUT: one('user', users.replace),
    PATCH: one('user', users.patch),
    DELETE: one('user', users.remove),
  });
  route('/Users', 'User', { GET: (request) => lists.list(request, ['User']), POST: users.create });
  route('/Groups/:id', 'Group', {
    GET: one('group', groups.read),
    PUT: one('group', groups.replace),
    PATCH: one('group', groups.patch),
    DELETE: one('group', groups.remove),
  });
  route('/Groups', 'Group', { GET: (request) => lists.list(request, ['Group']), POST: groups.create });
  route('/ServiceProviderConfig', 'ServiceProviderConfig', { GET: entered(discovery.config) });
  route('/ResourceTypes', 'ResourceType', { GET: entered(discovery.resourceTypes) });
  route('/ResourceTypes/:id', 'ResourceType', { GET: entered(discovery.resourceType) });
  route('/Schemas', 'Schema', { GET: entered(discovery.schemas) });
  route('/Schemas/:id', 'Schema', { GET: entered(discovery.schema) });
  const notHere: Handler = async () =>
    failed(
      501,
      undefined,
      'This operation is not offered. Address users by /Users/{id} and groups by /Groups/{id}, one a request.',
    );
  router.post('/oauth/token', async (req, res) => {
    const requestId = newId();
    const at = new Date();
    const started = performance.now();
    const { directory = '' } = req.params as { directory?: string };
    const { status, body, headers } = await grantToken(req, directory, requestId);
    // RFC 6749 §5.1
    res.set({ 'X-Request-Id': requestId, 'Cache-Control': 'no-store', Pragma: 'no-cache', ...headers });
    res.status(status).json(body);
    // Neither body: they are all secrets.
    if (!record || !isUuid(directory)) return;
    record({
      id: requestId,
      directoryId: directory.toLowerCase(),
      tokenId: null,
      at,
      method: 'POST',
      path: '/oauth/token',
      status,
      scimType: null,
      reason: status === 429 ? 'held_off' : null,
      detail: typeof body.error_description === 'string' ? body.error_description : null,
      durationMs: performance.now() - started,
      requestBody: null,
      responseBody: null,
      changes: null,
      secretNames: [],
    });
  });
  const nowhere: Handler = async () =>
    failed(
      404,
      undefined,
      'There is nothing at this address. The SCIM base URL is followed by /Users, /Groups, /Schemas, /ResourceTypes or /ServiceProviderConfig.',
    );
  route('/Me', 'Me', { GET: notHere, POST: notHere, PUT: notHere, PATCH: notHere, DELETE: notHere }, false);
  const surface = { User: inBulk('user', users), Group: inBulk('group', groups) };
  route('/Bulk', 'Bulk', { POST: entered(openBulk(surface, limits, logOperation)) });
  router.use(endpoint('unknown', nowhere, false));
  router.use(malformedUrl);
  return router;
}

/** A base URL pasted with a slash at its end makes `//Users` of every address. */
const singleSlashes: express.RequestHandler = (req, _res, next) => {
  const [path = ''] = req.url.split('?', 1);
  if (path.includes('//')) req.url = path.replaceAll(/\/{2,}/g, '/') + req.url.slice(path.length);
  next();
};

/** A path that cannot be decoded never reaches a handler. */
const malformedUrl: express.ErrorRequestHandler = (error, _req, res, next) => {
  if (res.headersSent || (error as { status?: unknown }).status !== 400) {
    next(error);
    return;
  }
  const requestId = newId();
  const detail = 'The address of the request cannot be decoded. Percent-encode the id in it as UTF-8.';
  send(res, errorAnswer({ status: 400, scimType: 'invalidValue', detail }, requestId), requestId);
};

function withSettings(request: ScimRequest, settings: Settings): ScimRequest {
  return { ...request, settings, caller: { ...request.caller, settings: settings.version } };
}

function errorAnswer(error: ScimError, requestId: string): Answer {
  const answer = { status: error.status, text: errorText(error, requestId) };
  return error.headers ? { ...answer, headers: error.headers } : answer;
}

function send(res: express.Response, answer: Answer, requestId: string): void {
  const headers: Record<string, string | number> = { 'X-Request-Id': requestId, ...answer.headers };
  if (answer.text === undefined) {
    if (answer.status !== 204 && answer.status !== 304) headers['Content-Length'] = 0;
  } else {
    headers['Content-Type'] = 'application/scim+json; charset=utf-8';
    headers['Content-Length'] = Buffer.byteLength(answer.text);
    // The rest of a large body that was not read would be read through to its end before the next request.
    const { complete, headers: sent } = res.req;
    const large = sent['transfer-encoding'] !== undefined || Number(sent['content-length']) > BODY_OF_ANYBODY;
    if (!complete && large) headers.Connection = 'close';
  }
  res.writeHead(answer.status, headers);
  res.end(answer.text);
}
