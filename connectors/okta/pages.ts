/**
 * Lists by the SDK, page by page: the next page is asked for when the one before was taken. An empty page is followed
 * by its link like any other (the SDK's `each` stops there); a link that came before, or that leads elsewhere, ends the
 * list with an error (the SDK follows it for ever).
 */
import { ConnectorError } from '../connector.ts';
import type { Received } from './transport.ts';

/** Of the SDK's client, what is used: it puts the credentials on, and asks again after a 401 with a new token. */
export interface Okta {
  orgUrl: string;
  maxPages: number;
  /** @throws ConnectorError; answers other than 2xx and 404 included */
  get(url: string): Promise<Received>;
}

export interface Rows {
  rows: unknown[];
  /** From 1. */
  page: number;
}

/** `log`: two empty pages after each other are the end, since Okta's log may have a next link for ever. */
export interface ListOptions {
  log?: boolean;
}

/**
 * @param path below the org's URL, encoded
 * @returns null when it answers 404, or does from some page on: what it hangs on is gone, or the address is wrong
 */
export async function* list(
  okta: Okta,
  path: string,
  query: Record<string, string | number>,
  options: ListOptions = {},
): AsyncGenerator<Rows, 'whole' | null, void> {
  const first = new URL(okta.orgUrl + path);
  for (const [name, value] of Object.entries(query)) first.searchParams.set(name, String(value));
  const asked = new Set<string>();
  let url = first.href;
  let empty = 0;
  for (let page = 1; ; page += 1) {
    asked.add(url);
    const received = await okta.get(url);
    if (received.status === 404) return null;
    if (!Array.isArray(received.value)) {
      throw new ConnectorError(
        'malformed',
        `Okta answered GET ${path} with something that is no list (${received.status}). Check that orgUrl is the org's own address.`,
        { status: received.status },
      );
    }
    const next = nextLink(received);
    empty = received.value.length === 0 ? empty + 1 : 0;
    if (received.value.length > 0) yield { rows: received.value, page };
    if (next === null || (options.log && empty === 2)) return 'whole';
    if (asked.has(next)) {
      if (options.log && empty > 0) return 'whole';
      throw new ConnectorError(
        'malformed',
        `Okta's pages of ${path} lead in a circle after page ${page}. Nothing was taken from it; the next pull tries again.`,
      );
    }
    if (page >= okta.maxPages) {
      throw new ConnectorError(
        'malformed',
        `Okta's pages of ${path} do not end after ${page}. Nothing was taken from it; the next pull tries again.`,
      );
    }
    url = next;
  }
}

/** @returns the absolute address of the link with rel="next", by RFC 8288; null when there is none */
function nextLink(received: Received): string | null {
  for (const link of (received.headers.get('link') ?? '').split(/,\s*(?=<)/)) {
    const [, target, parameters] = /^\s*<([^>]*)>\s*;(.*)$/s.exec(link) ?? [];
    if (target === undefined || parameters === undefined) continue;
    const rel = /(?:^|;)\s*rel\s*=\s*(?:"([^"]*)"|([^\s;]+))/i.exec(parameters);
    if (!(rel?.[1] ?? rel?.[2] ?? '').toLowerCase().split(/\s+/).includes('next')) continue;
    if (URL.canParse(target, received.url)) return new URL(target, received.url).href;
    throw new ConnectorError('malformed', "Okta's next link is no URL. The next pull tries again.");
  }
  return null;
}
