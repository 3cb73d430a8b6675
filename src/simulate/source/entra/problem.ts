/** Errors of Microsoft Graph and of the token endpoint. */
import { randomUUID } from 'node:crypto';
import type { Answer } from '../server.ts';

export function graphProblem(status: number, code: string, message: string): Answer & { body: unknown } {
  const innerError = { date: new Date().toISOString().slice(0, 19), 'request-id': randomUUID() };
  return { status, body: { error: { code, message, innerError } } };
}

/** For a status that mischief asks for. */
export function graphProblemOf(status: number): { headers?: Record<string, string>; body: unknown } {
  const [code, message] = (
    {
      400: ['resyncRequired', 'The token is too old. Start again without one.'],
      401: ['InvalidAuthenticationToken', 'Access token has expired or is not yet valid.'],
      403: ['Authorization_RequestDenied', 'Insufficient privileges to complete the operation.'],
      404: ['Request_ResourceNotFound', 'The resource does not exist.'],
      410: ['syncStateNotFound', 'The sync state generation is not found.'],
      429: ['TooManyRequests', 'Too many requests.'],
      503: ['serviceNotAvailable', 'The service is temporarily unavailable.'],
    } as Record<number, [string, string]>
  )[status] ?? ['generalException', 'An error has occurred.'];
  return { body: graphProblem(status, code, message).body };
}

export function tokenProblem(status: number, error: string, code: number, message: string): Answer {
  return {
    status,
    body: {
      error,
      error_description: `AADSTS${code}: ${message} Trace ID: ${randomUUID()}`,
      error_codes: [code],
      trace_id: randomUUID(),
    },
  };
}
