/**
 * The entities: one for each table of schema.sql, in its order. Ordinary reads and writes go through these;
 * the set-based paths (src/directory, src/lifecycle) speak SQL over the same connection pool.
 * test/database/drift.test.ts fails when this file and schema.sql part ways.
 */
import { defineEntity, type InferEntity, p } from '@mikro-orm/core';

const createdAt = () =>
  p
    .datetime()
    .defaultRaw('now()')
    .onCreate(() => new Date());
/** 32 bytes as PostgreSQL `bit(256)` text: 256 characters of 0 and 1. */
const digest = () => p.string().columnType('bit(256)');

export const Tenant = defineEntity({
  name: 'Tenant',
  tableName: 'tenant',
  properties: {
    id: p.uuid().primary(),
    slug: p.text().unique(),
    name: p.text(),
    createdAt: createdAt(),
  },
});

export const Lane = defineEntity({
  name: 'Lane',
  tableName: 'lane',
  properties: {
    tenantId: p.uuid().primary(),
    eventSequence: p.bigint('string').default('0'),
    restoredAt: p.datetime().nullable(),
  },
});

export const Comparison = defineEntity({
  name: 'Comparison',
  tableName: 'comparison',
  properties: {
    tenantId: p.uuid().primary(),
    comparedAt: p.datetime().nullable(),
    claimedUntil: p.datetime().nullable(),
  },
});

export const Domain = defineEntity({
  name: 'Domain',
  tableName: 'domain',
  properties: {
    tenantId: p.uuid().primary(),
    use: p.text().$type<'email' | 'host'>().primary(),
    name: p.text().primary(),
    challenge: p.text(),
    provedAt: p.datetime().nullable(),
    checkedAt: p.datetime().nullable(),
    failingSince: p.datetime().nullable(),
    createdAt: createdAt(),
  },
});

export const Directory = defineEntity({
  name: 'Directory',
  tableName: 'directory',
  properties: {
    id: p.uuid().primary(),
    tenantId: p.uuid(),
    kind: p.text(),
    name: p.text(),
    provider: p.text(),
    idp: p.text().$type<'okta' | 'entra' | 'generic'>().nullable(),
    idpDetected: p.text().$type<'okta' | 'entra' | 'generic'>().nullable(),
    schemas: p
      .json<Record<string, unknown>>()
      .columnType('jsonb')
      .default('{"extensions": [], "required": []}'),
    settingsVersion: p.integer().default(1),
    connector: p.text().nullable(),
    config: p.json<Record<string, unknown>>().columnType('jsonb').nullable(),
    secrets: p.blob().nullable(),
    guard: p.json<Record<string, unknown>>().columnType('jsonb').default('{}'),
    pausedAt: p.datetime().nullable(),
    pauseReason: p.text().nullable(),
    restoredAt: p.datetime().nullable(),
    createdAt: createdAt(),
  },
});

export const DirectoryClient = defineEntity({
  name: 'DirectoryClient',
  tableName: 'directory_client',
  properties: {
    id: p.uuid().primary(),
    tenantId: p.uuid(),
    directoryId: p.uuid(),
    digest: digest(),
    expiresAt: p.datetime().nullable(),
    revokedAt: p.datetime().nullable(),
    lastUsedAt: p.datetime().nullable(),
    createdAt: createdAt(),
  },
});

export const DirectoryToken = defineEntity({
  name: 'DirectoryToken',
  tableName: 'directory_token',
  properties: {
    id: p.uuid().primary(),
    tenantId: p.uuid(),
    directoryId: p.uuid(),
    clientId: p.uuid().nullable(),
    digest: digest(),
    expiresAt: p.datetime().nullable(),
    revokedAt: p.datetime().nullable(),
    lastUsedAt: p.datetime().nullable(),
    createdAt: createdAt(),
  },
});

export const ApiKey = defineEntity({
  name: 'ApiKey',
  tableName: 'api_key',
  properties: {
    id: p.uuid().primary(),
    tenantId: p.uuid().nullable(),
    digest: digest(),
    scopes: p.array().columnType('text[]'),
    expiresAt: p.datetime().nullable(),
    revokedAt: p.datetime().nullable(),
    createdAt: createdAt(),
  },
});

