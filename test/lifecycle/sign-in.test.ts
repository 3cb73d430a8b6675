/**
 * A sign-in makes, finds or is refused its member: who is whom, what it gives, and that the directory's word stands over
 * it. Driven by hand: the lane works only where a test says so, so that a sign-in is seen to wait for none of it.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { SignInPolicy } from '../../src/lifecycle/sign-in-policy.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { createTestDirectory } from '../harness/tenant.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.drop());

const begin = () => createTestLane(database.db);

async function policy(lane: TestLane, more: Partial<SignInPolicy>): Promise<void> {
  const p = { membership: 'jit', defaultRole: 'member', neverRoles: [], allowedDomains: null, ...more };
  await database.db.tenant(lane.tenantId, (client) =>
    client.query(
      `insert into sign_in_policy (tenant_id, membership, default_role, never_roles, allowed_domains,
         required_connection, session_seconds, idle_seconds, switching)
       values ($1, $2, $3, $4, $5, $6, 60, 60, false)`,
      [
        lane.tenantId,
        p.membership,
        p.defaultRole,
        p.neverRoles,
        p.allowedDomains,
        more.requiredConnection ?? null,
      ],
    ),
  );
}

async function claimMapping(lane: TestLane, claim: string, value: string, role: string): Promise<void> {
  await database.db.tenant(lane.tenantId, (client) =>
    client.query(
      `insert into claim_mapping (id, tenant_id, claim, value, role) values (gen_random_uuid(), $1, $2, $3, $4)`,
      [lane.tenantId, claim, value, role],
    ),
  );
}

const member = (signedIn: Awaited<ReturnType<TestLane['signIn']>>) => {
  if (signedIn.outcome !== 'ok') throw new Error(`refused: ${signedIn.reason}`);
  return signedIn.member;
};
const reason = (signedIn: Awaited<ReturnType<TestLane['signIn']>>) =>
  signedIn.outcome === 'refused' ? signedIn.reason : 'let in';

/** What stands in every table of the tenant but the audit trail. */
async function standing(lane: TestLane): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const table of [
    'mirror_user',
    'change',
    'member',
    'link',
    'role_grant',
    'event',
    'session',
    'mismatch',
  ]) {
    counts[table] = await lane.count(table);
  }
  return counts;
}

describe('just in time', () => {
  test('who signs in for the first time becomes a member with the default role, and is found the next time', async () => {
    const lane = await begin();
    const connection = await lane.connect();
    const first = member(await lane.signIn(connection, { subject: 'ada', displayName: 'Ada' }));
    expect(first).toMatchObject({ email: 'ada@example.com', displayName: 'Ada', roles: ['member'] });
    const again = member(await lane.signIn(connection, { subject: 'ada', email: 'countess@example.com' }));
    expect(again.id).toBe(first.id);
    expect(again.email).toBe('countess@example.com');
    expect(await lane.count('member')).toBe(1);
    expect(lane.applied.map((a) => [a.source, a.class])).toEqual([
      ['login', 1],
      ['login', 1],
    ]);
    expect(await lane.count(`change where state = 'applied' and source = 'login'`)).toBe(2);
    expect(await lane.count(`event where type = 'member.created'`)).toBe(1);
    expect(await lane.count('link where subject = $$ada$$')).toBe(1);
  });

  test('claims give the roles that are mapped, those of the last sign-in only, never an owner and none that is ruled out', async () => {
    const lane = await begin();
    const connection = await lane.connect({ defaultRole: 'guest' });
    await policy(lane, { neverRoles: ['root'] });
    await claimMapping(lane, 'groups', 'Admins', 'admin');
    await claimMapping(lane, 'realm_access.roles', 'dev', 'developer');
    await claimMapping(lane, 'groups', 'Admins', 'root');
    const claims = { groups: ['Staff', 'Admins'], realm_access: { roles: ['dev'] } };
    expect(member(await lane.signIn(connection, { subject: 'ada', claims })).roles).toEqual([
      'admin',
      'developer',
      'guest',
    ]);
    expect(
      member(await lane.signIn(connection, { subject: 'ada', claims: { groups: 'Staff' } })).roles,
    ).toEqual(['guest']);
  });

  test('a sign-in waits for no backlog of its own tenant', async () => {
    const lane = await begin();
    const connection = await lane.connect();
    for (let n = 0; n < 20; n += 1) await lane.join({ userName: `p${n}` });
    member(await lane.signIn(connection, { subject: 'ada' }));
    expect(await lane.count(`change where state = 'pending'`)).toBe(20);
  });
});

