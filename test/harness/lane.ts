/** A tenant's directory with converge beside it, driven by hand: no queue, so that a test decides who works when. */
import { v7 as uuidv7 } from 'uuid';
import { resolveAttributePath } from '../../src/api/attribute-path.ts';
import type { Database } from '../../src/database/database.ts';
import {
  type DirectoryStore,
  normalise,
  openDirectoryStore,
  type UserFacts,
} from '../../src/directory/directory.ts';
import type { LoginProfile } from '../../src/directory/login.ts';
import { type Applied, type AttributeMappingInput, openLifecycle } from '../../src/lifecycle/lifecycle.ts';
import type { Profile } from '../../src/lifecycle/profile.ts';
import { compareMembers } from '../../src/reconcile/mismatches.ts';
import { userSchemas } from '../../src/scim/schema/schema.ts';
import { readSchemas } from '../../src/tenant/schema-settings.ts';
import { createTestDirectory, createTestTenant, type TestDirectory } from './tenant.ts';

export interface Person {
  userName?: string;
  email?: string | null;
  active?: boolean;
  externalId?: string;
  displayName?: string;
  /** What else the directory says, as it stands in the document. */
  attributes?: Record<string, unknown>;
}

export interface TestMember {
  id: string;
  email: string | null;
  status: string;
  roles: string[];
}

export function userFacts(person: Person & { userName: string }): UserFacts {
  const email = person.email === undefined ? `${person.userName}@example.com` : person.email;
  return {
    userName: person.userName,
    externalId: person.externalId ?? null,
    displayName: person.displayName ?? null,
    active: person.active ?? true,
    email,
    emailKeys: email === null ? [] : [normalise(email)],
    doc: { userName: person.userName, ...person.attributes },
  };
}

/** @param fieldByPath `{ 'name.familyName': 'surname' }` */
export function attributeMappings(fieldByPath: Record<string, string>): AttributeMappingInput[] {
  return Object.entries(fieldByPath).map(([attribute, field]) => {
    const resolved = resolveAttributePath(userSchemas, attribute);
    if (!resolved.ok) throw new Error(`${attribute} ${resolved.message}`);
    return { attribute, field, path: resolved.value };
  });
}

