/**
 * A write of the mirror as a span below its request's, from when it is asked for until it is durable; concurrent ones
 * share a commit. The change is of this span from then on.
 */
import { SpanKind } from '@opentelemetry/api';
import type { Caller, Changes, DirectoryStore } from '../directory/directory.ts';
import { below, failed, type Scopes, written } from './scope.ts';

type Outcome = { outcome: string; changes?: Changes };

export function traceWrites(scopes: Scopes, store: DirectoryStore): DirectoryStore {
  async function write<T extends Outcome>(
    operation: string,
    caller: Caller,
    work: (caller: Caller) => Promise<T>,
  ): Promise<T> {
    const request = scopes.current()?.begun();
    if (!request?.isRecording()) return work(caller);
    const attributes = { 'lockstep.operation': operation, 'lockstep.directory.id': caller.directoryId };
    const span = scopes.tracer.startSpan('commit', { kind: SpanKind.INTERNAL, attributes }, below(request));
    const trace = written(span);
    try {
      const result = await work(trace === undefined ? caller : { ...caller, trace });
      span.setAttribute('lockstep.outcome', result.outcome);
      if (result.changes) {
        span.setAttribute('lockstep.changes', result.changes.count);
        const [first] = result.changes.ids;
        if (first !== undefined && result.changes.count === 1) span.setAttribute('lockstep.change.id', first);
      }
      return result;
    } catch (error) {
      failed(span, error instanceof Error ? error.name : 'unknown');
      throw error;
    } finally {
      span.end();
    }
  }
  return {
    ...store,
    createUser: (caller, ...rest) => write('create_user', caller, (c) => store.createUser(c, ...rest)),
    writeUser: (caller, ...rest) => write('write_user', caller, (c) => store.writeUser(c, ...rest)),
    activateUser: (caller, ...rest) => write('activate_user', caller, (c) => store.activateUser(c, ...rest)),
    deleteUser: (caller, ...rest) => write('delete_user', caller, (c) => store.deleteUser(c, ...rest)),
    applyGroup: (caller, ...rest) => write('apply_group', caller, (c) => store.applyGroup(c, ...rest)),
    deleteGroup: (caller, ...rest) => write('delete_group', caller, (c) => store.deleteGroup(c, ...rest)),
  };
}
