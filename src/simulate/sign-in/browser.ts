/** A browser as far as a sign-in needs one: follows redirects, keeps cookies, sends the one form of a page by itself. */

export interface Arrived {
  /** Where it came to rest. */
  url: string;
  status: number;
  body: string;
}

export interface Browser {
  /**
   * Opens an address and goes on until a page stays, or `until` starts the next address (which is then not asked).
   * @throws Error after 20 steps
   */
  open(url: string, until?: string): Promise<Arrived>;
}

export function openBrowser(): Browser {
  const cookies = new Map<string, Map<string, string>>();

  function keep(url: URL, response: Response): void {
    const jar = cookies.get(url.host) ?? new Map<string, string>();
    cookies.set(url.host, jar);
    for (const header of response.headers.getSetCookie()) {
      const [pair = '', ...attributes] = header.split(';');
      const at = pair.indexOf('=');
      const gone = attributes.some(
        (a) => /^\s*max-age=0$/i.test(a) || /^\s*expires=thu, 01 jan 1970/i.test(a),
      );
      if (gone) jar.delete(pair.slice(0, at).trim());
      else jar.set(pair.slice(0, at).trim(), pair.slice(at + 1).trim());
    }
  }

  return {
    async open(start, until) {
      let url = new URL(start);
      let form: URLSearchParams | undefined;
      for (let steps = 0; steps < 20; steps += 1) {
        if (until !== undefined && url.href.startsWith(until)) return { url: url.href, status: 0, body: '' };
        const jar = [...(cookies.get(url.host) ?? [])].map(([name, value]) => `${name}=${value}`).join('; ');
        const response: Response = await fetch(url, {
          redirect: 'manual',
          headers: { accept: 'text/html', ...(jar === '' ? {} : { cookie: jar }) },
          ...(form ? { method: 'POST', body: form } : {}),
        });
        form = undefined;
        keep(url, response);
        const body = await response.text();
        const location = response.headers.get('location');
        const next = location ?? formOf(body)?.action;
        if (next === undefined || response.status >= 400)
          return { url: url.href, status: response.status, body };
        if (location === null) form = formOf(body)?.fields;
        url = new URL(next, url);
      }
      throw new Error(`the sign-in at ${start} does not come to an end`);
    },
  };
}

/** The form of a page that is there to be posted: with hidden fields only. */
function formOf(body: string): { action: string; fields: URLSearchParams } | undefined {
  const form = /<form[^>]*method="post"[^>]*action="([^"]*)"[^>]*>([\s\S]*?)<\/form>/i.exec(body);
  if (!form?.[1]) return undefined;
  const fields = new URLSearchParams();
  for (const [input] of (form[2] ?? '').matchAll(/<input[^>]*>/g)) {
    const name = /name="([^"]*)"/.exec(input)?.[1];
    if (name !== undefined) fields.append(name, unescaped(/value="([^"]*)"/.exec(input)?.[1] ?? ''));
  }
  return { action: unescaped(form[1]), fields };
}

function unescaped(text: string): string {
  return text
    .replaceAll('&quot;', '"')
    .replaceAll('&#39;', "'")
    .replaceAll('&lt;', '<')
    .replaceAll('&gt;', '>')
    .replaceAll('&amp;', '&');
}