export async function createTestLane(db: Database, options: { retryMs?: number[] } = {}) {
  const tenantId = await createTestTenant(db);
  const directory = await createTestDirectory(db, tenantId);
  const applied: Applied[] = [];
  const parked: string[] = [];
  const ownersLost: string[] = [];
  const sessionsEnded: number[] = [];
  const store: DirectoryStore = openDirectoryStore(db.pool, () => {});
  const lifecycle = openLifecycle(db, {
    observer: {
      applied: (changes) => applied.push(...changes),
      parked: (_id, error) => parked.push(error),
      ownerLost: (_tenant, member) => ownersLost.push(member),
      sessionsEnded: (sessions) => sessionsEnded.push(sessions),
    },
    retryMs: options.retryMs ?? [],
  });
  const caller = (d: TestDirectory) => d.caller;
  const expectOk = <T extends { outcome: string }>(written: T): T => {
    if (written.outcome !== 'ok') throw new Error(`the store refused: ${JSON.stringify(written)}`);
    return written;
  };

  return {
    tenantId,
    directory,
    store,
    lifecycle,
    applied,
    parked,
    ownersLost,
    /** As the observer was told. */
    sessionsEnded,
    /** A connection at which the product posts its sign-ins. */
    async connect(more: { provider?: string; defaultRole?: string } = {}): Promise<string> {
      const id = uuidv7();
      await db.tenant(tenantId, (client) =>
        client.query(
          `insert into connection (id, tenant_id, kind, name, provider, default_role) values ($1, $2, 'oidc', 'x', $3, $4)`,
          [id, tenantId, more.provider ?? 'primary', more.defaultRole ?? null],
        ),
      );
      return id;
    },
    /** What becomes of a verified sign-in: the member's roles, or why it was refused. */
    async signIn(connectionId: string, profile: Partial<LoginProfile> & { subject: string }) {
      const request = {
        tenantId,
        connectionId,
        arrivedAt: new Date(),
        profile: {
          objectId: null,
          userName: null,
          email: `${profile.subject}@example.com`,
          displayName: null,
          claims: {},
          ...profile,
        },
      };
      return lifecycle.signIn(request, async (_client, admitted) => admitted);
    },
    async join(person: Person & { userName: string }, d = directory, id = uuidv7()): Promise<string> {
      expectOk(await store.createUser(caller(d), { ...userFacts(person), id }, new Date()));
      return id;
    },
    async move(id: string, person: Person, d = directory): Promise<void> {
      const read = await store.readUser(caller(d), id);
      if (read.outcome !== 'ok') throw new Error(read.outcome);
      const { rows } = await db.tenant(tenantId, (client) =>
        client.query<{
          user_name: string;
          email: string | null;
          active: boolean;
          external_id: string | null;
          display_name: string | null;
        }>('select user_name, email, active, external_id, display_name from mirror_user where id = $1', [id]),
      );
      const before = rows[0];
      if (!before) throw new Error('gone');
      const { userName: _, ...attributes } = JSON.parse(read.row.doc) as Record<string, unknown>;
      const after = userFacts({
        userName: person.userName ?? before.user_name,
        email: person.email === undefined ? before.email : person.email,
        active: person.active ?? before.active,
        attributes: person.attributes ?? attributes,
        ...(before.external_id === null ? {} : { externalId: before.external_id }),
        ...(before.display_name === null ? {} : { displayName: before.display_name }),
        ...(person.displayName === undefined ? {} : { displayName: person.displayName }),
      });
      const was = userFacts({ userName: before.user_name, email: before.email, active: before.active });
      expectOk(
        await store.writeUser(caller(d), { ...after, id, version: read.row.version }, was, new Date()),
      );
    },
    async leave(id: string, d = directory): Promise<void> {
      expectOk(await store.deleteUser(caller(d), id, null, new Date()));
    },
    async group(displayName: string, members: string[] = [], d = directory): Promise<string> {
      const id = uuidv7();
      expectOk(
        await store.applyGroup(
          caller(d),
          id,
          null,
          { create: true, displayName, doc: {}, add: members },
          new Date(),
        ),
      );
      return id;
    },
    async members(
      groupId: string,
      change: { add?: string[]; remove?: string[]; replace?: string[] },
      d = directory,
    ) {
      expectOk(await store.applyGroup(caller(d), groupId, null, change, new Date()));
    },
    async renameGroup(groupId: string, displayName: string, d = directory): Promise<void> {
      expectOk(await store.applyGroup(caller(d), groupId, null, { displayName }, new Date()));
    },
    async deleteGroup(groupId: string, d = directory): Promise<void> {
      expectOk(await store.deleteGroup(caller(d), groupId, null, new Date()));
    },
    /** One pass over mirror and members, which confirms at the second sight. */
    compare: () => compareMembers(db, tenantId, 0),
    map: (mappings: { group: string; role: string; priority?: number; directory?: string }[]) =>
      lifecycle.replaceMappings(tenantId, mappings, 'test'),
    /** @param mappings attribute → field of the directory's whole set */
    async mapAttributes(mappings: Record<string, string>, d = directory): Promise<void> {
      const inputs = attributeMappings(mappings);
      const schemas = await readSchemas(db, tenantId, d.id);
      if ((await lifecycle.replaceAttributeMappings(tenantId, d.id, inputs, schemas, 'test')) !== 'written')
        throw new Error('gone');
    },
    /** E-mail → profile. */
    async profiles(): Promise<Record<string, Profile>> {
      const { rows } = await db.tenant(tenantId, (client) =>
        client.query<{ email: string; profile: Profile }>('select email, profile from member'),
      );
      return Object.fromEntries(rows.map((m) => [m.email, m.profile]));
    },
    /** Works the lane until nothing is due. */
    async settle(): Promise<void> {
      while ((await lifecycle.drain(tenantId, new AbortController().signal)) === 'more');
    },
    async everyone(): Promise<TestMember[]> {
      const { rows } = await db.tenant(tenantId, (client) =>
        client.query<TestMember>(
          `select m.id, m.email, m.status, array(select distinct g.role from role_grant g where g.member_id = m.id order by 1)
             as roles from member m order by m.email, m.id`,
        ),
      );
      return rows;
    },
    async one(email: string): Promise<TestMember | undefined> {
      return (await this.everyone()).find((m) => m.email === email);
    },
    async count(sql: string): Promise<number> {
      const { rows } = await db.tenant(tenantId, (client) =>
        client.query<{ n: string }>(`select count(*) as n from ${sql}`),
      );
      return Number(rows[0]?.n);
    },
  };
}

export type TestLane = Awaited<ReturnType<typeof createTestLane>>;
