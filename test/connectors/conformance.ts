/**
 * What every connector does, tried over a simulator of its provider by real HTTP. The author of a further connector
 * calls {@link conforms} with a simulator and a way to connect; docs/connectors.md shows how.
 */
import { afterEach, describe, expect, test } from 'vitest';
import {
  type Certificate,
  type Connection,
  type ConnectOptions,
  ConnectorError,
  type SnapshotPage,
  type SourceChange,
  type SourceStatus,
  type Watermark,
} from '../../connectors/connector.ts';
import { seeded } from '../../src/simulate/random.ts';
import {
  operateAtRandom,
  type Population,
  type Source,
  type State,
} from '../../src/simulate/source/source.ts';

export interface Simulated {
  source: Source;
  /** With small pages and little patience: two tries, milliseconds between them. */
  connect(
    options?: Pick<ConnectOptions<unknown>, 'onCall' | 'onWait'> & { signal?: AbortSignal },
  ): Promise<Connection>;
}

export interface Subject {
  name: string;
  start(population: { seed: number; users: number; groups: number }): Promise<Simulated>;
  /** What a state of the population is in the connector's words; undefined: a snapshot does not show it. */
  statusOf(state: State): SourceStatus | undefined;
  /** Requests of a snapshot that are pages: each is made to fail in turn. */
  pages: RegExp;
}

/** Of a user what every connector tells. */
interface Seen {
  status: SourceStatus;
  userName: unknown;
  displayName: unknown;
  title: unknown;
}

/** A reader's picture of a directory. */
export interface Picture {
  users: Map<string, Seen>;
  groups: Map<string, string>;
  /** Group's id, a space, member's id. */
  memberships: Set<string>;
}

const SEED = Number(process.env.LOCKSTEP_TEST_SEED ?? Date.now() % 2 ** 31);