export const Connection = defineEntity({
  name: 'Connection',
  tableName: 'connection',
  properties: {
    id: p.uuid().primary(),
    tenantId: p.uuid(),
    kind: p.text().$type<'oidc' | 'saml' | 'posted'>(),
    name: p.text(),
    provider: p.text(),
    issuer: p.text().nullable(),
    config: p.json<Record<string, unknown>>().columnType('jsonb').default('{}'),
    secrets: p.blob().nullable(),
    defaultRole: p.text().nullable(),
    pausedAt: p.datetime().nullable(),
    createdAt: createdAt(),
  },
});

export const SignInPolicyRow = defineEntity({
  name: 'SignInPolicyRow',
  tableName: 'sign_in_policy',
  properties: {
    tenantId: p.uuid().primary(),
    membership: p.text().$type<'jit' | 'directory'>(),
    defaultRole: p.text().nullable(),
    neverRoles: p.array(),
    allowedDomains: p.array().nullable(),
    requiredConnection: p.uuid().nullable(),
    sessionSeconds: p.integer(),
    idleSeconds: p.integer(),
    switching: p.boolean(),
    updatedAt: createdAt(),
  },
});

export const ClaimMapping = defineEntity({
  name: 'ClaimMapping',
  tableName: 'claim_mapping',
  properties: {
    id: p.uuid().primary(),
    tenantId: p.uuid(),
    connectionId: p.uuid().nullable(),
    claim: p.text(),
    value: p.text(),
    role: p.text(),
    createdAt: createdAt(),
  },
});

export const SignInAttempt = defineEntity({
  name: 'SignInAttempt',
  tableName: 'sign_in_attempt',
  properties: {
    id: p.uuid().primary(),
    tenantId: p.uuid(),
    connectionId: p.uuid(),
    mode: p.text().$type<'sign-in' | 'test'>(),
    digest: digest(),
    browser: digest(),
    secrets: p.blob(),
    productId: p.uuid().nullable(),
    returnTo: p.text().nullable(),
    createdAt: createdAt(),
    expiresAt: p.datetime(),
    usedAt: p.datetime().nullable(),
  },
});

export const SaidOnce = defineEntity({
  name: 'SaidOnce',
  tableName: 'said_once',
  properties: {
    connectionId: p.uuid().primary(),
    tenantId: p.uuid(),
    digest: digest().primary(),
    expiresAt: p.datetime(),
  },
});

export const SigningKey = defineEntity({
  name: 'SigningKey',
  tableName: 'signing_key',
  properties: {
    id: p.uuid().primary(),
    publicJwk: p.json<Record<string, unknown>>().columnType('jsonb'),
    secret: p.blob(),
    signsFrom: p.datetime(),
    signsUntil: p.datetime().nullable(),
    publishedUntil: p.datetime().nullable(),
    createdAt: createdAt(),
  },
});

export const Deployment = defineEntity({
  name: 'Deployment',
  tableName: 'deployment',
  properties: {
    id: p.boolean().primary().default(true),
    digestKey: p.blob(),
    cluster: p.text().nullable(),
    timeline: p.integer().nullable(),
    restoringSince: p.datetime().nullable(),
    createdAt: createdAt(),
  },
});

export const Product = defineEntity({
  name: 'Product',
  tableName: 'product',
  properties: {
    id: p.uuid().primary(),
    name: p.text().unique(),
    returnTo: p.array(),
    logoutUrl: p.text().nullable(),
    createdAt: createdAt(),
  },
});

