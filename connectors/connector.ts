/**
 * What Lockstep needs of a directory that it pulls. A connector is one folder, `connectors/<kind>/connector.ts`, which
 * exports `kind: ConnectorKind`. It reads its provider and says what it saw; it knows nothing of tenants, members,
 * queues or metrics, writes nothing, and loads its SDK only when a connection is opened.
 *
 * Streams are pulled: nothing is fetched before the last page was taken, so memory does not grow with the directory. A
 * stream that throws has certified nothing: its reader must not infer a removal from it and must not move a watermark.
 */
import type { z } from 'zod';

/** A person as the source has them. Suspended: may come back (SUSPENDED, disabled, soft-deleted). */
export type SourceStatus = 'active' | 'suspended' | 'removed';

/**
 * Attributes in the terms of SCIM (RFC 7643 §4.1, §4.3), so that attribute mappings and filters serve pulled and pushed
 * directories alike: `userName`, `name`, `displayName`, `emails`, `phoneNumbers`, `title`, the enterprise extension…
 * Without `id`, `externalId`, `active`, `meta`, `groups` and `schemas`.
 */
export type SourceAttributes = Record<string, unknown>;

export interface SourceUser {
  /** The source's own stable id. */
  id: string;
  status: SourceStatus;
  attributes: SourceAttributes & { userName: string };
  /** When the source last changed this user or their status; null when it does not tell. */
  changedAt: Date | null;
}

export interface SourceGroup {
  id: string;
  displayName: string;
  changedAt: Date | null;
}

export interface MemberRef {
  id: string;
  kind: 'user' | 'group';
}

/** Direct members of one group, all of them or some. */
export interface SourceMembers {
  groupId: string;
  members: MemberRef[];
}

/**
 * One page of a snapshot. Users, groups and memberships come in any order, a group's members over any pages. Who comes
 * twice, for the source moved meanwhile, is as the later page says.
 */
export interface SnapshotPage {
  users?: SourceUser[];
  groups?: SourceGroup[];
  memberships?: SourceMembers[];
}

/** One chain of pages, followed from its first to the page that said that it was the last. */
export interface Chain {
  /** For example `users` or `groups/00g1/users`. */
  collection: string;
  pages: number;
  rows: number;
}

/** Says that a snapshot was whole: only with it may absence mean removal. It exists when every chain came to its end. */
export interface Certificate {
  /** Before the first request, by our clock. */
  startedAt: Date;
  counts: { users: number; groups: number; memberships: number };
  /** The collections that have one chain each, and the sum of those that are many (a group's members). */
  chains: Chain[];
  /** What the credentials were allowed to read; a scope that is gone later explains rows that are. */
  scopes: string[];
  /** Attributes that came at least once; one that vanishes altogether is a permission lost, not thousands of edits. */
  attributes: string[];
  /** SHA-256 of the configuration that was read with, secrets apart. */
  configuration: string;
  /** From here incremental pulls go on; nothing between the snapshot and it is missed. */
  watermark: Watermark;
}

export interface Watermark {
  /** Every source change before this time has been told; our clock or the source's, whichever is the earlier. */
  at: Date;
  /** The connector's own: cursors, delta links. JSON without secrets. */
  state: unknown;
}

/** What moved since a watermark. Replays, duplicates and any order are normal; the reader only converges. */
export type SourceChange =
  | {
      kind: 'user';
      id: string;
      /** Absent: unchanged. */
      status?: SourceStatus;
      /** A JSON merge patch (RFC 7396) of the attributes; with `whole` it is all of them. */
      attributes: SourceAttributes;
      whole: boolean;
      changedAt: Date | null;
    }
  | { kind: 'group'; id: string; displayName?: string; changedAt: Date | null }
  | { kind: 'group_removed'; id: string; changedAt: Date | null }
  | {
      kind: 'members';
      groupId: string;
      add: MemberRef[];
      /** Named by the source: explicit, so no guard holds them. */
      remove: string[];
      /** True: `add` is the complete list, and who is not in it is inferred to have left. */
      whole: boolean;
      changedAt: Date | null;
    };

/** The source's answer for one id, asked just now. */
export interface Fetched {
  id: string;
  /** Null: the source does not know it. */
  user: SourceUser | null;
  /** Groups that the user is in directly; null when that was not asked. */
  groupIds: string[] | null;
}

export interface Connection {
  snapshot(): AsyncGenerator<SnapshotPage, Certificate, void>;
  /** @throws ConnectorError of kind `resync` when the watermark is too old: take a snapshot instead */
  changes(since: Watermark): AsyncGenerator<SourceChange[], Watermark, void>;
  get(ids: readonly string[], options?: { groups?: boolean }): AsyncGenerator<Fetched[], void, void>;
  /** Asks for wake-up hints at `url`; absent where the provider is set up by hand. Renewed when `expiresAt` nears. */
  subscribe?(request: {
    url: string;
    /** Shown again by each genuine hint. */
    secret: string;
    current: Subscription | null;
  }): Promise<Subscription>;
  close(): Promise<void>;
}

export interface Subscription {
  expiresAt: Date;
  /** The connector's own; JSON without secrets. */
  state: unknown;
}

/** A request that came to the directory's hint address. */
export interface HintRequest {
  method: string;
  query: Record<string, string>;
  /** Lower-case names. */
  headers: Record<string, string>;
  body: unknown;
}

/** What to answer; `wake`: something moved, so pull now instead of at the next turn. A hint never carries facts. */
export interface HintAnswer {
  status: number;
  contentType?: string;
  body?: string;
  wake: boolean;
  /** The provider wants the subscription renewed now, whatever its `expiresAt` says. */
  renew?: boolean;
}

export interface ConnectOptions<C> {
  config: C;
  /** Ends every request under way. */
  signal: AbortSignal;
  /** Told after each request to the source, retries included; 0 where no answer came. */
  onCall?: (status: number) => void;
  /** Told while a rate limit is waited for, in milliseconds. */
  onWait?: (ms: number) => void;
}

export interface ConnectorKind<C = unknown> {
  /** As in `directory.kind`. */
  kind: string;
  /** What an operator gives; `secrets` are the names of the fields that are kept sealed and never shown. */
  config: z.ZodType<C>;
  secrets: readonly string[];
  connect(options: ConnectOptions<C>): Promise<Connection>;
  /** @param secret of the directory's hint address */
  hint?(request: HintRequest, secret: string): HintAnswer;
}

export type ConnectorErrorKind =
  /** The credentials are wrong or may not read this: a person must act. */
  | 'denied'
  /** No answer, 5xx, or a limit that did not end: later. */
  | 'unavailable'
  /** The source contradicts itself or its contract: pages that loop, a link to a foreign host, a body cut short. */
  | 'malformed'
  /** The watermark is no longer good. */
  | 'resync';

/** What went wrong, for the customer's administrator: what was asked, what came, what to do. Never with a secret. */
export class ConnectorError extends Error {
  readonly kind: ConnectorErrorKind;
  readonly status: number | undefined;

  constructor(kind: ConnectorErrorKind, message: string, options?: { status?: number; cause?: unknown }) {
    super(message, options?.cause === undefined ? undefined : { cause: options.cause });
    this.kind = kind;
    this.status = options?.status;
  }
}
