/** Where a person may be sent back to: an address that a registered product named, and nothing that only looks like it. */
import type { ProductFacts } from '../tenant/product.ts';

type ProductAddresses = Pick<ProductFacts, 'id' | 'returnTo'>;

/** `null`: there is nowhere to go back to, which is no error where nothing was asked for. */
export type ReturnTo = { ok: true; productId: string | null; url: string | null } | { ok: false };

const MAX = 2_048;

/**
 * Checks where a product asked to send the person back to: origin and path as registered, the query free.
 * @param asked undefined: the only product's first address
 * @param state the product's own, to be handed back as it is
 */
export function returnAddress(
  products: readonly ProductAddresses[],
  asked: string | undefined,
  state: string | undefined,
): ReturnTo {
  if (asked === undefined) {
    const [only] = products;
    const url = products.length === 1 ? only?.returnTo[0] : undefined;
    if (!only || url === undefined) return { ok: true, productId: null, url: null };
    return { ok: true, productId: only.id, url: withState(new URL(url), state) };
  }
  // URL parsers take backslashes for slashes and drop white space: an address with either is nobody's honest one.
  if (asked.length > MAX || !/^https?:\/\//i.test(asked) || /[\\\s\p{Cc}]/u.test(asked)) return { ok: false };
  if (!URL.canParse(asked)) return { ok: false };
  const url = new URL(asked);
  if (url.username !== '' || url.password !== '') return { ok: false };
  const product = products.find((p) => p.returnTo.some((registered) => sameAddress(url, registered)));
  return product ? { ok: true, productId: product.id, url: withState(url, state) } : { ok: false };
}

function sameAddress(url: URL, registered: string): boolean {
  if (!URL.canParse(registered)) return false;
  const address = new URL(registered);
  return url.origin === address.origin && url.pathname === address.pathname;
}

function withState(url: URL, state: string | undefined): string {
  url.hash = '';
  if (state !== undefined) url.searchParams.set('state', state);
  return url.href;
}