export const LoggedScimRequest = defineEntity({
  name: 'LoggedScimRequest',
  tableName: 'scim_request',
  properties: {
    id: p.uuid().primary(),
    tenantId: p.uuid(),
    directoryId: p.uuid().primary(),
    tokenId: p.uuid().nullable(),
    at: p.datetime(),
    method: p.text(),
    path: p.text(),
    status: p.smallint(),
    scimType: p.text().nullable(),
    reason: p.text().nullable(),
    detail: p.text().nullable(),
    durationMs: p.float().columnType('real'),
    requestBody: p.text().nullable(),
    requestCut: p.boolean().default(false),
    responseBody: p.text().nullable(),
    responseCut: p.boolean().default(false),
    changes: p.array().columnType('bigint[]').nullable(),
    changeCount: p.integer().default(0),
    droppedBefore: p.integer().default(0),
  },
});

export const PullState = defineEntity({
  name: 'PullState',
  tableName: 'pull_state',
  properties: {
    directoryId: p.uuid().primary(),
    tenantId: p.uuid(),
    runId: p.uuid().nullable(),
    workerId: p.uuid().nullable(),
    leaseUntil: p.datetime().nullable(),
    pages: p.integer().default(0),
    rows: p.bigint('number').default(0),
    calls: p.integer().default(0),
    watermarkAt: p.datetime().nullable(),
    watermark: p.json<unknown>().columnType('jsonb').nullable(),
    certificate: p.json<unknown>().columnType('jsonb').nullable(),
    certifiedAt: p.datetime().nullable(),
    nextIncrementalAt: p.datetime().defaultRaw('now()'),
    nextFullAt: p.datetime().defaultRaw('now()'),
    failures: p.integer().default(0),
    retryAt: p.datetime().nullable(),
    error: p.text().nullable(),
    quarantinedAt: p.datetime().nullable(),
    quarantineReason: p.text().nullable(),
    hintSecret: p.blob().nullable(),
    hintedAt: p.datetime().nullable(),
    subscription: p.json<unknown>().columnType('jsonb').nullable(),
    subscriptionExpiresAt: p.datetime().nullable(),
  },
});

export const PullRun = defineEntity({
  name: 'PullRun',
  tableName: 'pull_run',
  properties: {
    id: p.uuid().primary(),
    tenantId: p.uuid(),
    directoryId: p.uuid(),
    mode: p.text().$type<'incremental' | 'full' | 'reconcile'>(),
    state: p.text().$type<'waiting' | 'running' | 'done' | 'failed'>(),
    outcome: p.text().nullable(),
    requestedBy: p.text(),
    createdAt: createdAt(),
    startedAt: p.datetime().nullable(),
    finishedAt: p.datetime().nullable(),
    pages: p.integer().default(0),
    rows: p.bigint('number').default(0),
    calls: p.integer().default(0),
    expectedRows: p.bigint('number').nullable(),
    figures: p.json<Record<string, unknown>>().columnType('jsonb').default('{}'),
    inferred: p.json<Record<string, unknown>>().columnType('jsonb').default('{}'),
    error: p.text().nullable(),
  },
});

export const StagedUser = defineEntity({
  name: 'StagedUser',
  tableName: 'staged_user',
  properties: {
    runId: p.uuid().primary(),
    tenantId: p.uuid(),
    id: p.uuid().primary(),
    status: p.text().$type<'active' | 'suspended' | 'removed'>(),
    facts: p.json<Record<string, unknown>>().columnType('jsonb').nullable(),
  },
});

export const StagedGroup = defineEntity({
  name: 'StagedGroup',
  tableName: 'staged_group',
  properties: {
    runId: p.uuid().primary(),
    tenantId: p.uuid(),
    id: p.uuid().primary(),
    facts: p.json<Record<string, unknown>>().columnType('jsonb').nullable(),
  },
});

export const StagedMember = defineEntity({
  name: 'StagedMember',
  tableName: 'staged_member',
  properties: {
    runId: p.uuid().primary(),
    tenantId: p.uuid(),
    groupId: p.uuid().primary(),
    memberId: p.uuid().primary(),
    memberKind: p.text().$type<'user' | 'group'>(),
    missing: p.boolean().default(false),
  },
});

