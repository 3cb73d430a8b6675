/**
 * The guards of the house, each with a way to break it and the tests that must notice. `find` stands in the file exactly
 * once: a guard that was rewritten is broken anew here, in the same change.
 */
export interface Mutation {
  guard: string;
  /** What the product would do wrong. */
  breaks: string;
  file: string;
  find: string;
  replace: string;
  tests: readonly string[];
}

const database = ['test/database/drift.test.ts', 'test/api/isolation.test.ts'];
const lane = ['test/lifecycle/lane.test.ts', 'test/lifecycle/life.test.ts'];
const signIn = ['test/lifecycle/sign-in.test.ts'];
const scim = [
  'test/scim/refusals.test.ts',
  'test/scim/isolation.test.ts',
  'test/scim/oauth.test.ts',
  'test/directory/directory.test.ts',
];
const saml = ['test/sso/saml/wrapping.test.ts', 'test/sso/saml/sign-in.test.ts'];

export const mutations: readonly Mutation[] = [
  {
    guard: 'row-level security',
    breaks: 'every tenant sees every row',
    file: 'src/database/policies.sql',
    find: `using (tenant_id operator(public.===) (select nullif(current_setting('lockstep.tenant', true), '')::uuid))\n      with check`,
    replace: 'using (true)\n      with check',
    tests: database,
  },
  {
    guard: 'row-level security',
    breaks: 'the comparison of tenants holds for any two',
    file: 'src/database/policies.sql',
    find: 'function = uuid_eq, commutator',
    replace: 'function = uuid_le, commutator',
    tests: database,
  },
  {
    guard: 'row-level security',
    breaks: 'rows are written into another tenant',
    file: 'src/database/policies.sql',
    find: `with check (tenant_id = (select nullif(current_setting('lockstep.tenant', true), '')::uuid))$p$, t);`,
    replace: 'with check (true)$p$, t);',
    tests: database,
  },
  {
    guard: 'row-level security',
    breaks: 'whoever names one proved name sees all that are added',
    file: 'src/database/policies.sql',
    find: `using (proved_at is not null and name = nullif(current_setting('lockstep.name', true), ''))`,
    replace: 'using (true)',
    tests: ['test/database/drift.test.ts', 'test/sso/discover.test.ts'],
  },
  {
    guard: 'token check',
    breaks: 'a wrong secret is as good as the right one',
    file: 'src/directory/directory.sql',
    find: "if not found or not found_token.genuine then return 'unknown'; end if;",
    replace: "if not found then return 'unknown'; end if;",
    tests: scim,
  },
  {
    guard: 'token check',
    breaks: 'a revoked token goes on',
    file: 'src/directory/directory.sql',
    find: "if found_token.revoked then return 'revoked'; end if;",
    replace: '',
    tests: scim,
  },
  {
    guard: 'token check',
    breaks: 'an expired token goes on',
    file: 'src/directory/directory.sql',
    find: "if found_token.expired then return 'expired'; end if;",
    replace: '',
    tests: scim,
  },
  {
    guard: 'token check',
    breaks: 'a paused directory takes everything in',
    file: 'src/directory/directory.sql',
    find: "if found_directory.paused then return 'paused'; end if;",
    replace: '',
    tests: scim,
  },
  {
    guard: 'lane exclusivity',
    breaks: 'two workers converge one tenant at once',
    file: 'src/lifecycle/lifecycle.sql',
    find: 'perform from lane l where l.tenant_id = p_tenant for update;\n  return query select * from lane_next',
    replace: 'return query select * from lane_next',
    tests: [...lane, 'test/lifecycle/interleaving.test.ts'],
  },
  {
    guard: 'deprovision cut',
    breaks: 'leavers wait behind an import of their tenant',
    file: 'src/lifecycle/lifecycle.sql',
    find: 'order by c.class, c.id limit p_limit;',
    replace: 'order by c.class desc, c.id limit p_limit;',
    tests: lane,
  },
  {
    guard: 'deprovision cut',
    breaks: 'a leaver whose change cannot be converged stays',
    file: 'src/lifecycle/lane.ts',
    find: 'if (change.class === 0 && change.user_id !== null) {',
    replace: 'if (change.class === 9 && change.user_id !== null) {',
    tests: [...lane, 'test/session/leaver.test.ts'],
  },
  {
    guard: 'deprovision cut',
    breaks: 'sessions outlive the access',
    file: 'src/lifecycle/lifecycle.sql',
    find: "sessions_ended := sessions_end_of(p_tenant, array(\n      select r.member_id from jsonb_to_recordset(p -> 'left') as r(member_id uuid)), 'access_lost');",
    replace: '',
    tests: ['test/session/leaver.test.ts'],
  },
  {
    guard: 'deprovision cut',
    breaks: 'introspection does not look at the member',
    file: 'src/session/session.sql',
    find: "> moment and m.status = 'active';",
    replace: '> moment;',
    tests: ['test/session/introspection.test.ts', 'test/session/leaver.test.ts'],
  },
  {
    guard: 'deprovision cut',
    breaks: 'an inactive user of one source is active by another of the same provider',
    file: 'src/lifecycle/desired.ts',
    find: 'speaking.filter((s) => !s.active).map((s) => s.provider)',
    replace: 'speaking.filter((s) => !s.active && s.id === "").map((s) => s.provider)',
    tests: [...lane, ...signIn],
  },
  {
    guard: 'deprovision cut',
    breaks: 'whom a directory let go signs in again',
    file: 'src/lifecycle/desired.ts',
    find: 'const owned = directories.length > 0 || facts.letGo;',
    replace: 'const owned = directories.length > 0;',
    tests: signIn,
  },
  {
    guard: 'absence guard',
    breaks: 'any number of removals may be inferred',
    file: 'src/pull/guard.ts',
    find: 'if (absent + passed <= limit) return null;',
    replace: 'if (absent + passed <= Number.POSITIVE_INFINITY + limit) return null;',
    tests: ['test/pull/guard.test.ts'],
  },
  {
    guard: 'absence guard',
    breaks: 'what went before in the day does not count',
    file: 'src/pull/guard.ts',
    find: 'if (absent + passed <= limit) return null;',
    replace: 'if (absent <= limit) return null;',
    tests: ['test/pull/guard.test.ts'],
  },
  {
    guard: 'absence guard',
    breaks: 'the last holder of a privileged role goes',
    file: 'src/pull/guard.ts',
    find: "return absent + passed > limit || absent >= total ? 'privileged' : null;",
    replace: "return absent + passed > limit ? 'privileged' : null;",
    tests: ['test/pull/guard.test.ts'],
  },
  {
    guard: 'no adoption by bare e-mail',
    breaks: 'a second provider’s user takes over a member by its address',
    file: 'src/lifecycle/who.ts',
    find: 'key.provider === user.provider && !contradicts(user, key) && sameKey(user.directoryId, born, key),',
    replace: '!contradicts(user, key) && sameKey(user.directoryId, born, key),',
    tests: [...lane, ...signIn],
  },
  {
    guard: 'no adoption by bare e-mail',
    breaks: 'a domain that nobody proved ties people',
    file: 'src/lifecycle/statements.ts',
    find: "n.use = 'email' and n.proved_at is not null",
    replace: "n.use = 'email'",
    tests: signIn,
  },
  {
    guard: 'no adoption by bare e-mail',
    breaks: 'an address that went to a new person is the old one',
    file: 'src/lifecycle/who.ts',
    find: 'if (key.directoryId === user.directoryId) return true;',
    replace: 'if (key.directoryId === user.directoryId) return false;',
    tests: lane,
  },
  {
    guard: 'operator’s grants',
    breaks: 'a directory takes what an operator gave',
    file: 'src/lifecycle/statements.ts',
    find: "and tenant_id === $1 and origin <> 'operator'`;",
    replace: "and tenant_id === $1 and origin <> 'nobody'`;",
    tests: ['test/lifecycle/owner.test.ts'],
  },
  {
    guard: 'sign-in',
    breaks: 'a refused sign-in writes',
    file: 'src/lifecycle/sign-in.ts',
    find: "const giveUp = async (reason: SignInRefusal, memberId: string | null): Promise<SignedIn<T>> => {\n    await client.query('rollback');",
    replace:
      "const giveUp = async (reason: SignInRefusal, memberId: string | null): Promise<SignedIn<T>> => {\n    await client.query('commit');",
    tests: signIn,
  },
  {
    guard: 'sign-in',
    breaks: 'a callback counts in another browser',
    file: 'src/sso/statements.ts',
    find: 'and connection_id = $3 and browser = $4::text::bit(256)',
    replace: 'and connection_id = $3 and coalesce(browser = $4::text::bit(256), true) is not null',
    tests: ['test/sso/hostile.test.ts', 'test/sso/login.test.ts'],
  },
  {
    guard: 'sign-in',
    breaks: 'a callback counts twice',
    file: 'src/sso/statements.ts',
    find: 'and used_at is null and expires_at > now()',
    replace: 'and expires_at > now()',
    tests: ['test/sso/hostile.test.ts'],
  },
  {
    guard: 'sign-in',
    breaks: 'a signature counts for what it does not sign',
    file: 'src/sso/saml/signature.ts',
    find: "if (reference.attributes.get('URI') !== ",
    replace: "if (reference.attributes.get('URI') === '' && '' !== ",
    tests: saml,
  },
  {
    guard: 'sign-in',
    breaks: 'an assertion counts twice',
    file: 'src/sso/statements.ts',
    find: "now() + $4 * interval '1 second') on conflict do nothing`;",
    replace:
      "now() + $4 * interval '1 second') on conflict (connection_id, digest) do update set expires_at = excluded.expires_at`;",
    tests: ['test/sso/saml/sign-in.test.ts', 'test/sso/logout.test.ts'],
  },
  {
    guard: 'sessions',
    breaks: 'a refresh token is good for ever',
    file: 'src/session/session.sql',
    find: 'if s.revoked_at is not null then return s.revoked_because; end if;',
    replace: '',
    tests: ['test/session/refresh.test.ts', 'test/session/leaver.test.ts'],
  },
  {
    guard: 'rotating the encryption key',
    breaks: 'what somebody writes meanwhile is put back to what it was',
    file: 'src/process/sealed.ts',
    find: ' for no key update',
    replace: '',
    tests: ['test/process/sealed.test.ts'],
  },
  {
    guard: 'rotating the encryption key',
    breaks: 'a process reads only what its own key has sealed',
    file: 'src/credential/seal.ts',
    find: '[sealing, ...others.map(openKey)]',
    replace: '[sealing]',
    tests: ['test/credential/seal.test.ts'],
  },
  {
    guard: 'after a restore',
    breaks: 'who left since the backup is back, with the session of then',
    file: 'src/process/restored.ts',
    find: 'for (let ended = SESSIONS_BATCH; ended === SESSIONS_BATCH; )',
    replace: 'for (let ended = 0; ended === SESSIONS_BATCH; )',
    tests: ['test/process/restore.test.ts'],
  },
  {
    guard: 'after a restore',
    breaks: 'event numbers are used twice',
    file: 'src/process/restored.ts',
    find: '(extract(epoch from clock_timestamp()) * 1000000)::bigint',
    replace: '0',
    tests: ['test/process/restore.test.ts'],
  },
];