describe('who is whom', () => {
  test('pushed by the directory, then signed in: one member, by e-mail, in either order', async () => {
    const lane = await begin();
    const connection = await lane.connect();
    await lane.join({ userName: 'ada', email: 'ada@example.com', displayName: 'Ada of the directory' });
    await lane.settle();
    const ada = member(
      await lane.signIn(connection, { subject: 's1', email: 'Ada@Example.com', displayName: 'x' }),
    );
    expect(ada.displayName).toBe('Ada of the directory');
    member(await lane.signIn(connection, { subject: 's2', email: 'bob@example.com' }));
    await lane.join({ userName: 'bob', email: 'bob@example.com' });
    await lane.settle();
    expect((await lane.everyone()).map((m) => m.email)).toEqual(['ada@example.com', 'bob@example.com']);
    expect(await lane.count('link')).toBe(4);
  });

  test('pushed and not yet converged: the sign-in itself makes the one member', async () => {
    const lane = await begin();
    const connection = await lane.connect();
    await lane.join({ userName: 'ada', email: 'ada@example.com' });
    member(await lane.signIn(connection, { subject: 's1', email: 'ada@example.com' }));
    await lane.settle();
    expect(await lane.count('member')).toBe(1);
  });

  test('by the object id that both sides claim, whatever the addresses', async () => {
    const lane = await begin();
    const connection = await lane.connect();
    const objectId = '0f9d6a4e-2f53-4f0e-9d4c-5f7f3f1d9a10';
    await lane.join({ userName: 'ada', email: 'ada@corp.example', externalId: objectId });
    await lane.settle();
    member(await lane.signIn(connection, { subject: 's1', email: 'lovelace@example.com', objectId }));
    expect(await lane.count('member')).toBe(1);
  });

  test('an address that went to a new person makes a new member, not the old one', async () => {
    const lane = await begin();
    const connection = await lane.connect();
    await lane.join({
      userName: 'ada',
      email: 'ada@example.com',
      externalId: '0f9d6a4e-2f53-4f0e-9d4c-5f7f3f1d9a10',
    });
    await lane.settle();
    const [ada] = await lane.everyone();
    const other = member(
      await lane.signIn(connection, {
        subject: 's2',
        email: 'ada@example.com',
        objectId: '7e4e7b1f-9be1-4a5c-8a6f-0b9d7c2f5e11',
      }),
    );
    expect(other.id).not.toBe(ada?.id);
  });

  test('a second subject does not get a member of its own beside the one that the directory has', async () => {
    const lane = await begin();
    const connection = await lane.connect();
    const ada = await lane.join({ userName: 'ada', email: 'ada@example.com' });
    await lane.settle();
    member(await lane.signIn(connection, { subject: 's1', email: 'ada@example.com' }));
    const before = await standing(lane);
    expect(reason(await lane.signIn(connection, { subject: 's2', email: 'ada@example.com' }))).toBe(
      'disputed',
    );
    expect(await standing(lane)).toEqual(before);
    await lane.leave(ada);
    await lane.settle();
    expect(reason(await lane.signIn(connection, { subject: 's2', email: 'ada@example.com' }))).toBe(
      'disputed',
    );
    expect((await lane.everyone()).map((m) => m.status)).toEqual(['removed']);
  });

  test('a person who leaves, and whose address goes to a new one whom the directory has: the new one signs in', async () => {
    const lane = await begin();
    const connection = await lane.connect();
    const old = await lane.join({ userName: 'ada', email: 'ada@example.com', externalId: 'one' });
    await lane.settle();
    await lane.leave(old);
    await lane.settle();
    expect(reason(await lane.signIn(connection, { subject: 's2', email: 'ada@example.com' }))).toBe(
      'deprovisioned',
    );
    await lane.join({ userName: 'ada', email: 'ada@example.com', externalId: 'two' });
    await lane.settle();
    const fresh = member(await lane.signIn(connection, { subject: 's2', email: 'ada@example.com' }));
    const active = (await lane.everyone()).filter((m) => m.status === 'active');
    expect(active.map((m) => m.id)).toEqual([fresh.id]);
  });

  test('a second provider’s directory is not taken over by a bare e-mail; in a proved domain it is', async () => {
    const lane = await begin();
    const connection = await lane.connect();
    const second = await createTestDirectory(database.db, lane.tenantId, 'second');
    await lane.join({ userName: 'ada', email: 'ada@example.com' }, second);
    await lane.settle();
    const domain = (use: string, proved: string) =>
      database.db.tenant(lane.tenantId, (client) =>
        client.query(
          `insert into domain (tenant_id, use, name, challenge, proved_at) values ($1, $2, 'example.com', '', ${proved})
           on conflict (tenant_id, use, name) do update set proved_at = excluded.proved_at`,
          [lane.tenantId, use],
        ),
      );
    const again = () => lane.signIn(connection, { subject: 's1', email: 'ada@example.com' });
    await domain('host', 'now()');
    await domain('email', 'null');
    expect(reason(await again()), 'added, but not proved; proved, but as a host').toBe('disputed');
    await domain('email', 'now()');
    member(await again());
    expect(await lane.count('member')).toBe(1);
  });

  test('pushed under the address that the person had then, and renamed before anybody looked: one member', async () => {
    const lane = await begin();
    const connection = await lane.connect();
    member(await lane.signIn(connection, { subject: 's1', email: 'ada@example.com' }));
    await lane.join({ userName: 'ada', email: 'ada@example.com' });
    member(await lane.signIn(connection, { subject: 's1', email: 'lovelace@example.com' }));
    await lane.settle();
    expect(await lane.count('member')).toBe(1);
  });

  test('whoever signs in under the name of a directory’s user who lost its address to a rival shares its fate', async () => {
    const lane = await begin();
    const connection = await lane.connect();
    const other = await createTestDirectory(database.db, lane.tenantId, 'other');
    await lane.join({ userName: 'ada', email: 'dan@example.com' }, other);
    const cyd = await lane.join({ userName: 'cyd', email: 'dan@example.com' });
    await lane.settle();
    const signIn = () =>
      lane.signIn(connection, { subject: 's1', userName: 'cyd', email: 'ada@example.com' });
    expect(reason(await signIn())).toBe('suspended');
    await lane.move(cyd, { email: 'cyd@example.com' });
    member(await signIn());
    await lane.settle();
    await lane.compare();
    await lane.compare();
    expect(await lane.count('mismatch')).toBe(0);
  });

  test('an unverified address links nobody', async () => {
    const lane = await begin();
    const connection = await lane.connect();
    await lane.join({ userName: 'ada', email: 'ada@example.com' });
    await lane.settle();
    const other = member(await lane.signIn(connection, { subject: 's1', email: null }));
    expect(other.email).toBe(null);
    expect(await lane.count('member')).toBe(2);
  });
});