export const StagedAbsence = defineEntity({
  name: 'StagedAbsence',
  tableName: 'staged_absence',
  properties: {
    runId: p.uuid().primary(),
    tenantId: p.uuid(),
    kind: p.text().$type<'user' | 'group' | 'membership'>().primary(),
    subjectId: p.uuid().primary(),
    groupId: p.uuid().primary(),
    verdict: p.text().nullable(),
  },
});

export const HeldChange = defineEntity({
  name: 'HeldChange',
  tableName: 'held_change',
  properties: {
    id: p.uuid().primary(),
    tenantId: p.uuid(),
    directoryId: p.uuid(),
    runId: p.uuid(),
    kind: p.text().$type<'user' | 'group' | 'membership'>(),
    subjectId: p.uuid(),
    groupId: p.uuid().nullable(),
    name: p.text(),
    reason: p.text().$type<'percent' | 'count' | 'cumulative' | 'privileged'>(),
    state: p.text().$type<'held' | 'approved' | 'rejected'>().default('held'),
    since: p.datetime().defaultRaw('now()'),
    decidedAt: p.datetime().nullable(),
    decidedBy: p.text().nullable(),
  },
});

export const MirrorUser = defineEntity({
  name: 'MirrorUser',
  tableName: 'mirror_user',
  properties: {
    id: p.uuid().primary(),
    tenantId: p.uuid(),
    directoryId: p.uuid(),
    userName: p.text(),
    userNameKey: p.text(),
    externalId: p.text().nullable(),
    displayName: p.text().nullable(),
    displayNameKey: p.text().nullable(),
    active: p.boolean(),
    email: p.text().nullable(),
    emailKey: p.text().nullable(),
    doc: p.json<Record<string, unknown>>().columnType('jsonb'),
    sourceDigest: p.uuid().nullable(),
    userNameTaken: p.boolean().default(false),
    version: p.integer().default(1),
    firstSeen: p.bigint('string').defaultRaw("nextval('mirror_order')"),
    claimed: p.bigint('string'),
    createdAt: createdAt(),
    updatedAt: createdAt(),
  },
});

export const MirrorEmail = defineEntity({
  name: 'MirrorEmail',
  tableName: 'mirror_email',
  properties: {
    tenantId: p.uuid(),
    directoryId: p.uuid(),
    userId: p.uuid().primary(),
    emailKey: p.text().primary(),
  },
});

export const MirrorFormerKey = defineEntity({
  name: 'MirrorFormerKey',
  tableName: 'mirror_former_key',
  properties: {
    tenantId: p.uuid(),
    userId: p.uuid().primary(),
    userNameKey: p.text(),
    emailKey: p.text().nullable(),
    since: p.bigint('string').primary(),
    until: p.bigint('string'),
  },
});

export const MirrorGone = defineEntity({
  name: 'MirrorGone',
  tableName: 'mirror_gone',
  properties: {
    userId: p.uuid().primary(),
    tenantId: p.uuid(),
    directoryId: p.uuid(),
    provider: p.text(),
    pulled: p.boolean(),
    login: p.boolean(),
    userName: p.text(),
    userNameKey: p.text(),
    externalId: p.text().nullable(),
    displayName: p.text().nullable(),
    email: p.text().nullable(),
    emailKey: p.text().nullable(),
    doc: p.json<Record<string, unknown>>().columnType('jsonb'),
    firstSeen: p.bigint('string'),
    claimed: p.bigint('string'),
    gone: p.bigint('string').defaultRaw("nextval('mirror_order')"),
    lastChange: p.bigint('string'),
  },
});

export const MirrorGroup = defineEntity({
  name: 'MirrorGroup',
  tableName: 'mirror_group',
  properties: {
    id: p.uuid().primary(),
    tenantId: p.uuid(),
    directoryId: p.uuid(),
    displayName: p.text(),
    displayNameKey: p.text(),
    externalId: p.text().nullable(),
    doc: p.json<Record<string, unknown>>().columnType('jsonb'),
    sourceDigest: p.uuid().nullable(),
    version: p.integer().default(1),
    createdAt: createdAt(),
    updatedAt: createdAt(),
  },
});

