import assert from 'node:assert/strict';
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  type Stats,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type Random, random } from '../../demo/random.ts';
import { fillGraph, noise } from '../support/fill.ts';
import { type Json, type Machine, machines } from '../support/machines.ts';
import { type Scope, tempFolder, until } from '../support/place.ts';
import type { StartOptions } from '../support/program.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';
import { FAILURES_SHOWN, inParallel } from './store-calls.ts';

/** Share of the kills that must happen: how often an effect happens varies with the pace of the machine. */
const MET_SHARE = 0.8;
/** Bytes of the largest frame, which a cut may cost, with what messages add. */
const FRAME_BYTES_MAX = 5 << 20;
/** Bytes of the file that each state of the directory has anew: some frames. */
const NEW_BYTES = 6_000_000;
const STATES = 2;
const WAIT_MS = 60_000;
const LANES = 2;

const SIDES = ['source', 'follower'] as const;
type Side = (typeof SIDES)[number];

/** A kill of one side at one of its effects: `kill:before:LABEL:N` or `kill:after:LABEL:N`. */
interface EffectCut {
  readonly side: Side;
  readonly fault: string;
}

/** A kill of one side, or of the connection, when so many bytes have passed between them. */
interface ByteCut {
  readonly side: Side | 'connection';
  readonly bytes: number;
}

export type Cut = EffectCut | ByteCut;

/** What a run was like. */
export interface Outcome {
  /** Whether the kill happened. */
  readonly met: boolean;
  /** Bytes of frames that were sent twice. */
  readonly again: number;
}

/** An agent that is started again when it was killed. */
class Supervised {
  readonly machine: Machine;
  readonly #start: () => Promise<unknown>;
  #running: Promise<void> = Promise.resolve();
  #isStopped = false;
  /** Whether it was killed. */
  met = false;
  /** Bytes of packs, begun ones too, that it had on the disk when it was killed and started again. */
  held = 0;

  constructor(machine: Machine, start: () => Promise<unknown>) {
    this.machine = machine;
    this.#start = start;
  }

  async start(): Promise<void> {
    // One that is killed before it serves is started again, too.
    await this.#start().catch(() => {});
    this.#running = this.#restarted();
  }

  async #restarted(): Promise<void> {
    const { agent } = this.machine;
    if (agent === undefined) return;
    const { code, signal, stderr } = await agent.ended;
    if (this.#isStopped) return;
    assert.equal(signal, 'SIGKILL', `exit ${code}: ${stderr}`);
    this.met = true;
    this.held = storedBytes(this.machine.store);
    // A question to the store may have had it open at that moment.
    await this.#start().catch(() => this.#start());
    await this.#restarted();
  }

  /** Ends the agent as a person does; it may be killed at an effect of its end. */
  async stop(): Promise<void> {
    // One that has just been killed is on its way.
    await until('it serves', () => this.machine.isServing);
    this.#isStopped = true;
    const { agent } = this.machine;
    const { code, signal, stderr } = (await agent?.stop()) ?? assert.fail('it runs');
    this.machine.agent = undefined;
    if (signal === 'SIGKILL') this.met = true;
    else assert.equal(code, 0, stderr);
    await this.#running;
  }

  /** Lets the agent end: whoever kills it now is the end of the test. */
  release(): void {
    this.#isStopped = true;
  }

  /** Rejects if the agent ends in another way than by its kill. */
  async failure(): Promise<never> {
    await this.#running;
    return await new Promise<never>(() => {});
  }
}

/** Returns the bytes of the packs of a store, of those that were begun too. */
function storedBytes(store: string): number {
  const sizes = ['packs', 'tmp'].flatMap((folder) => filesIn(join(store, folder)).map(({ size }) => size));
  return sizes.reduce((sum, size) => sum + size, 0);
}

function filesIn(folder: string): Stats[] {
  if (!existsSync(folder)) return [];
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  return names.map((name) => statSync(join(folder, name))).filter((one) => one.isFile());
}

/** Writes the next state of the directory. */
function write(machine: Machine, state: number): void {
  fillGraph(machine.dir, state);
  writeFileSync(join(machine.dir, `new-${state}`), noise(`new ${state}`, NEW_BYTES));
}