describe('the directory’s word', () => {
  test.each([
    ['deactivated', 'suspended', (lane: TestLane, id: string) => lane.move(id, { active: false })],
    ['deleted', 'deprovisioned', (lane: TestLane, id: string) => lane.leave(id)],
  ])(
    'whoever is %s is refused, though the lane has not come to it, and nothing is written',
    async (_what, why, end) => {
      const lane = await begin();
      const connection = await lane.connect();
      const ada = await lane.join({ userName: 'ada', email: 'ada@example.com' });
      await lane.settle();
      member(await lane.signIn(connection, { subject: 's1', email: 'ada@example.com' }));
      await end(lane, ada);
      const before = await standing(lane);
      expect(reason(await lane.signIn(connection, { subject: 's1', email: 'ada@example.com' }))).toBe(why);
      expect(await standing(lane)).toEqual(before);
      expect(await lane.count(`audit_entry where action = 'sign_in.refused'`)).toBe(1);
      await lane.settle();
      expect(reason(await lane.signIn(connection, { subject: 's1', email: 'ada@example.com' }))).toBe(why);
      expect((await lane.everyone())[0]).toMatchObject({ roles: [] });
    },
  );

  test('deprovisioned before the first sign-in: refused by the address, whatever the subject', async () => {
    const lane = await begin();
    const connection = await lane.connect();
    await lane.leave(await lane.join({ userName: 'ada', email: 'ada@example.com' }));
    await lane.settle();
    const bob = await lane.join({ userName: 'bob', email: 'bob@example.com' });
    await lane.settle();
    await lane.leave(bob);
    await lane.settle();
    expect(reason(await lane.signIn(connection, { subject: 's1', email: 'bob@example.com' }))).toBe(
      'deprovisioned',
    );
  });

  test('a member whom a sign-in made belongs to the directory from its first push on, and leaves with it', async () => {
    const lane = await begin();
    const connection = await lane.connect();
    member(await lane.signIn(connection, { subject: 's1', email: 'ada@example.com' }));
    const ada = await lane.join({ userName: 'ada', email: 'ada@example.com', displayName: 'Ada' });
    await lane.settle();
    expect(await lane.one('ada@example.com')).toMatchObject({ status: 'active', roles: ['member'] });
    await lane.leave(ada);
    await lane.settle();
    expect(await lane.one('ada@example.com')).toMatchObject({ status: 'removed', roles: [] });
  });

  test('a sign-in and the directory grant each their own, and take each their own', async () => {
    const lane = await begin();
    const connection = await lane.connect();
    const ada = await lane.join({ userName: 'ada', email: 'ada@example.com' });
    const staff = await lane.group('Staff', [ada]);
    await lane.map([{ group: 'Staff', role: 'staff' }]);
    await lane.settle();
    expect(member(await lane.signIn(connection, { subject: 's1', email: 'ada@example.com' })).roles).toEqual([
      'member',
      'staff',
    ]);
    await lane.members(staff, { remove: [ada] });
    await lane.settle();
    expect((await lane.one('ada@example.com'))?.roles).toEqual(['member']);
    await lane.compare();
    expect(await lane.count('mismatch')).toBe(0);
  });
});