export const MirrorGroupMember = defineEntity({
  name: 'MirrorGroupMember',
  tableName: 'mirror_group_member',
  properties: {
    tenantId: p.uuid(),
    directoryId: p.uuid(),
    groupId: p.uuid().primary(),
    memberId: p.uuid().primary(),
    memberKind: p.text().$type<'user' | 'group'>(),
  },
});

export type ChangeState = 'pending' | 'spread' | 'applied' | 'parked';
/** A directory's kind (`scim`, or a connector's), or what else moves members. */
export type ChangeSource = 'scim' | 'okta' | 'entra' | 'login' | 'mapping' | 'operator' | (string & {});

export const Change = defineEntity({
  name: 'Change',
  tableName: 'change',
  properties: {
    id: p.bigint('string').primary(),
    tenantId: p.uuid(),
    directoryId: p.uuid().nullable(),
    source: p.text().$type<ChangeSource>(),
    class: p.smallint(),
    kind: p.text().$type<'user' | 'group' | 'mapping' | 'login'>(),
    userId: p.uuid().nullable(),
    groupId: p.uuid().nullable(),
    parentId: p.bigint('string').nullable(),
    spread: p.array().columnType('text[]').nullable(),
    spreadAfter: p.uuid().nullable(),
    sourceAt: p.datetime(),
    committedAt: p.datetime().defaultRaw('clock_timestamp()'),
    state: p.text().$type<ChangeState>().default('pending'),
    attempts: p.integer().default(0),
    retryAt: p.datetime().nullable(),
    error: p.text().nullable(),
    appliedAt: p.datetime().nullable(),
    trace: p
      .blob()
      .nullable()
      .defaultRaw("decode(nullif(current_setting('lockstep.trace', true), ''), 'hex')"),
  },
});

export type MemberStatus = 'active' | 'suspended' | 'removed';

export const Member = defineEntity({
  name: 'Member',
  tableName: 'member',
  properties: {
    id: p.uuid().primary(),
    tenantId: p.uuid(),
    email: p.text().nullable(),
    emailKey: p.text().nullable(),
    displayName: p.text().nullable(),
    profile: p.json<Record<string, unknown>>().columnType('jsonb').default('{}'),
    status: p.text().$type<MemberStatus>(),
    operatorStatus: p.text().$type<'suspended' | 'removed'>().nullable(),
    createdAt: createdAt(),
    updatedAt: createdAt(),
  },
});

export const Link = defineEntity({
  name: 'Link',
  tableName: 'link',
  properties: {
    id: p.uuid().primary(),
    tenantId: p.uuid(),
    memberId: p.uuid(),
    directoryId: p.uuid(),
    userId: p.uuid(),
    subject: p.text().nullable(),
    provider: p.text(),
    externalId: p.text().nullable(),
    userNameKey: p.text().nullable(),
    emailKey: p.text().nullable(),
    createdAt: createdAt(),
  },
});

export const RoleMapping = defineEntity({
  name: 'RoleMapping',
  tableName: 'role_mapping',
  properties: {
    id: p.uuid().primary(),
    tenantId: p.uuid(),
    directoryId: p.uuid().nullable(),
    groupName: p.text(),
    groupKey: p.text(),
    role: p.text(),
    priority: p.integer().nullable(),
    createdAt: createdAt(),
  },
});

export const AttributeMapping = defineEntity({
  name: 'AttributeMapping',
  tableName: 'attribute_mapping',
  properties: {
    id: p.uuid().primary(),
    tenantId: p.uuid(),
    directoryId: p.uuid(),
    attribute: p.text(),
    path: p.json<Record<string, unknown>>().columnType('jsonb'),
    field: p.text(),
  },
});

export const RoleGrant = defineEntity({
  name: 'RoleGrant',
  tableName: 'role_grant',
  properties: {
    id: p.uuid().primary(),
    tenantId: p.uuid(),
    memberId: p.uuid(),
    role: p.text(),
    origin: p.text().$type<'mapping' | 'login' | 'operator'>(),
    mappingId: p.uuid().nullable(),
    groupId: p.uuid().nullable(),
    because: p.text(),
    createdAt: createdAt(),
  },
});

