/** /v1/tenants/{tenant}/members: who is in the tenant, with which roles and why; roles given and taken by hand. */
import { z } from 'zod';
import type { Database } from '../database/database.ts';
import { normalise } from '../directory/directory.ts';
import { giveRole, takeRole } from '../tenant/operator-grant.ts';
import { covers, type Principal } from '../tenant/scope.ts';
import { conflict, forbidden, invalid, notFound } from './problem.ts';
import { type ApiOptions, type Route, reply, route } from './route.ts';
import { cursor, iso, limit, page, pageOf, profile, role, text, time, uuid } from './schema.ts';

const status = z.enum(['active', 'suspended', 'removed']);

const linkSchema = z.strictObject({
  directory: uuid.nullable(),
  connection: uuid.nullable().meta({ description: 'Where the person signs in' }),
  user: uuid.nullable().meta({ description: "The directory user's SCIM id" }),
  subject: z.string().nullable().meta({ description: 'The SSO subject' }),
  provider: z.string(),
});

const memberFields = {
  id: uuid,
  email: z.string().nullable(),
  displayName: z.string().nullable(),
  profile: profile.meta({ description: 'What attribute mappings made of the attributes of its directories' }),
  status,
  roles: z.array(z.string()),
  links: z.array(linkSchema),
  createdAt: time,
  updatedAt: time,
};

const memberSchema = z.strictObject(memberFields).meta({ id: 'Member' });

const memberDetail = z
  .strictObject({
    ...memberFields,
    grants: z.array(
      z.strictObject({
        role: z.string(),
        because: z.string(),
        origin: z.enum(['mapping', 'login', 'operator']),
        since: time,
      }),
    ),
    attributes: z
      .array(
        z.strictObject({
          name: z.string(),
          from: z
            .strictObject({ directory: uuid.nullable(), connection: uuid.nullable(), user: uuid })
            .nullable(),
        }),
      )
      .meta({
        description:
          'Which source gives each attribute: email, displayName, profile.<field>; null where whoever gave it is gone',
      }),
    timeline: z
      .array(
        z.strictObject({
          at: time,
          actor: z.string(),
          action: z.string(),
          detail: z.record(z.string(), z.unknown()),
          change: z.string().nullable(),
        }),
      )
      .meta({ description: 'The newest 100 audit entries, newest first' }),
  })
  .meta({ id: 'MemberDetail' });

const filters = z.strictObject({
  status: status.optional(),
  email: text(320).optional().meta({ description: 'The whole address, in any case' }),
  role: role.optional(),
  q: text(200).optional().meta({ description: 'Part of the e-mail address or the name, in any case' }),
  cursor: cursor(uuid),
  limit,
});

export function memberRoutes({ db, lifecycle }: ApiOptions): Route[] {
  return [
    route({
      method: 'get',
      path: '/tenants/{tenant}/members',
      id: 'listMembers',
      summary: 'List members',
      scope: 'members:read',
      query: filters,
      answers: { 200: { description: 'Members by id', schema: pageOf(memberSchema) } },
      async handle({ tenant, query }) {
        const rows = await listMembers(db, tenant.id, query);
        return reply(
          200,
          page(rows, query.limit, shown, (m) => m.id),
        );
      },
    }),
    route({
      method: 'get',
      path: '/tenants/{tenant}/members/{member}',
      id: 'getMember',
      summary: 'Read a member, why it has its roles, and what happened to it',
      scope: 'members:read',
      answers: { 200: { description: 'The member', schema: memberDetail } },
      async handle({ tenant, params }) {
        const found = await readMember(db, lifecycle, tenant.id, params.member);
        return found ? reply(200, found) : notFound('member');
      },
    }),
    route({
      method: 'patch',
      path: '/tenants/{tenant}/members/{member}',
      id: 'setMemberStatus',
      summary: 'Suspend or remove a member by hand, or take that back',
      description:
        'The stricter of this and of what the directories say holds; sessions end with the answer. "active" takes back ' +
        'what was said before: the directories decide again, and where those that had the person exist no longer, a ' +
        'sign-in may bring them back.',
      scope: 'members:write',
      body: z.strictObject({ status }),
      answers: { 200: { description: 'The member as it stands now', schema: memberDetail } },
      async handle({ tenant, params, actor, body }) {
        const memberId = params.member;
        const set = await lifecycle.setStatus({ tenantId: tenant.id, memberId }, body.status, actor);
        const found = set === undefined ? undefined : await readMember(db, lifecycle, tenant.id, memberId);
        return found ? reply(200, found) : notFound('member');
      },
    }),
    route({
      method: 'put',
      path: '/tenants/{tenant}/members/{member}/roles/{role}',
      id: 'giveRole',
      summary: 'Give a role by hand',
      description:
        'No directory takes such a role away. The role "owner" needs the scope owners:write as well.',
      scope: 'members:write',
      answers: { 204: { description: 'The member has the role from an operator' } },
      async handle({ tenant, params, principal, actor }) {
        const refused = reserved(principal, params.role);
        if (refused) return refused;
        const given = await giveRole(db, at(tenant.id, params), actor);
        if (given === 'no_member') return notFound('member');
        if (given === 'removed') {
          return conflict(
            'member-removed',
            'The member was removed, so it can be given no role. It takes roles again when a directory or a sign-in ' +
              'brings the person back. Nothing was written.',
          );
        }
        return reply(204);
      },
    }),
    route({
      method: 'delete',
      path: '/tenants/{tenant}/members/{member}/roles/{role}',
      id: 'takeRole',
      summary: 'Take a role that was given by hand',
      description: 'A role that a group gives as well stays by that group.',
      scope: 'members:write',
      answers: { 204: { description: 'The operator gives it no longer' } },
      async handle({ tenant, params, principal, actor }) {
        const refused = reserved(principal, params.role);
        if (refused) return refused;
        const taken = await takeRole(db, at(tenant.id, params), actor);
        if (taken === 'no_member') return notFound('member');
        if (taken === 'no_grant') {
          return conflict(
            'not-given-by-hand',
            'No operator gave this role to this member. If it has the role by a group, change the group in the ' +
              'directory or the role mapping. Nothing was written.',
          );
        }
        return reply(204);
      },
    }),
  ];
}

