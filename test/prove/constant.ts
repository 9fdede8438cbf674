import assert from 'node:assert/strict';
import { cpSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { random } from '../../demo/random.ts';
import { Case } from '../support/case.ts';
import { clockShiftedBy, smallDisk } from '../support/machine.ts';
import { type Scope, tempFolder, until } from '../support/place.ts';
import { Agent } from '../support/program.ts';
import { type StandIn, startStandIn } from '../support/standin.ts';
import { differences, readTree } from '../support/tree.ts';

/** After an agent is stopped in its tracks for this many names, events of the watch are lost. */
const BURST_NAMES = 20_000;
/**
 * A point of a settled change comes within this, whatever went before: an instance that was halted in the middle of a
 * flush has taught a quiet window of up to half a minute, and a busy machine makes captures lie further apart.
 */
const CAUGHT_WITHIN_MS = 90_000;
/** Captures start this far apart, at least: the default. */
const CAPTURES_APART_MS = 1000;
/** An agent may hold so much more memory at the end than in the first third of its time; under the limit any. */
const GROWTH_MAX = 1.25;
const HELD_MAX_KIB = 160 << 10;
const PAGE_KIB = 4;
/** An agent of one graph: some thirty of its own, as many packs, and the index's tables. */
const DESCRIPTORS_MAX = 120;

/** How much is proven. */
export interface Amount {
  readonly seed: number;
  readonly chapters: number;
  /** Each chapter writes for so long. */
  readonly writeMs: number;
  /** So long is watched that nothing more is captured of a directory at rest. */
  readonly restMs: number;
  readonly diskBytes: number;
  /** Flags of the stand-in. */
  readonly instance: readonly string[];
}

interface World {
  readonly place: string;
  readonly amount: Amount;
  readonly subject: Case;
  readonly agent: Agent;
  readonly disk: string;
  readonly clock: string;
  instance: StandIn;
  startAgain(): Promise<void>;
}

/** What happens while the instance writes. */
interface Trouble {
  readonly name: string;
  readonly during: (world: World) => Promise<void>;
}

const TROUBLES: readonly Trouble[] = [
  { name: 'nothing', during: ({ amount }) => sleep(amount.writeMs) },
  { name: 'a full disk', during: fullDisk },
  { name: 'lost events', during: lostEvents },
  { name: 'a halted instance', during: haltedInstance },
  { name: 'a clock that jumps', during: jumpingClock },
  { name: 'a replaced directory', during: replacedDirectory },
  { name: 'an emptied directory', during: emptiedDirectory },
];

async function fullDisk({ disk, amount, agent, instance }: World): Promise<void> {
  const filler = join(disk, 'filler');
  const before = agent.stderr.length;
  try {
    // The disk says when it is full.
    for (let i = 0; ; i++) writeFileSync(`${filler}${i}`, Buffer.alloc(1 << 20, i));
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
  }
  await sleep(amount.writeMs);
  // Nothing is captured before the directory rests.
  assert.equal((await instance.ask('POST /pause')).status, 200);
  const says = () => /full|space/.test(agent.stderr.slice(before));
  await until('the agent says that the disk is full', says, CAUGHT_WITHIN_MS);
  for (const name of readdirSync(disk)) if (name.startsWith('filler')) rmSync(join(disk, name));
}

async function lostEvents({ subject, amount, agent }: World): Promise<void> {
  await sleep(amount.writeMs / 2);
  agent.kill('SIGSTOP');
  const folder = join(subject.dir, 'burst');
  mkdirSync(folder);
  for (let i = 0; i < BURST_NAMES; i++) {
    const name = join(subject.dir, `burst-${i}`);
    writeFileSync(name, '');
    rmSync(name);
  }
  rmSync(folder, { recursive: true });
  agent.kill('SIGCONT');
  await sleep(amount.writeMs / 2);
}

async function haltedInstance({ amount, instance }: World): Promise<void> {
  await sleep(amount.writeMs / 3);
  instance.running.kill('SIGSTOP');
  await sleep(amount.writeMs / 3);
  instance.running.kill('SIGCONT');
  await sleep(amount.writeMs / 3);
}

async function jumpingClock({ clock, amount }: World): Promise<void> {
  for (const shift of ['-1d', '+1d', '+0']) {
    writeFileSync(clock, shift);
    await sleep(amount.writeMs / 3);
  }
}

async function replacedDirectory(world: World): Promise<void> {
  const { subject, amount, instance } = world;
  await sleep(amount.writeMs / 3);
  await instance.stop();
  const aside = `${subject.dir}-aside`;
  renameSync(subject.dir, aside);
  await sleep(amount.writeMs / 3);
  cpSync(aside, subject.dir, { recursive: true });
  rmSync(aside, { recursive: true });
  await world.startAgain();
  await sleep(amount.writeMs / 3);
}

async function emptiedDirectory(world: World): Promise<void> {
  const { subject, amount, instance, place } = world;
  await sleep(amount.writeMs / 3);
  await instance.stop();
  const aside = join(place, 'aside');
  cpSync(subject.dir, aside, { recursive: true });
  for (const name of readdirSync(subject.dir)) rmSync(join(subject.dir, name), { recursive: true });
  await sleep(amount.writeMs / 3);
  cpSync(aside, subject.dir, { recursive: true });
  rmSync(aside, { recursive: true });
  await world.startAgain();
  await sleep(amount.writeMs / 3);
}

interface Held {
  readonly residentKiB: number;
  readonly descriptors: number;
}

function heldBy({ pid }: Agent): Held {
  const [, pages = '0'] = readFileSync(`/proc/${pid}/statm`, 'latin1').split(' ');
  return { residentKiB: Number(pages) * PAGE_KIB, descriptors: readdirSync(`/proc/${pid}/fd`).length };
}

/** The newest point is the directory as it is, byte for byte; waits until it is. */
async function caught({ subject, place, agent }: World): Promise<number> {
  const began = performance.now();
  const wanted = readTree(subject.dir);
  const back = join(place, 'back');
  let apart: string[] = [];
  const holds = async () => {
    await subject.restore('latest', back);
    apart = differences(wanted, readTree(back));
    rmSync(back, { recursive: true });
    return apart.length === 0;
  };
  await until('the final state is a point', holds, CAUGHT_WITHIN_MS).catch((error: unknown) => {
    throw new Error(`${String(error)}\n${apart.slice(0, 5).join('\n')}`);
  });
  const caughtMs = performance.now() - began;
  // It is told of once it has been looked into.
  const { snapshot } = await subject.show('latest');
  await until(
    'it is told of',
    () => agent.stdout.includes(snapshot.snapshotId.slice(0, 12)),
    CAUGHT_WITHIN_MS,
  );
  return caughtMs;
}

/** An instance writes all the time, troubles come and go, and an agent misses nothing and holds no more than before. */
export async function writeConstantly(
  scope: Scope,
  amount: Amount,
  log: (line: string) => void,
): Promise<void> {
  const place = await tempFolder(scope);
  const { path: disk } = await smallDisk(scope, amount.diskBytes);
  const clock = join(place, 'clock');
  writeFileSync(clock, '+0');
  const subject = new Case(join(place, 'rag'), join(disk, 'store'));
  const flags = [...amount.instance, '--seed', `${amount.seed}`];
  const instance = await startStandIn(scope, subject.dir, flags);
  const words = ['--dir', subject.dir, '--store', subject.store, '--disk-reserve', '0'];
  const agent = new Agent(scope, [...words, '--instance-url', instance.url], { env: clockShiftedBy(clock) });
  const world: World = {
    place,
    amount,
    subject,
    agent,
    disk,
    clock,
    instance,
    startAgain: async () => {
      const { port } = new URL(instance.url);
      world.instance = await startStandIn(scope, subject.dir, [...flags, '--port', port]);
    },
  };
  await agent.point(1);
  const next = random(amount.seed);
  const held: Held[] = [];
  const began = performance.now();
  let order: Trouble[] = [];
  for (let chapter = 1; chapter <= amount.chapters; chapter++) {
    if (order.length === 0)
      order = TROUBLES.map((one) => [next(1_000_000), one] as const)
        .sort(([a], [b]) => a - b)
        .map(([, one]) => one);
    const { name, during } = order.pop() as Trouble;
    const before = agent.points.length;
    const startedMs = performance.now();
    assert.equal((await world.instance.ask('POST /resume')).status, 200);
    await during(world);
    assert.equal((await world.instance.ask('POST /pause')).status, 200);
    const caughtMs = await caught(world);
    const points = agent.points.length - before;
    const most = Math.ceil((performance.now() - startedMs) / CAPTURES_APART_MS) + 1;
    assert.equal(points <= most, true, `${points} points in a chapter that has time for ${most}`);
    await sleep(amount.restMs);
    assert.equal(agent.points.length - before, points, 'nothing is captured of a directory at rest');
    held.push(heldBy(agent));
    const { residentKiB, descriptors } = held.at(-1) as Held;
    log(
      `${chapter}. ${name}: ${points} points, the last state caught ${Math.round(caughtMs)} ms after the last write; ` +
        `${Math.round(residentKiB / 1024)} MiB, ${descriptors} descriptors`,
    );
  }
  const early = held.slice(0, Math.max(1, Math.ceil(held.length / 3)));
  const last = held.at(-1) as Held;
  const allowed = Math.max(Math.max(...early.map((one) => one.residentKiB)) * GROWTH_MAX, HELD_MAX_KIB);
  assert.equal(last.residentKiB <= allowed, true, `${last.residentKiB} KiB at the end, ${allowed} allowed`);
  assert.equal(last.descriptors <= DESCRIPTORS_MAX, true, `${last.descriptors} descriptors`);
  const points = agent.points.length;
  const ended = await agent.stop();
  assert.equal(ended.code, 0, agent.text);
  const snapshots = await subject.assertSound();
  const rest = readdirSync(subject.store, { recursive: true, encoding: 'utf8' });
  assert.deepEqual(
    rest.filter((name) => /\.tmp$/.test(name)),
    [],
    'no temporary file stays',
  );
  const seconds = Math.round((performance.now() - began) / 1000);
  log(`${seconds} s, ${points} points told, ${snapshots} snapshots in the store, every byte of it sound`);
}

/** About thirty-three seconds each. */
const HOUR = { chapters: 110, writeMs: 24_000, restMs: 2500, diskBytes: 2e9 };

/** Proves it for an hour. */
export async function run(log: (line: string) => void): Promise<void> {
  const seed = Number(process.env.LIGHTKEEPER_SEED ?? 1);
  const chapters = Number(process.env.LIGHTKEEPER_COUNT ?? HOUR.chapters);
  log(`seed ${seed}: ${chapters} chapters of ${HOUR.writeMs / 1000} s of writing`);
  const undo: (() => Promise<void>)[] = [];
  const instance = [
    '--documents',
    '100',
    '--dimension',
    '128',
    '--ingest-every',
    '5s',
    '--query-every',
    '700ms',
  ];
  try {
    const amount = { ...HOUR, seed, chapters, instance: [...instance, '--pause', '100ms'] };
    await writeConstantly({ after: (step) => void undo.push(step) }, amount, log);
  } finally {
    for (const step of undo) await step();
  }
}