export const Session = defineEntity({
  name: 'Session',
  tableName: 'session',
  properties: {
    id: p.uuid().primary(),
    tenantId: p.uuid(),
    memberId: p.uuid(),
    connectionId: p.uuid(),
    userId: p.uuid(),
    idpSession: p.text().nullable(),
    productId: p.uuid().nullable(),
    authenticatedAt: p.datetime(),
    refreshedAt: createdAt(),
    idleSeconds: p.integer(),
    expiresAt: p.datetime(),
    revokedAt: p.datetime().nullable(),
    revokedBecause: p.text().nullable(),
    createdAt: createdAt(),
  },
});

export const RefreshToken = defineEntity({
  name: 'RefreshToken',
  tableName: 'refresh_token',
  properties: {
    id: p.uuid().primary(),
    tenantId: p.uuid(),
    sessionId: p.uuid(),
    digest: digest(),
    usedAt: p.datetime().nullable(),
    createdAt: createdAt(),
  },
});

export const SignInCode = defineEntity({
  name: 'SignInCode',
  tableName: 'sign_in_code',
  properties: {
    id: p.uuid().primary(),
    tenantId: p.uuid(),
    sessionId: p.uuid(),
    digest: digest(),
    expiresAt: p.datetime(),
    usedAt: p.datetime().nullable(),
  },
});

export const SessionEnd = defineEntity({
  name: 'SessionEnd',
  tableName: 'session_end',
  properties: {
    id: p.uuid().primary(),
    tenantId: p.uuid(),
    sessionId: p.uuid(),
    memberId: p.uuid(),
    productId: p.uuid(),
    because: p.text(),
    createdAt: p.datetime().defaultRaw('clock_timestamp()'),
    attempts: p.integer().default(0),
    retryAt: createdAt(),
    error: p.text().nullable(),
    toldAt: p.datetime().nullable(),
  },
});

export type MismatchKind =
  | 'active_after_deprovision'
  | 'wrong_role'
  | 'extra'
  | 'missing'
  | 'stale_attribute'
  | 'disputed'
  | 'unknown';

/** Where the two part: source and mirror, or mirror and member. */
export type MismatchSide = 'source' | 'member';

export const Mismatch = defineEntity({
  name: 'Mismatch',
  tableName: 'mismatch',
  properties: {
    tenantId: p.uuid().primary(),
    side: p.text().$type<MismatchSide>().default('member').primary(),
    subjectKind: p.text().$type<'user' | 'group' | 'member'>().primary(),
    subjectId: p.uuid().primary(),
    kind: p.text().$type<MismatchKind>(),
    state: p.text().$type<'suspected' | 'confirmed'>(),
    detail: p.text(),
    directoryId: p.uuid().nullable(),
    rivalId: p.uuid().nullable(),
    reconciliationId: p.uuid().nullable(),
    since: createdAt(),
    seenAt: createdAt(),
    seen: p.integer().default(1),
  },
});

export const DirectoryReconciled = defineEntity({
  name: 'DirectoryReconciled',
  tableName: 'directory_reconciled',
  properties: {
    directoryId: p.uuid().primary(),
    tenantId: p.uuid(),
    reconciledAt: p.datetime(),
  },
});

export type ReconciliationMode = 'plan' | 'detect' | 'repair';
export type ReconciliationState =
  | 'waiting'
  | 'running'
  | 'planned'
  | 'approved'
  | 'applying'
  | 'held'
  | 'done'
  | 'refused'
  | 'failed';