export function conforms(subject: Subject): void {
  const running: Simulated[] = [];
  afterEach(async () => {
    for (const { source } of running.splice(0)) await source.stop();
  });
  const start = async (size: { users?: number; groups?: number; seed?: number } = {}) => {
    const simulated = await subject.start({ seed: SEED, users: 23, groups: 4, ...size });
    running.push(simulated);
    return simulated;
  };

  describe(`${subject.name} conforms`, () => {
    test(`a snapshot is the population, and its certificate says so (seed ${SEED})`, async () => {
      const { source, connect } = await start();
      const connection = await connect();
      const { picture, certificate, rows } = await read(connection);
      expect(picture).toEqual(truth(source.population, subject));
      expect(certificate.counts).toEqual(rows);
      const known = truth(source.population, subject);
      expect(rows.memberships).toBe(known.memberships.size);
      expect(certificate.chains.length).toBeGreaterThan(0);
      for (const chain of certificate.chains) expect(chain.collection).not.toBe('');
      expect(certificate.scopes.length).toBeGreaterThan(0);
      expect(certificate.configuration).toMatch(/^[0-9a-f]{64}$/);
      expect(certificate.watermark.at.getTime()).toBeLessThanOrEqual(certificate.startedAt.getTime());
      expect(JSON.parse(JSON.stringify(certificate.watermark.state))).toEqual(certificate.watermark.state);
      await connection.close();
    });

    test('an empty directory is a certified one', async () => {
      const { connect } = await start({ users: 0, groups: 0 });
      const connection = await connect();
      const { certificate } = await read(connection);
      expect(certificate.counts).toEqual({ users: 0, groups: 0, memberships: 0 });
      await connection.close();
    });

    for (const fault of ['fail', 'truncate', 'hang-up', 'loop', 'foreign'] as const) {
      test(`a snapshot whose pages ${fault} throws and certifies nothing, at each page in turn`, async () => {
        const { source, connect } = await start({ users: 7, groups: 2 });
        const connection = await connect();
        await read(connection);
        const pages = source.requests.filter((r) => r.method === 'GET' && subject.pages.test(r.path)).length;
        expect(pages).toBeGreaterThan(3);
        for (let nth = 1; nth <= pages; nth += 1) {
          source.mischief.clear();
          source.mischief.add({ do: fault, path: subject.pages.source, nth, times: 0 });
          const failed = await read(connection).then(
            () => undefined,
            (error: unknown) => error,
          );
          expect(failed, `page ${nth} of ${pages}`).toBeInstanceOf(ConnectorError);
        }
        source.mischief.clear();
        await read(connection);
        await connection.close();
      });
    }

    test('one fault that passes costs nothing: retried, and the snapshot is whole', async () => {
      const { source, connect } = await start();
      const connection = await connect();
      for (const fault of ['fail', 'truncate', 'hang-up', 'throttle'] as const) {
        for (const nth of [1, 3, 5]) {
          source.mischief.clear();
          source.mischief.add({
            ...{ do: fault, path: subject.pages.source, nth, says: 'retry-after', seconds: 0 },
          });
          const { picture } = await read(connection);
          expect(picture, `${fault} at ${nth}`).toEqual(truth(source.population, subject));
          expect(source.mischief.counts()[fault]).toBeGreaterThan(0);
        }
      }
      await connection.close();
    });

    test('an empty page in the middle is followed, and a page that comes twice changes nothing', async () => {
      const { source, connect } = await start();
      const connection = await connect();
      for (const fault of ['empty-page', 'replay'] as const) {
        source.mischief.clear();
        for (const nth of [1, 3, 6]) source.mischief.add({ do: fault, path: subject.pages.source, nth });
        const { picture } = await read(connection);
        expect(picture, fault).toEqual(truth(source.population, subject));
      }
      expect(source.mischief.counts()).toMatchObject({ 'empty-page': 3, replay: 3 });
      await connection.close();
    });

    test('no request and no token goes to a foreign host', async () => {
      const { source, connect } = await start();
      const foreign = await start({ users: 3 });
      const connection = await connect();
      for (const location of [false, true]) {
        source.mischief.clear();
        source.mischief.add({
          ...{ do: 'foreign', path: subject.pages.source, times: 0, host: foreign.source.url, location },
        });
        await expect(read(connection)).rejects.toMatchObject({ kind: 'malformed' });
      }
      expect(foreign.source.requests).toEqual([]);
      await connection.close();
    });

    test('nothing is fetched before the last page was taken', async () => {
      const { source, connect } = await start();
      const connection = await connect();
      const stream = connection.snapshot();
      expect(source.requests.filter((r) => subject.pages.test(r.path))).toEqual([]);
      let before = -1;
      for (let page = 0; page < 4; page += 1) {
        expect((await stream.next()).done).toBe(false);
        const asked = source.requests.length;
        // Anything that runs ahead would be on its way within a turn of the event loop or a round trip.
        await fetch(`${source.url}/_simulator`).catch(() => undefined);
        expect(source.requests.length).toBe(asked);
        expect(asked).toBeGreaterThan(before);
        before = asked;
      }
      await stream.return(undefined as never);
      await connection.close();
    });

    test('an abort ends a request under way', async () => {
      const { source, connect } = await start();
      const stop = new AbortController();
      const connection = await connect({ signal: stop.signal });
      source.mischief.add({ do: 'slow', path: subject.pages.source, nth: 2, times: 0 });
      const asked = source.requested(subject.pages).then(() => source.requested(subject.pages));
      const outcome = read(connection).then(
        () => 'whole',
        () => 'ended',
      );
      await asked;
      stop.abort(new Error('stopped'));
      expect(await outcome).toBe('ended');
      await connection.close();
    });

    test('an abort ends the waiting for a limit', async () => {
      const { source, connect } = await start();
      const stop = new AbortController();
      const connection = await connect({
        signal: stop.signal,
        onWait: () => stop.abort(new Error('stopped')),
      });
      source.mischief.add({
        do: 'throttle',
        path: subject.pages.source,
        says: 'both',
        seconds: 90,
        times: 0,
      });
      await expect(read(connection)).rejects.toThrow();
      expect(source.requests.filter((r) => r.status === 429)).toHaveLength(1);
      await connection.close();
    });

    test('get answers for each id as it is now, with groups when asked, and null for an unknown one', async () => {
      const { source, connect } = await start();
      const { population } = source;
      const connection = await connect();
      const n = Array.from({ length: 23 }, (_, i) => i).find((i) => population.groupsOf(i).length > 0) ?? -1;
      const user = population.user(n);
      const [first] = await got(connection, [user.id], true);
      expect(first?.user?.attributes).toMatchObject({ userName: user.userName, title: user.title });
      const groupIds = population.groupsOf(n).map((g) => population.group(g).id);
      expect(first?.groupIds?.toSorted()).toEqual(groupIds.toSorted());
      population.suspend(n);
      population.removeMembers(population.groupsOf(n)[0] ?? -1, [n]);
      const erased = (n + 1) % 23;
      const { id } = population.user(erased);
      population.erase(erased);
      const again = await got(connection, [user.id, id, `${id.slice(0, -1)}x`], true);
      expect(again.map((f) => f.user?.status ?? null)).toEqual(['suspended', null, null]);
      expect(again[0]?.groupIds?.length).toBe(groupIds.length - 1);
      const plain = await got(connection, [user.id], false);
      expect(plain[0]?.groupIds).toBeNull();
      await connection.close();
    });

    test(`changes applied to what was before equal a fresh snapshot (seed ${SEED})`, async () => {
      for (let run = 0; run < Number(process.env.LOCKSTEP_TEST_RUNS ?? 4); run += 1) {
        const seed = SEED + run;
        const { source, connect } = await start({ seed, users: 17, groups: 4 });
        const { population } = source;
        const random = seeded(seed);
        const connection = await connect();
        const first = await read(connection);
        const picture = withoutRemoved(first.picture);
        let { watermark } = first.certificate;
        for (let round = 0; round < 5; round += 1) {
          const did: string[] = [];
          for (let n = random.below(12); n >= 0; n -= 1) did.push(operateAtRandom(population, random));
          watermark = await follow(connection, watermark, picture);
          const words = `seed ${seed}, round ${round}: ${did.join('; ')}`;
          expect(withoutRemoved(picture), words).toEqual(withoutRemoved((await read(connection)).picture));
          expect(withoutRemoved(picture), words).toEqual(withoutRemoved(truth(population, subject)));
          watermark = JSON.parse(JSON.stringify(watermark), (key, value) =>
            key === 'at' ? new Date(value) : value,
          );
        }
        await connection.close();
      }
    });

    test(`what moves while a snapshot or a pull runs is told by the next (seed ${SEED})`, async () => {
      for (let run = 0; run < Number(process.env.LOCKSTEP_TEST_RUNS ?? 4); run += 1) {
        const seed = SEED + run;
        const { source, connect } = await start({ seed });
        const random = seeded(seed);
        const did: string[] = [];
        const operate = () => did.push(operateAtRandom(source.population, random));
        const connection = await connect();
        const { picture, certificate } = await read(connection, operate);
        const startedAt = Date.now();
        const during = await follow(connection, certificate.watermark, picture, operate);
        expect(during.at.getTime()).toBeLessThanOrEqual(startedAt);
        await follow(connection, during, picture);
        const words = `seed ${seed}: ${did.join('; ')}`;
        expect(withoutRemoved(picture), words).toEqual(withoutRemoved(truth(source.population, subject)));
        await connection.close();
      }
    });

    test('changes with a fault throw and give no watermark; from the old one nothing is lost', async () => {
      const { source, connect } = await start();
      const connection = await connect();
      const first = await read(connection);
      const picture = first.picture;
      const random = seeded(SEED);
      for (let n = 0; n < 15; n += 1) operateAtRandom(source.population, random);
      source.clearRequests();
      await follow(connection, first.certificate.watermark, structuredClone(picture));
      const requests = source.requests.filter((r) => r.method === 'GET').length;
      for (let nth = 1; nth <= requests; nth += 1) {
        source.mischief.clear();
        source.mischief.add({ do: 'fail', method: 'GET', nth, times: 0 });
        await expect(follow(connection, first.certificate.watermark, picture)).rejects.toMatchObject({
          kind: 'unavailable',
        });
      }
      source.mischief.clear();
      await follow(connection, first.certificate.watermark, picture);
      expect(withoutRemoved(picture)).toEqual(withoutRemoved(truth(source.population, subject)));
      await connection.close();
    });

    test('a watermark that is not its own is no good: resync', async () => {
      const { connect } = await start();
      const connection = await connect();
      const { certificate } = await read(connection);
      const strange = { at: certificate.watermark.at, state: { what: 'is this' } };
      await expect(follow(connection, strange, emptyPicture())).rejects.toMatchObject({ kind: 'resync' });
      await connection.close();
    });

    test('every request is told with its status, retried and unanswered ones included', async () => {
      const { source, connect } = await start();
      const told: number[] = [];
      const connection = await connect({ onCall: (status) => told.push(status) });
      source.mischief.add({ do: 'fail', path: subject.pages.source, nth: 2 });
      source.mischief.add({ do: 'hang-up', path: subject.pages.source, nth: 4 });
      await read(connection);
      expect(told).toEqual(source.requests.map((r) => r.status));
      expect(told.filter((status) => status === 503)).toHaveLength(1);
      expect(told.filter((status) => status === 0)).toHaveLength(1);
      await connection.close();
    });
  });
}