function at(tenantId: string, params: { member: string; role: string }) {
  return { tenantId, memberId: params.member, role: params.role };
}

function reserved(principal: Principal, name: string) {
  if (name.toLowerCase() !== 'owner') return undefined;
  if (name !== 'owner') {
    return invalid([
      { path: 'role', message: 'the reserved role is written "owner"; no other spelling is taken' },
    ]);
  }
  if (covers(principal.scopes, 'owners:write')) return undefined;
  return forbidden(
    'The role "owner" is reserved for operators: this key lacks the scope owners:write. Use an operator key, or one ' +
      'with that scope.',
  );
}

interface MemberRow {
  id: string;
  email: string | null;
  display_name: string | null;
  profile: z.output<typeof profile>;
  status: z.output<typeof status>;
  created_at: Date;
  updated_at: Date;
  roles: string[];
  links: z.output<typeof linkSchema>[];
}

const COLUMNS = `m.id, m.email, m.display_name, m.profile, m.status, m.created_at, m.updated_at,
  coalesce((select json_agg(distinct g.role order by g.role) from role_grant g where g.member_id = m.id), '[]') as roles,
  coalesce((select json_agg(json_build_object('directory', case when l.subject is null then l.directory_id end,
    'connection', case when l.subject is not null then l.directory_id end,
    'user', case when l.subject is null then l.user_id end, 'subject', l.subject,
    'provider', l.provider) order by l.id) from link l where l.member_id = m.id), '[]') as links`;

// Planned for its parameters each time, so that an absent filter costs nothing and an e-mail is an index read
// (member_email); the page itself walks member_of_tenant. A role or a part of a name is looked for member by member.
const LIST = `select ${COLUMNS} from member m
  where m.tenant_id = $1 and ($2::uuid is null or m.id > $2)
    and ($3::text is null or m.status = $3)
    and ($4::text is null or m.email_key = $4)
    and ($5::text is null or exists (select from role_grant g where g.member_id = m.id and g.role = $5))
    and ($6::text is null or position($6 in coalesce(m.email_key, '')) > 0
      or position($6 in lower(coalesce(m.display_name, ''))) > 0)
  order by m.id limit $7`;

async function listMembers(
  db: Database,
  tenantId: string,
  query: z.output<typeof filters>,
): Promise<MemberRow[]> {
  return db.tenant(tenantId, async (client) => {
    const { rows } = await client.query<MemberRow>(LIST, [
      tenantId,
      query.cursor ?? null,
      query.status ?? null,
      query.email === undefined ? null : normalise(query.email),
      query.role ?? null,
      query.q === undefined ? null : normalise(query.q),
      query.limit + 1,
    ]);
    return rows;
  });
}

async function readMember(db: Database, lifecycle: ApiOptions['lifecycle'], tenantId: string, id: string) {
  const attributes = await lifecycle.explainAttributes(tenantId, id);
  return db.tenant(tenantId, async (client) => {
    const { rows } = await client.query<MemberRow>(
      `select ${COLUMNS} from member m where m.id = $1 and m.tenant_id = $2`,
      [id, tenantId],
    );
    const member = rows[0];
    if (!member) return undefined;
    const grants = await client.query<{ role: string; because: string; origin: string; created_at: Date }>(
      'select role, because, origin, created_at from role_grant where member_id = $1 order by role, created_at, id',
      [id],
    );
    const timeline = await client.query<{
      at: Date;
      actor: string;
      action: string;
      detail: Record<string, unknown>;
      change_id: string | null;
    }>(
      `select at, actor, action, detail, change_id from audit_entry
       where tenant_id = $1 and member_id = $2 order by at desc limit 100`,
      [tenantId, id],
    );
    return {
      ...shown(member),
      grants: grants.rows.map((g) => ({
        role: g.role,
        because: g.because,
        origin: g.origin,
        since: iso(g.created_at),
      })),
      attributes,
      timeline: timeline.rows.map((e) => ({
        at: iso(e.at),
        actor: e.actor,
        action: e.action,
        detail: e.detail,
        change: e.change_id,
      })),
    };
  });
}

function shown(member: MemberRow) {
  return {
    id: member.id,
    email: member.email,
    displayName: member.display_name,
    profile: member.profile,
    status: member.status,
    roles: member.roles,
    links: member.links,
    createdAt: iso(member.created_at),
    updatedAt: iso(member.updated_at),
  };
}