export const Reconciliation = defineEntity({
  name: 'Reconciliation',
  tableName: 'reconciliation',
  properties: {
    id: p.uuid().primary(),
    tenantId: p.uuid(),
    directoryId: p.uuid(),
    mode: p.text().$type<ReconciliationMode>(),
    state: p.text().$type<ReconciliationState>(),
    requestedBy: p.text(),
    approvedBy: p.text().nullable(),
    createdAt: createdAt(),
    startedAt: p.datetime().nullable(),
    finishedAt: p.datetime().nullable(),
    workerId: p.uuid().nullable(),
    leaseUntil: p.datetime().nullable(),
    complete: p.boolean().nullable(),
    rows: p.bigint('number').default(0),
    expectedRows: p.bigint('number').nullable(),
    hash: p.text().nullable(),
    policy: p.text().nullable(),
    counts: p.json<Record<string, unknown>>().columnType('jsonb').default('{}'),
    error: p.text().nullable(),
  },
});

export type ItemAction =
  | 'user.create'
  | 'user.update'
  | 'user.remove'
  | 'group.create'
  | 'group.update'
  | 'group.remove'
  | 'membership.add'
  | 'membership.remove'
  | 'member.converge';

export const ReconciliationItem = defineEntity({
  name: 'ReconciliationItem',
  tableName: 'reconciliation_item',
  properties: {
    reconciliationId: p.uuid().primary(),
    tenantId: p.uuid(),
    side: p.text().$type<MismatchSide>().primary(),
    action: p.text().$type<ItemAction>().primary(),
    subjectKind: p.text().$type<'user' | 'group' | 'member'>().primary(),
    subjectId: p.uuid().primary(),
    groupId: p.uuid().primary(),
    kind: p.text().$type<MismatchKind>(),
    name: p.text().default(''),
    before: p.json<Record<string, unknown>>().columnType('jsonb').nullable(),
    after: p.json<Record<string, unknown>>().columnType('jsonb').nullable(),
    fact: p.text().default(''),
    inferred: p.boolean().default(false),
    bearing: p.boolean().default(false),
    memberKind: p.text().$type<'user' | 'group'>().nullable(),
    version: p.integer().nullable(),
    sourceId: p.text().nullable(),
    row: p.json<Record<string, unknown>>().columnType('jsonb').nullable(),
    state: p.text().$type<'candidate' | 'planned' | 'applied' | 'held' | 'skipped'>().default('planned'),
    note: p.text().nullable(),
  },
});

export const AuditEntry = defineEntity({
  name: 'AuditEntry',
  tableName: 'audit_entry',
  properties: {
    id: p.uuid().primary(),
    tenantId: p.uuid(),
    at: p.datetime().defaultRaw('clock_timestamp()'),
    actor: p.text(),
    action: p.text(),
    memberId: p.uuid().nullable(),
    changeId: p.bigint('string').nullable(),
    detail: p.json<Record<string, unknown>>().columnType('jsonb').default('{}'),
  },
});

export const Event = defineEntity({
  name: 'Event',
  tableName: 'event',
  properties: {
    tenantId: p.uuid().primary(),
    sequence: p.bigint('string').primary(),
    type: p.text(),
    memberId: p.uuid().nullable(),
    at: p.datetime().defaultRaw('clock_timestamp()'),
    payload: p.json<Record<string, unknown>>().columnType('jsonb').default('{}'),
  },
});

export const entities = [
  Tenant,
  Lane,
  Comparison,
  Domain,
  Directory,
  DirectoryClient,
  DirectoryToken,
  ApiKey,
  Connection,
  SignInPolicyRow,
  ClaimMapping,
  SignInAttempt,
  SaidOnce,
  SigningKey,
  Deployment,
  Product,
  LoggedScimRequest,
  PullState,
  PullRun,
  StagedUser,
  StagedGroup,
  StagedMember,
  StagedAbsence,
  HeldChange,
  MirrorUser,
  MirrorEmail,
  MirrorFormerKey,
  MirrorGone,
  MirrorGroup,
  MirrorGroupMember,
  Change,
  Member,
  Link,
  RoleMapping,
  AttributeMapping,
  RoleGrant,
  Session,
  RefreshToken,
  SignInCode,
  SessionEnd,
  Mismatch,
  DirectoryReconciled,
  Reconciliation,
  ReconciliationItem,
  AuditEntry,
  Event,
] as const;

export type MemberRow = InferEntity<typeof Member>;
