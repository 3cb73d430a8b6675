/**
 * What callers side by side must not break, on every server: one userName has one winner however many ask for it at
 * once, and no membership is lost to another one added at the same time. Counts, not speeds. Workers stopped.
 */
import type { Bench, Section } from '../bench.ts';
import { ask, type Contestant, lockstepContestant, peerContestant } from '../contestants.ts';
import { patchBody } from '../operations.ts';
import { USER } from '../seed.ts';

const ROUNDS = 20;
const CALLERS = 16;
const ADDS = 96;

export const races: Section = {
  name: 'Callers side by side',
  seconds: { quick: 6, full: 6 },
  async run(bench) {
    const others = await bench.peers();
    if (typeof others === 'string')
      bench.report.add({ section: races.name, name: 'peers', words: `not tried: ${others}` });
    const contestants = [
      lockstepContestant(bench, await bench.lockstep('api'), 'api'),
      ...(typeof others === 'string' ? [] : others.map(peerContestant)),
    ];
    for (const contestant of contestants) await sameName(bench, contestant, contestant === contestants[0]);
    for (const contestant of contestants)
      await parallelAdds(bench, contestant, contestant === contestants[0]);
  },
};

async function sameName(bench: Bench, contestant: Contestant, ours: boolean): Promise<void> {
  bench.note(`one userName, ${contestant.name}`);
  const ground = await contestant.fresh(10, []);
  const statuses: Record<number, number> = {};
  for (let round = 0; round < ROUNDS; round += 1) {
    const body = USER.replaceAll('{n}', `same.${round}`);
    const answers = await Promise.all(
      Array.from({ length: CALLERS }, () => ask(contestant, ground, 'POST', '/Users', body)),
    );
    for (const { status } of answers) statuses[status] = (statuses[status] ?? 0) + 1;
  }
  const created = statuses[201] ?? 0;
  const refused = statuses[409] ?? 0;
  const said = Object.entries(statuses)
    .map(([status, n]) => `${n} × ${status}`)
    .join(', ');
  bench.report.add({
    section: races.name,
    name: `${ROUNDS} userNames, ${CALLERS} POSTs at once each: ${contestant.name}`,
    value: created,
    unit: '× 201',
    targets: ours
      ? [
          {
            words: `${ROUNDS} × 201, the others 409`,
            reached: created === ROUNDS && refused === ROUNDS * (CALLERS - 1),
            measured: said,
          },
        ]
      : [],
  });
}

async function parallelAdds(bench: Bench, contestant: Contestant, ours: boolean): Promise<void> {
  bench.note(`members at once, ${contestant.name}`);
  const ground = await contestant.fresh(ADDS, [0]);
  const group = ground.groups[0] ?? '';
  const answers = await Promise.all(
    ground.people.map(({ id }) =>
      ask(
        contestant,
        ground,
        'PATCH',
        `/Groups/${group}`,
        patchBody({ op: 'add', path: 'members', value: [{ value: id }] }),
      ),
    ),
  );
  const accepted = answers.filter(({ status }) => status === 200 || status === 204).length;
  const members = await contestant.members(group);
  bench.report.add({
    section: races.name,
    name: `${ADDS} members added at once, still there: ${contestant.name}`,
    value: members,
    unit: `of ${accepted}`,
    targets: ours
      ? [
          {
            words: `all ${ADDS} stay`,
            reached: members === ADDS && accepted === ADDS,
            measured: `${members} of ${accepted} accepted`,
          },
        ]
      : [],
  });
}