/** @param onPage called after each page */
export async function read(
  connection: Connection,
  onPage?: () => void,
): Promise<{
  picture: Picture;
  certificate: Certificate;
  rows: Certificate['counts'];
  pages: SnapshotPage[];
}> {
  const picture = emptyPicture();
  const rows = { users: 0, groups: 0, memberships: 0 };
  const pages: SnapshotPage[] = [];
  const stream = connection.snapshot();
  for (;;) {
    const next = await stream.next();
    if (next.done) return { picture, certificate: next.value, rows, pages };
    onPage?.();
    pages.push(next.value);
    for (const user of next.value.users ?? []) {
      rows.users += 1;
      picture.users.set(user.id, seen(user.status, user.attributes));
    }
    for (const group of next.value.groups ?? []) {
      rows.groups += 1;
      picture.groups.set(group.id, group.displayName);
    }
    for (const { groupId, members } of next.value.memberships ?? []) {
      rows.memberships += members.length;
      for (const { id } of members) picture.memberships.add(`${groupId} ${id}`);
    }
  }
}

/** Takes in what moved, as a reader would. */
export async function follow(
  connection: Connection,
  since: Watermark,
  picture: Picture,
  onBatch?: () => void,
): Promise<Watermark> {
  const stream = connection.changes(since);
  for (;;) {
    const next = await stream.next();
    if (next.done) return next.value;
    onBatch?.();
    for (const change of next.value) take(picture, change);
  }
}