/** Asks a machine, which may just have been killed. */
async function asked<T>(ask: () => Promise<T>): Promise<T | undefined> {
  return await ask().catch(() => undefined);
}

interface Begin {
  /** How the first start of a side differs from others. */
  readonly start: (side: Side) => StartOptions;
  readonly cut?: ByteCut;
}

/** Follows a graph of two states. */
async function follow(scope: Scope, { start, cut }: Begin): Promise<Outcome> {
  const [a, b] = (await machines(scope, 'a', 'b')) as [Machine, Machine];
  write(a, 1);
  a.next = start('source');
  b.next = start('follower');
  const proxy = await TcpProxy.to(a.port, scope);
  const source = new Supervised(a, () => a.guard());
  const follower = new Supervised(b, () => b.start('--graph', 'g', '--follow', proxy.url));
  let isConnectionCut = false;
  proxy.onBytes = (bytes) => {
    if (cut === undefined || bytes < cut.bytes) return;
    proxy.onBytes = () => {};
    isConnectionCut = cut.side === 'connection';
    if (isConnectionCut) proxy.cut();
    else (cut.side === 'source' ? a : b).agent?.kill('SIGKILL');
  };
  try {
    const outcome = await converge([source, follower]);
    return { ...outcome, met: outcome.met || isConnectionCut };
  } finally {
    source.release();
    follower.release();
  }
}

/** Starts both sides, writes the states, and checks what is on both at the end. */
async function converge([source, follower]: readonly [Supervised, Supervised]): Promise<Outcome> {
  const [{ machine: a }, { machine: b }] = [source, follower];
  const failed = () => Promise.race([source.failure(), follower.failure()]);
  await source.start();
  await follower.start();
  const acknowledged = new Set<string>();
  const converged = async (states: number): Promise<boolean> => {
    if (!a.isServing || !b.isServing) return false;
    const [graph, ours, theirs] = [
      await asked(() => a.graph()),
      await asked(() => a.ids()),
      await asked(() => b.ids()),
    ];
    for (const { held } of (graph?.followers ?? []) as { held?: Json }[])
      if (held !== undefined) acknowledged.add(String(held.digest).slice(0, 32));
    if (ours === undefined || theirs === undefined || ours.length < states) return false;
    return ours.every((id) => theirs.includes(id));
  };
  for (let state = 1; state <= STATES; state++) {
    if (state > 1) write(a, state);
    await Promise.race([until(`state ${state} is on both`, () => converged(state), WAIT_MS), failed()]);
  }
  // A follower that has just been killed, as it graded, is on its way.
  let view: Json | undefined;
  await until('the follower tells of its source', async () => {
    view = b.isServing ? ((await asked(() => b.graph()))?.source as Json | undefined) : undefined;
    return view !== undefined;
  });
  const receivedBytes = Number(view?.receivedBytes);
  const ids = await b.ids();
  for (const id of acknowledged) assert.ok(ids.includes(id), `acknowledged ${id} is there`);
  await follower.stop();
  await source.stop();
  await a.verified();
  await b.verified();
  const met = source.met || follower.met;
  // What was on its way at the cut is lost, and what was on the disk is not sent again.
  const again = Math.max(0, follower.held + receivedBytes - storedBytes(b.store));
  assert.ok(again <= FRAME_BYTES_MAX, `${again} bytes were sent twice`);
  return { met, again };
}

/** Returns every kill of either side: before and after each effect of each label. */
export async function allCuts(scope: Scope): Promise<EffectCut[]> {
  const place = await tempFolder(scope);
  const paths = new Map(SIDES.map((side) => [side, join(place, side)]));
  const files = new Map([...paths].map(([side, path]) => [side, openSync(path, 'w')]));
  const start = (side: Side) => ({ env: { LIGHTKEEPER_FAULT: 'trace:3' }, fd3: files.get(side) as number });
  await follow(scope, { start });
  const cuts: EffectCut[] = [];
  for (const [side, path] of paths) {
    closeSync(files.get(side) as number);
    const seen = new Map<string, number>();
    for (const label of readFileSync(path, 'utf8').split('\n').slice(0, -1)) {
      const nth = (seen.get(label) ?? 0) + 1;
      seen.set(label, nth);
      for (const phase of ['before', 'after']) cuts.push({ side, fault: `kill:${phase}:${label}:${nth}` });
    }
  }
  return cuts;
}

