/** How much of each connection pool of this process is in use. Each process exports its own. */
import { Gauge, type Registry } from 'prom-client';

/** As `pg.Pool` tells it. */
export interface PoolState {
  readonly totalCount: number;
  readonly idleCount: number;
  readonly waitingCount: number;
  readonly options: { max?: number | undefined };
}

export function exportPools(registry: Registry, pools: Readonly<Record<string, PoolState>>): void {
  const registers = [registry];
  new Gauge({
    name: 'lockstep_database_connections',
    help: 'Connections of a pool of this process: app and system are the roles, orm is what the ORM keeps for itself',
    labelNames: ['pool', 'state'],
    registers,
    collect() {
      for (const [pool, { totalCount, idleCount }] of Object.entries(pools)) {
        this.set({ pool, state: 'used' }, totalCount - idleCount);
        this.set({ pool, state: 'idle' }, idleCount);
      }
    },
  });
  new Gauge({
    name: 'lockstep_database_connections_max',
    help: 'Connections that a pool of this process may hold',
    labelNames: ['pool'],
    registers,
    collect() {
      for (const [pool, { options }] of Object.entries(pools)) this.set({ pool }, options.max ?? 10);
    },
  });
  new Gauge({
    name: 'lockstep_database_waiting',
    help: 'What waits for a connection of a pool of this process, all of which are in use',
    labelNames: ['pool'],
    registers,
    collect() {
      for (const [pool, { waitingCount }] of Object.entries(pools)) this.set({ pool }, waitingCount);
    },
  });
}
