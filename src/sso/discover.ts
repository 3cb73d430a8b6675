/**
 * Home-realm discovery: from an e-mail address, or from the host that was asked for, to where the tenant's people sign in.
 * Only names that a tenant has proved lead anywhere. Every other one, whether nobody has it, or somebody has added it, or
 * proved it and has nowhere to sign in, gets the same bytes, which tell nothing.
 */
import { randomUUID } from 'node:crypto';
import express, { type Request, type Response } from 'express';
import type { Database } from '../database/database.ts';
import { baseUrl, type Origin } from '../http/base-url.ts';
import { html } from '../http/html.ts';
import { domainName, tenantOfName } from '../tenant/domain.ts';
import { type Page, refusalPage, sendPage } from './page.ts';

export interface DiscoverOptions extends Origin {
  db: Database;
}

/** What of the query goes on to the sign-in. */
const PASSED = ['returnTo', 'state', 'prompt'] as const;
/** An address that no mail system knows: RFC 5321 §4.5.3.1. */
const MAX_EMAIL = 320;

/** To be mounted at /sso, before the routes of tenants. */
export function discoverRouter(options: DiscoverOptions): express.Router {
  const router = express.Router({ caseSensitive: true });
  router.get('/discover', async (req, res) => {
    res.set({ 'cache-control': 'no-store', vary: 'Accept' });
    const email = one(req, 'email');
    const page = req.accepts(['json', 'html']) === 'html';
    if (email === undefined && page) {
      sendForm(res, askPage(passed(req), false));
      return;
    }
    const slug = await slugOfEmail(options.db, email ?? '');
    if (slug === undefined) {
      if (page) sendForm(res, askPage(passed(req), true));
      else res.json({ found: false });
      return;
    }
    const query = new URLSearchParams([...passed(req), ['login_hint', email ?? '']]);
    const url = `${baseUrl(req, options)}/sso/${slug}/login?${query}`;
    if (page) res.set('referrer-policy', 'no-referrer').redirect(303, url);
    else res.json({ found: true, tenant: slug, url });
  });
  router.get('/login', async (req, res) => {
    const base = new URL(baseUrl(req, { ...options, publicUrl: undefined }));
    const name = domainName(base.hostname);
    const slug = name === undefined ? undefined : await signInSlug(options.db, 'host', name);
    if (slug === undefined) {
      sendPage(res, refusalPage('unknown_sign_in', randomUUID()));
      return;
    }
    const query = new URLSearchParams(passed(req)).toString();
    // To where the identity provider will send the browser back to: a cookie of another host would not come with it.
    const path = options.publicUrl === undefined ? base.pathname.replace(/\/+$/, '') : baseUrl(req, options);
    res
      .set({ 'cache-control': 'no-store', 'referrer-policy': 'no-referrer' })
      .redirect(303, `${path}/sso/${slug}/login${query ? `?${query}` : ''}`);
  });
  return router;
}

async function slugOfEmail(db: Database, email: string): Promise<string | undefined> {
  const at = email.lastIndexOf('@');
  if (at < 1 || email.length > MAX_EMAIL) return undefined;
  const name = domainName(email.slice(at + 1));
  return name === undefined ? undefined : signInSlug(db, 'email', name);
}

/** Of the tenant that has proved the name, if its people can sign in anywhere. */
async function signInSlug(db: Database, use: 'email' | 'host', name: string): Promise<string | undefined> {
  const tenant = await tenantOfName(db.pool, { use, name });
  if (!tenant) return undefined;
  const ways = await db.tenant(tenant.id, (client) =>
    client.query(`select from connection where kind <> 'posted' and paused_at is null limit 1`),
  );
  return ways.rowCount ? tenant.slug : undefined;
}

function one(req: Request, name: string): string | undefined {
  const value = req.query[name];
  return typeof value === 'string' ? value.trim() : undefined;
}

function passed(req: Request): [string, string][] {
  return PASSED.flatMap((name) => {
    const value = one(req, name);
    return value === undefined || value.length > 4_096 ? [] : [[name, value] as [string, string]];
  });
}

/** The form's answer redirects to an identity provider, which `form-action` counts as the form's own target. */
function sendForm(res: Response, page: Page): void {
  sendPage(res, page, { formAction: '*' });
}

function askPage(fields: [string, string][], unknown: boolean): Page {
  return {
    status: 200,
    title: 'Sign in',
    body: html`${
      unknown
        ? html`<p class="note" role="alert">No sign-in was found for that address. Check it, or ask your organisation's
administrator for its sign-in link.</p>`
        : ''
    }
<form method="get" action="discover">
<p><label for="email">Your work e-mail address</label></p>
<p><input id="email" name="email" type="email" autocomplete="username" required autofocus maxlength="${String(MAX_EMAIL)}"></p>
${fields.map(([name, value]) => html`<input type="hidden" name="${name}" value="${value}">`)}
<p><button type="submit">Continue</button></p>
</form>`,
  };
}
