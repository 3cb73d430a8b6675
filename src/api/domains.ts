/** /v1/tenants/{tenant}/domains: e-mail domains and hosts of a tenant, proved by DNS. */
import { z } from 'zod';
import {
  addDomain,
  type DomainFacts,
  type DomainUse,
  domainName,
  listDomains,
  proveDomain,
  removeDomain,
} from '../tenant/domain.ts';
import { conflict, invalid, notFound } from './problem.ts';
import { type ApiOptions, type Route, reply, route } from './route.ts';
import { isoOrNull, text, time } from './schema.ts';

const use = z.enum(['email', 'host'], { error: 'must be email or host' }).meta({
  description:
    'email: of addresses, for finding the tenant and knowing people; host: where its people sign in',
});

const domainSchema = z
  .strictObject({
    use,
    name: z.string(),
    record: z
      .strictObject({ type: z.literal('TXT'), name: z.string(), value: z.string() })
      .meta({ description: 'The DNS record that proves the name' }),
    provedAt: time.nullable(),
    checkedAt: time.nullable(),
    failingSince: time.nullable().meta({
      description:
        'Since when the record of a proved name is missing; after three days it is proved no longer',
    }),
  })
  .meta({ id: 'Domain' });

export function domainRoutes({ db, resolver }: ApiOptions): Route[] {
  return [
    route({
      method: 'post',
      path: '/tenants/{tenant}/domains',
      id: 'addDomain',
      summary: 'Add a domain or host, to be proved',
      description: 'Until it is proved it does nothing. The same again answers the same.',
      scope: 'domains:write',
      body: z.strictObject({ name: text(253), use: use.default('email') }),
      answers: { 201: { description: 'The name, and the record that proves it', schema: domainSchema } },
      async handle({ tenant, actor, body }) {
        const name = domainName(body.name);
        if (name === undefined) return notADomain('/name');
        return reply(201, shown(await addDomain(db, tenant.id, { use: body.use, name }, actor)));
      },
    }),
    route({
      method: 'get',
      path: '/tenants/{tenant}/domains',
      id: 'listDomains',
      summary: 'List domains and hosts',
      scope: 'domains:read',
      answers: {
        200: { description: 'All of them', schema: z.strictObject({ items: z.array(domainSchema) }) },
      },
      handle: async ({ tenant }) => reply(200, { items: (await listDomains(db, tenant.id)).map(shown) }),
    }),
    route({
      method: 'post',
      path: '/tenants/{tenant}/domains/{use}/{name}/verify',
      id: 'verifyDomain',
      summary: 'Look for the record now',
      description: 'Whom a proved domain ties is decided when they are converged, or sign in, next.',
      scope: 'domains:write',
      answers: { 200: { description: 'The name is proved', schema: domainSchema } },
      async handle({ tenant, actor, params }) {
        const at = named(params);
        if (!at) return notFound('domain');
        const proved = await proveDomain(db, resolver, tenant.id, at, actor);
        if (proved.outcome === 'proved') return reply(200, shown(proved.domain));
        if (proved.outcome === 'not_found') return notFound('domain');
        if (proved.outcome === 'taken') {
          return conflict(
            'domain-taken',
            `"${at.name}" was proved for another tenant first. It can belong to one only; ask an operator to remove it ` +
              'there. Nothing was written.',
          );
        }
        const { record } = proved.domain;
        const wanted = `Add a TXT record at ${record.name} that reads ${record.value}, and ask again`;
        if (proved.outcome === 'unknown') {
          return conflict(
            'dns-silent',
            `DNS gave no answer for ${record.name} (${proved.error}). ${wanted}.`,
          );
        }
        const seen =
          proved.seen.length === 0 ? 'there is none' : `found: ${proved.seen.join(' | ').slice(0, 500)}`;
        return conflict(
          'record-missing',
          `The TXT record at ${record.name} does not say so yet (${seen}). ${wanted}; a new record can take its ` +
            'time to be seen.',
        );
      },
    }),
    route({
      method: 'delete',
      path: '/tenants/{tenant}/domains/{use}/{name}',
      id: 'removeDomain',
      summary: 'Remove a domain or host',
      description: 'Members keep the links that it made.',
      scope: 'domains:write',
      answers: { 204: { description: 'Done' } },
      async handle({ tenant, actor, params }) {
        const at = named(params);
        return at && (await removeDomain(db, tenant.id, at, actor)) ? reply(204) : notFound('domain');
      },
    }),
  ];
}

function named(params: { use: string; name: string }): { use: DomainUse; name: string } | undefined {
  const name = domainName(params.name);
  const read = use.safeParse(params.use);
  return name !== undefined && read.success ? { use: read.data, name } : undefined;
}

function notADomain(path: string) {
  return invalid([
    { path, message: 'must be a domain name like example.com, without scheme, path and port' },
  ]);
}

function shown(domain: DomainFacts) {
  return {
    use: domain.use,
    name: domain.name,
    record: { type: 'TXT' as const, ...domain.record },
    provedAt: isoOrNull(domain.provedAt),
    checkedAt: isoOrNull(domain.checkedAt),
    failingSince: isoOrNull(domain.failingSince),
  };
}