describe('policies', () => {
  test('where only the directory’s members may sign in, nobody else does, and who was made before loses access', async () => {
    const lane = await begin();
    const connection = await lane.connect();
    const stranger = member(await lane.signIn(connection, { subject: 'eve' }));
    await lane.join({ userName: 'ada', email: 'ada@example.com' });
    await lane.settle();
    await policy(lane, { membership: 'directory' });
    member(await lane.signIn(connection, { subject: 'ada' }));
    const before = await standing(lane);
    expect(reason(await lane.signIn(connection, { subject: 'mal' }))).toBe('not_in_directory');
    expect(reason(await lane.signIn(connection, { subject: 'eve' }))).toBe('not_in_directory');
    expect(await standing(lane)).toEqual(before);
    expect(stranger.status).toBe('active');
  });

  test('other domains, other connections, paused and foreign ones are refused', async () => {
    const lane = await begin();
    const connection = await lane.connect();
    const second = await lane.connect();
    const foreign = await (await begin()).connect();
    await policy(lane, { allowedDomains: ['example.com'], requiredConnection: connection });
    expect(reason(await lane.signIn(connection, { subject: 'a', email: 'a@evil.example' }))).toBe(
      'domain_not_allowed',
    );
    expect(reason(await lane.signIn(connection, { subject: 'a', email: null }))).toBe('domain_not_allowed');
    expect(reason(await lane.signIn(connection, { subject: 'a', email: 'a@evil@example.com' }))).toBe(
      'let in',
    );
    expect(reason(await lane.signIn(second, { subject: 'a' }))).toBe('connection_not_allowed');
    expect(reason(await lane.signIn(foreign, { subject: 'a' }))).toBe('unknown_connection');
    await database.db.tenant(lane.tenantId, (client) =>
      client.query('update connection set paused_at = now()'),
    );
    expect(reason(await lane.signIn(connection, { subject: 'b' }))).toBe('connection_paused');
  });
});

describe('an operator', () => {
  test('suspends, and whatever directory and sign-in say, the member stays out until the operator takes it back', async () => {
    const lane = await begin();
    const connection = await lane.connect();
    const ada = await lane.join({ userName: 'ada', email: 'ada@example.com' });
    await lane.settle();
    const { id } = member(await lane.signIn(connection, { subject: 'ada' }));
    const at = { tenantId: lane.tenantId, memberId: id };
    expect(await lane.lifecycle.setStatus(at, 'suspended', 'operator:x')).toBe('suspended');
    await lane.move(ada, { displayName: 'Ada' });
    await lane.settle();
    expect(await lane.one('ada@example.com')).toMatchObject({ status: 'suspended', roles: [] });
    expect(reason(await lane.signIn(connection, { subject: 'ada' }))).toBe('operator');
    expect(await lane.lifecycle.setStatus(at, 'active', 'operator:x')).toBe('active');
    expect(await lane.lifecycle.setStatus(at, 'removed', 'operator:x')).toBe('removed');
    await lane.move(ada, { active: false });
    await lane.settle();
    expect(await lane.lifecycle.setStatus(at, 'active', 'operator:x'), 'the directory decides').toBe(
      'suspended',
    );
    expect(await lane.lifecycle.setStatus({ ...at, tenantId: (await begin()).tenantId }, 'active', 'x')).toBe(
      undefined,
    );
  });
});

test('each attribute says which source gives it', async () => {
  const lane = await begin();
  const connection = await lane.connect();
  await lane.mapAttributes({ title: 'title' });
  const { id } = member(await lane.signIn(connection, { subject: 'ada', displayName: 'Ada' }));
  const from = async () => {
    const attributes = await lane.lifecycle.explainAttributes(lane.tenantId, id);
    return Object.fromEntries(
      attributes.map((a) => [a.name, a.from?.directory ?? a.from?.connection ?? null]),
    );
  };
  expect(await from()).toEqual({ email: connection, displayName: connection });
  const ada = await lane.join({ userName: 'ada', attributes: { title: 'Countess' } });
  await lane.settle();
  const directory = lane.directory.id;
  expect(await from()).toEqual({ email: directory, displayName: directory, 'profile.title': directory });
  await lane.leave(ada);
  await lane.settle();
  expect(await from()).toEqual({ email: null, displayName: null, 'profile.title': null });
  expect(await lane.lifecycle.explainAttributes(lane.tenantId, connection)).toEqual([]);
});