/** Share of the cuts that happen at a number of bytes. */
const BYTES_SHARE = 0.25;

/** Chooses cuts: at random numbers of bytes, and at effects, so that each label of each side is among them, if they suffice. */
export function someCuts(cuts: readonly EffectCut[], count: number, draw: Random): Cut[] {
  const places = ['source', 'follower', 'connection'] as const;
  const atBytes = Array.from({ length: Math.floor(count * BYTES_SHARE) }, (_, i) => ({
    side: places[i % places.length] as ByteCut['side'],
    bytes: draw(STATES * NEW_BYTES),
  }));
  const left = [...cuts].sort((x, y) => (x.side + x.fault < y.side + y.fault ? -1 : 1));
  for (let i = left.length - 1; i > 0; i--) {
    const k = draw(i + 1);
    [left[i], left[k]] = [left[k] as EffectCut, left[i] as EffectCut];
  }
  const firsts = new Map(left.map((one) => [`${one.side} ${labelOf(one)}`, one]));
  const atEffects = [...new Set([...firsts.values(), ...left])];
  return [...atBytes, ...atEffects].slice(0, count);
}

function labelOf({ fault }: EffectCut): string {
  return fault.replace(/^\w+:\w+:|:\d+$/g, '');
}

/** Runs one cut: both sides converge, and nothing that was acknowledged is missing. */
export async function runCut(scope: Scope, cut: Cut): Promise<Outcome> {
  const isStart = (side: Side) => 'fault' in cut && side === cut.side;
  const start = (side: Side) =>
    isStart(side) ? { env: { LIGHTKEEPER_FAULT: (cut as EffectCut).fault } } : {};
  try {
    return await follow(scope, 'bytes' in cut ? { start, cut } : { start });
  } catch (error) {
    throw new Error(`${JSON.stringify(cut)}: ${String(error)}`, { cause: error });
  }
}

/** Runs cuts, and returns how many kills happened, the most bytes that one cost, and what went wrong. */
export async function runCuts(
  cuts: readonly Cut[],
): Promise<{ met: number; again: number; failures: string[] }> {
  const sum = { met: 0, again: 0, failures: [] as string[] };
  await inParallel(LANES, cuts, async (cut) => {
    const undo: (() => Promise<void>)[] = [];
    try {
      const { met, again } = await runCut({ after: (step) => void undo.push(step) }, cut);
      if (met) sum.met += 1;
      sum.again = Math.max(sum.again, again);
    } catch (error) {
      sum.failures.push(String(error));
    } finally {
      for (const step of undo) await step();
    }
  });
  return sum;
}

/** Fails unless enough of the kills happened. */
export function assertMet(met: number, count: number): void {
  assert.ok(met >= count * MET_SHARE, `${met} of ${count} kills happened`);
}

/** The proof: hundreds of kills of a source and a follower. */
export async function run(log: (line: string) => void): Promise<void> {
  const seed = Number(process.env.LIGHTKEEPER_SEED ?? 1);
  const count = Number(process.env.LIGHTKEEPER_COUNT ?? 200);
  const undo: (() => Promise<void>)[] = [];
  const all = await allCuts({ after: (step) => void undo.push(step) });
  for (const step of undo) await step();
  const cuts = someCuts(all, count, random(seed));
  const labels = new Set(cuts.map((cut) => ('fault' in cut ? `${cut.side} ${labelOf(cut)}` : 'bytes')));
  labels.delete('bytes');
  log(`seed ${seed}: ${cuts.length} cuts, at ${labels.size} labels of both sides and at numbers of bytes`);
  const { met, again, failures } = await runCuts(cuts);
  log(`${met} kills happened; at most ${again} bytes were sent twice; ${failures.length} failures`);
  for (const failure of failures.slice(0, FAILURES_SHOWN)) log(failure);
  assert.equal(failures.length, 0, `${failures.length} failures`);
  assertMet(met, cuts.length);
}
