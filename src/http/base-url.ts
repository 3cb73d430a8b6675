/** Where a caller reaches us: the configured URL, or what its own request says. The same for SCIM, /v1 and pages. */
import type { Request } from 'express';

export interface Origin {
  /** Where clients reach Lockstep; default: what the request says. */
  publicUrl?: string | undefined;
  /** Whether X-Forwarded-Proto, -Host, -Port and -Prefix are set by a proxy of ours. */
  trustProxy: boolean;
}

/** Nothing that would need escaping in JSON, in HTML or in a shell line: answers are spliced from it. */
const HOST = /^(?:[\w.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\])(?::\d{1,5})?$/;

/** Path segments, and nothing that would need escaping. */
const PREFIX = /^(?:\/[\w.~-]{1,100}){1,10}$/;
const DEFAULT_PORTS = new Set(['80', '443']);

/**
 * @returns scheme, authority and the path that a proxy took off, without a slash at the end; our own loopback address
 *   where no usable host is named
 */
export function baseUrl(req: Request, origin: Origin): string {
  if (origin.publicUrl !== undefined) return origin.publicUrl.replace(/\/+$/, '');
  const forwarded = (name: string) => (origin.trustProxy ? req.get(name)?.split(',')[0]?.trim() : undefined);
  const host = [forwarded('x-forwarded-host'), req.headers.host].find((h) => h && HOST.test(h));
  const proto = forwarded('x-forwarded-proto')?.toLowerCase();
  const secure = 'encrypted' in req.socket && req.socket.encrypted === true;
  const scheme = proto === 'https' || proto === 'http' ? proto : secure ? 'https' : 'http';
  const prefix = forwarded('x-forwarded-prefix')?.replace(/\/+$/, '') ?? '';
  const path = PREFIX.test(prefix) ? prefix : '';
  if (host === undefined) return `${scheme}://127.0.0.1:${req.socket.localPort}${path}`;
  return `${scheme}://${host}${/:\d+$/.test(host) ? '' : portOf(forwarded('x-forwarded-port'))}${path}`;
}

/** Either default says nothing: it is the scheme's, or that of a proxy within, behind which TLS has ended. */
function portOf(port: string | undefined): string {
  const given = port !== undefined && /^[1-9]\d{0,4}$/.test(port);
  return given && !DEFAULT_PORTS.has(port) ? `:${port}` : '';
}
