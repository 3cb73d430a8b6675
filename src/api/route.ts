/**
 * One route of /v1 as data: what it takes, what it answers, which scope opens it and what it does. The router and the
 * OpenAPI document are both made from these, so neither can know a route that the other does not.
 */
import type pino from 'pino';
import type { z } from 'zod';
import type { Connectors } from '../../connectors/connectors.ts';
import type { Credentials } from '../credential/credential.ts';
import type { Database } from '../database/database.ts';
import type { Lifecycle } from '../lifecycle/lifecycle.ts';
import type { LaneQueue } from '../queue/queue.ts';
import type { Reconciler } from '../reconcile/reconcile.ts';
import type { Sessions } from '../session/session.ts';
import type { TxtResolver } from '../tenant/domain.ts';
import type { Principal, Scope } from '../tenant/scope.ts';
import type { TenantFacts } from '../tenant/tenant.ts';
import type { Problem } from './problem.ts';

export interface ApiOptions {
  db: Database;
  credentials: Credentials;
  lifecycle: Pick<
    Lifecycle,
    | 'planMappings'
    | 'replaceMappings'
    | 'planAttributeMappings'
    | 'replaceAttributeMappings'
    | 'replay'
    | 'signIn'
    | 'setStatus'
    | 'explainAttributes'
    | 'signInPolicy'
    | 'replaceSignInPolicy'
    | 'claimMappings'
    | 'planClaimMappings'
    | 'replaceClaimMappings'
  >;
  sessions: Sessions;
  queue: Pick<LaneQueue, 'wake'>;
  /** Where the records that prove domains are looked up. */
  resolver: TxtResolver;
  /** Which kinds of directories can be pulled. */
  connectors: Connectors;
  reconciler: Pick<Reconciler, 'request' | 'find' | 'list' | 'items' | 'approve'>;
  /** Wakes directories to be pulled or reconciled. */
  pullQueue: Pick<LaneQueue, 'wake'>;
  /** Where clients reach Lockstep, for example `https://lockstep.example.com`; default: what the request's Host says. */
  publicUrl?: string | undefined;
  /** Believe X-Forwarded-Proto, -Host, -Port and -Prefix; only behind a proxy that sets them. */
  trustProxy: boolean;
  log: Pick<pino.Logger, 'error'>;
}

export type Method = 'get' | 'post' | 'put' | 'patch' | 'delete';

export interface Reply {
  kind: 'reply';
  status: number;
  /** Absent for 204. */
  body?: unknown;
}

export function reply(status: number, body?: unknown): Reply {
  return body === undefined ? { kind: 'reply', status } : { kind: 'reply', status, body };
}

/** Names of the `{parts}` of a path. */
type ParamNames<Path extends string> = Path extends `${string}{${infer Name}}${infer Rest}`
  ? Name | ParamNames<Rest>
  : never;

export interface Context<Path extends string, Query, Body> {
  principal: Principal;
  /** For the audit trail. */
  actor: string;
  /** Resolved from `{tenant}` and visible to the key; undefined for a path without one. */
  tenant: 'tenant' extends ParamNames<Path> ? TenantFacts : undefined;
  /** Well-formed: ids are UUIDs in lower case, a change's is a number that fits a bigint. */
  params: Record<Exclude<ParamNames<Path>, 'tenant'>, string>;
  query: Query;
  body: Body;
  /** The bearer key as it was presented. */
  presented: string;
  /** The address that the request comes from. */
  source: string;
  /** Scheme and authority under which the caller reaches us; no slash at the end. */
  baseUrl: string;
}

export interface Answer {
  description: string;
  /** Absent for an answer without a body. */
  schema?: z.ZodType;
}

export interface Spec<Path extends string, Query extends z.ZodObject, Body extends z.ZodType> {
  method: Method;
  /** Below /v1, with parts in braces as OpenAPI writes them. */
  path: Path;
  /** OpenAPI's operationId. */
  id: string;
  summary: string;
  description?: string;
  /** The scope that a narrower key needs; null for a route that needs no key at all. */
  scope: Scope | null;
  /** The handler checks key and scope, in the statement that answers: for a route whose speed is the product's. */
  checksKey?: boolean;
  /** Unknown parameters are refused, with or without this. */
  query?: Query;
  body?: Body;
  answers: Record<number, Answer>;
  handle(context: Context<Path, z.output<Query>, z.output<Body>>): Promise<Reply | Problem>;
}

/** A route whose types are settled: the router has validated what `handle` takes. */
export interface Route extends Omit<Spec<string, z.ZodObject, z.ZodType>, 'handle'> {
  handle(context: UntypedContext): Promise<Reply | Problem>;
}

export interface UntypedContext {
  principal: Principal;
  actor: string;
  tenant: TenantFacts | undefined;
  params: Record<string, string>;
  query: unknown;
  body: unknown;
  presented: string;
  source: string;
  baseUrl: string;
}

/** Ties the types of a route together; what it does with a context was checked here. */
export function route<
  const Path extends string,
  Query extends z.ZodObject = z.ZodObject<Record<never, never>>,
  Body extends z.ZodType = z.ZodUndefined,
>(spec: Spec<Path, Query, Body>): Route {
  return {
    ...spec,
    handle: (context) => spec.handle(context as Context<Path, z.output<Query>, z.output<Body>>),
  };
}
