/** Where a caller reaches us: the configured URL, or what its own request says. */
import type { Request } from 'express';

const HOST = /^([\w-]+(\.[\w-]+)*|\[[0-9a-f:]+\])(:\d{1,5})?$/i;

export interface BaseUrlOptions {
  /** Where clients reach Lockstep; default: what the request says. */
  publicUrl?: string | undefined;
  /** Believe X-Forwarded-Proto and X-Forwarded-Host. */
  trustProxy: boolean;
}

/** @returns scheme and authority without a slash at the end; '' when the request names no host that can be one */
export function baseUrl(req: Request, options: BaseUrlOptions): string {
  if (options.publicUrl) return options.publicUrl.replace(/\/+$/, '');
  const forwarded = (name: string) => (options.trustProxy ? req.get(name)?.split(',')[0]?.trim() : undefined);
  const encrypted = 'encrypted' in req.socket && req.socket.encrypted === true;
  const scheme = forwarded('x-forwarded-proto') ?? (encrypted ? 'https' : 'http');
  const host = forwarded('x-forwarded-host') ?? req.get('host') ?? '';
  return HOST.test(host) && /^https?$/.test(scheme) ? `${scheme}://${host}` : '';
}