export function take(picture: Picture, change: SourceChange): void {
  const { users, groups, memberships } = picture;
  switch (change.kind) {
    case 'user': {
      const before = users.get(change.id);
      const patch = change.attributes;
      const attributes = change.whole ? patch : { ...before, ...patch };
      const status = change.status ?? before?.status ?? 'active';
      users.set(change.id, seen(status, attributes));
      return;
    }
    case 'group':
      groups.set(change.id, change.displayName ?? groups.get(change.id) ?? '');
      return;
    case 'group_removed':
      groups.delete(change.id);
      return;
    case 'members': {
      const mine = `${change.groupId} `;
      if (change.whole) for (const one of memberships) if (one.startsWith(mine)) memberships.delete(one);
      for (const { id } of change.add) memberships.add(mine + id);
      for (const id of change.remove) memberships.delete(mine + id);
    }
  }
}

/** Who is removed is out whether or not the source still shows a row; so is what hangs on a group that is gone. */
export function withoutRemoved(picture: Picture): Picture {
  const users = new Map([...picture.users].filter(([, user]) => user.status !== 'removed'));
  const here = ([group, member]: string[]) =>
    picture.groups.has(group ?? '') && (users.has(member ?? '') || picture.groups.has(member ?? ''));
  const memberships = new Set([...picture.memberships].filter((m) => here(m.split(' '))).toSorted());
  return { users: sorted(users), groups: sorted(picture.groups), memberships };
}

/** What the simulator holds, in a reader's words. */
export function truth(population: Population, subject: Pick<Subject, 'statusOf'>): Picture {
  const picture = emptyPicture();
  for (let n = 0; n < population.userCount; n += 1) {
    const status = subject.statusOf(population.stateOf(n));
    if (status === undefined) continue;
    const user = population.user(n);
    picture.users.set(user.id, seen(status, { ...user }));
  }
  for (let n = 0; n < population.groupCount; n += 1) {
    const group = population.group(n);
    if (group.erased) continue;
    picture.groups.set(group.id, group.name);
    for (const member of population.members(n)) {
      picture.memberships.add(`${group.id} ${population.user(member).id}`);
    }
    for (const member of population.memberGroups(n)) {
      picture.memberships.add(`${group.id} ${population.group(member).id}`);
    }
  }
  return picture;
}

export function emptyPicture(): Picture {
  return { users: new Map(), groups: new Map(), memberships: new Set() };
}

export async function got(connection: Connection, ids: string[], groups: boolean) {
  const all = [];
  for await (const batch of connection.get(ids, { groups })) all.push(...batch);
  return all;
}

function seen(status: SourceStatus, attributes: Record<string, unknown>): Seen {
  const { userName, displayName, title } = attributes;
  return { status, userName, displayName, title };
}

function sorted<V>(map: Map<string, V>): Map<string, V> {
  return new Map([...map].toSorted(([a], [b]) => (a < b ? -1 : 1)));
}
