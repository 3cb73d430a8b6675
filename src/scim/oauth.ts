/**
 * POST /oauth/token of a directory: the client credentials grant (RFC 6749 §4.4) for identity providers that hold a
 * client's secret instead of a long-lived token. Promises: a token is opaque, lives an hour at most, and ends with its
 * client; a refusal is a body of RFC 6749 §5.2 whose description says what to do; answers are not to be stored.
 */
import type express from 'express';
import type { Credentials } from '../credential/credential.ts';
import type { DirectoryStore, Exchanged } from '../directory/directory.ts';
import { sourceOf } from '../http/source.ts';
import type { Admission } from './admission.ts';
import { collect } from './body.ts';
import { thrown } from './errors.ts';
import { isUuid } from './request.ts';

export interface OAuthOptions {
  store: Pick<DirectoryStore, 'exchange'>;
  credentials: Credentials;
  admission: Admission;
  trustProxy: boolean;
  /** A request that failed through no fault of the client. */
  log: (entry: { requestId: string; directoryId: string; status: number; error: unknown }) => void;
}

interface OAuthAnswer {
  status: number;
  body: Record<string, unknown>;
  headers?: Record<string, string>;
}

/** Entra ID asks for 60 to 360 minutes. */
const TOKEN_SECONDS = 3600;
const FORM_LIMITS = { bodyBytes: 16 * 1024, bodySeconds: 10 };

/** @returns the answer to one request; `requestId` stands at the end of each error's description */
export function openTokenEndpoint(
  options: OAuthOptions,
): (req: express.Request, directoryId: string, requestId: string) => Promise<OAuthAnswer> {
  const { store, credentials, admission, trustProxy, log } = options;

  async function grant(
    req: express.Request,
    directoryId: string,
  ): Promise<{ answer: OAuthAnswer; failed: boolean }> {
    const type = (req.headers['content-type'] ?? '').split(';')[0]?.trim().toLowerCase();
    const bytes = await collect(req, FORM_LIMITS);
    if (!(bytes instanceof Buffer) || type !== 'application/x-www-form-urlencoded') {
      const { answer, failed } = refuse(
        400,
        'invalid_request',
        'Send a short form, as application/x-www-form-urlencoded.',
      );
      // The rest of what was not read would be read as the next request.
      return { answer: { ...answer, headers: { Connection: 'close' } }, failed };
    }
    const form = new URLSearchParams(bytes.toString('utf8'));
    const repeated = ['grant_type', 'client_id', 'client_secret'].find(
      (name) => form.getAll(name).length > 1,
    );
    if (repeated) return refuse(400, 'invalid_request', `The form has ${repeated} more than once.`);
    if (form.get('grant_type') !== 'client_credentials') {
      const given = form.has('grant_type');
      return given
        ? refuse(400, 'unsupported_grant_type', 'The only grant here is client_credentials.')
        : refuse(400, 'invalid_request', 'The form has no grant_type. Send client_credentials.');
    }
    const shown = clientOf(req.headers.authorization, form);
    if (!shown) return refuseClient('The request shows no client id and secret.');
    const presented = credentials.read('lsc', shown.secret);
    if (!presented || presented.id !== shown.id.toLowerCase() || !isUuid(directoryId))
      return refuseClient(WRONG);
    const issued = credentials.issue('lst');
    const exchanged = await store.exchange({
      directoryId: directoryId.toLowerCase(),
      clientId: presented.id,
      digest: presented.digest,
      token: { id: issued.id, digest: issued.digest },
      seconds: TOKEN_SECONDS,
    });
    if (exchanged.outcome !== 'ok') return refuseClient(words[exchanged.outcome]);
    const body = { access_token: issued.token, token_type: 'Bearer', expires_in: exchanged.seconds };
    return { answer: { status: 200, body }, failed: false };
  }

  return async (req, directoryId, requestId) => {
    const source = sourceOf(req, trustProxy);
    const admitted = admission.admit({ source, directoryId: directoryId.toLowerCase(), token: '' });
    if (!admitted.ok) {
      const { status, detail, headers } = admitted.error;
      const body = { error: 'temporarily_unavailable', error_description: withId(detail, requestId) };
      return headers ? { status, body, headers } : { status, body };
    }
    let ended: 'failed' | 'other' = 'other';
    try {
      const { answer, failed } = await grant(req, directoryId);
      if (failed) ended = 'failed';
      const { error_description: why } = answer.body;
      if (typeof why !== 'string') return answer;
      return { ...answer, body: { ...answer.body, error_description: withId(why, requestId) } };
    } catch (error) {
      const { status, detail, headers } = thrown(error);
      log({ requestId, directoryId, status, error });
      const body = { error: 'server_error', error_description: withId(detail, requestId) };
      return headers ? { status, body, headers } : { status, body };
    } finally {
      admitted.value(ended);
    }
  };
}

// One text for an unknown client, one of another directory and a wrong secret: they must not be told apart.
const WRONG =
  'This client id and secret do not open this directory. Copy both, and the token address, from the same directory.';
const words: Record<Exclude<Exchanged, { outcome: 'ok' }>['outcome'], string> = {
  unknown: WRONG,
  revoked: 'This client has been revoked. Make a new one for the directory.',
  expired: 'This client has expired. Make a new one for the directory.',
};

/** The client's id and secret from HTTP Basic or from the form (RFC 6749 §2.3.1). */
function clientOf(
  authorization: string | undefined,
  form: URLSearchParams,
): { id: string; secret: string } | undefined {
  const basic = /^Basic +([A-Za-z0-9+/=]+) *$/i.exec(authorization ?? '')?.[1];
  if (basic !== undefined) {
    const text = Buffer.from(basic, 'base64').toString('utf8');
    const colon = text.indexOf(':');
    if (colon < 0) return undefined;
    // Both are form-encoded there; ids and secrets of ours have nothing that needs it.
    return { id: text.slice(0, colon), secret: text.slice(colon + 1) };
  }
  const id = form.get('client_id');
  const secret = form.get('client_secret');
  return id && secret ? { id, secret } : undefined;
}

function refuse(
  status: number,
  error: string,
  description: string,
): { answer: OAuthAnswer; failed: boolean } {
  return { answer: { status, body: { error, error_description: description } }, failed: false };
}

function refuseClient(description: string): { answer: OAuthAnswer; failed: boolean } {
  const { answer } = refuse(401, 'invalid_client', description);
  return { answer: { ...answer, headers: { 'WWW-Authenticate': 'Basic realm="SCIM"' } }, failed: true };
}

const withId = (text: string, requestId: string) => `${text} Request id: ${requestId}`;
