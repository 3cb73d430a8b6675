/** A browser as far as a sign-in needs one: cookies by host and path, redirects followed, forms posted. */

export interface Visit {
  status: number;
  url: string;
  headers: Headers;
  text: string;
}

interface Cookie {
  value: string;
  path: string;
}

export function openBrowser() {
  /** By host name: ports share cookies, as in a browser. */
  const jars = new Map<string, Map<string, Cookie>>();

  function cookiesFor(url: URL): string {
    return [...(jars.get(url.hostname) ?? [])]
      .filter(
        ([, { path }]) =>
          url.pathname === path || url.pathname.startsWith(path.endsWith('/') ? path : `${path}/`),
      )
      .map(([name, { value }]) => `${name}=${value}`)
      .join('; ');
  }

  function keep(url: URL, headers: Headers): void {
    for (const line of headers.getSetCookie()) {
      const [pair = '', ...attributes] = line.split(';').map((part) => part.trim());
      const name = pair.slice(0, pair.indexOf('='));
      const attribute = (wanted: string) =>
        attributes.find((a) => a.toLowerCase().startsWith(`${wanted}=`))?.slice(wanted.length + 1);
      const jar = jars.get(url.hostname) ?? new Map<string, Cookie>();
      jars.set(url.hostname, jar);
      const key = `${name}`;
      const over =
        attribute('max-age') === '0' || Date.parse(attribute('expires') ?? '9999-01-01') < Date.now();
      if (over) jar.delete(key);
      else jar.set(key, { value: pair.slice(pair.indexOf('=') + 1), path: attribute('path') ?? '/' });
    }
  }

  /** One request; no redirect is followed. */
  async function ask(
    address: string,
    init: { form?: Record<string, string>; headers?: Record<string, string> } = {},
  ) {
    const url = new URL(address);
    const cookie = cookiesFor(url);
    const response = await fetch(url, {
      method: init.form ? 'POST' : 'GET',
      redirect: 'manual',
      headers: { accept: 'text/html', ...(cookie ? { cookie } : {}), ...init.headers },
      ...(init.form ? { body: new URLSearchParams(init.form) } : {}),
    });
    keep(url, response.headers);
    return { status: response.status, url: url.href, headers: response.headers, text: await response.text() };
  }

  /**
   * Follows redirects until a page comes, or the address begins with `until`, which is not asked any more.
   * @returns the last answer; for `until` with status 0
   */
  async function visit(address: string, until = '\0'): Promise<Visit> {
    let url = address;
    for (let hops = 0; hops < 20; hops += 1) {
      if (url.startsWith(until)) return { status: 0, url, headers: new Headers(), text: '' };
      const answer = await ask(url);
      const location = answer.headers.get('location');
      if (answer.status < 300 || answer.status > 399 || location === null) return answer;
      url = new URL(location, url).href;
    }
    throw new Error(`too many redirects, the last to ${url}`);
  }

  return { ask, visit, jars };
}

export type Browser = ReturnType<typeof openBrowser>;
