import assert from 'node:assert/strict';
import { cpSync, rmSync } from 'node:fs';
import { type AgentClient, inProcessClient } from '../../agent/api/client.ts';
import { Store } from '../../agent/store/store.ts';
import { lastOf } from '../../cli/await-result.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { watchEffects } from '../../host/disk.ts';
import { fromConnect } from '../../host/rpc-errors.ts';
import { readTree, type Tree } from '../support/tree.ts';
import { makeGraphs, makeTree, SHRUNK_VERSION } from './random-tree.ts';
import {
  callsInProcess,
  FAILURES_SHOWN,
  GRAPH,
  type Portrait,
  portrait,
  restoresTo,
  type Scratch,
  scratch,
} from './store-calls.ts';
import {
  acknowledgedAs,
  annotate,
  checkAnnotated,
  checkPositions,
  checkRebuilt,
  checkSaid,
} from './store-checks.ts';

const ACKNOWLEDGE = 'acknowledge';
const ANOTHER = 'another reason';

/** A call on a store that stays open, as an agent makes it. */
interface Call {
  readonly name: string;
  readonly run: (service: AgentClient) => Promise<unknown>;
}

/** A full disk, or a broken one, at one effect of one call. */
export interface HeldCase {
  readonly call: Call;
  readonly label: string;
  readonly nth: number;
  readonly code: string;
}

/** A store with two snapshots, calls on it, and all the places where they can fail. */
export interface Held {
  readonly seed: number;
  readonly folder: Scratch;
  readonly store: string;
  readonly first: string;
  /** It has an alarm that was acknowledged. */
  readonly second: string;
  readonly trees: ReadonlyMap<string, Tree>;
  /** What the store holds about the two. */
  readonly said: Portrait['snapshots'];
  readonly next: string;
  readonly cases: readonly HeldCase[];
}

function snapshotOf(dir: string): (client: AgentClient) => Promise<{ snapshotId: string }> {
  const request = {
    dir: Buffer.from(dir),
    graphId: GRAPH,
    quietMs: 25n,
    settleTimeoutMs: 5000n,
    diskReserveBytes: 0n,
  };
  return (client) => lastOf(client.createSnapshot(request));
}

async function withClient<T>(root: string, run: (client: AgentClient) => Promise<T>): Promise<T> {
  const store = await Store.open(root);
  try {
    return await run(inProcessClient(store));
  } finally {
    await store.close();
  }
}

/** Labels of a call's effects, in their order. */
async function labelsOf(held: Pick<Held, 'folder' | 'store'>, { run }: Call): Promise<string[]> {
  const store = held.folder.fresh('store');
  cpSync(held.store, store, { recursive: true, preserveTimestamps: true });
  const labels: string[] = [];
  await withClient(store, async (client) => {
    const stop = watchEffects((phase, { label }) => {
      if (phase === 'before') labels.push(label);
    });
    await run(client).finally(stop);
  });
  rmSync(store, { recursive: true });
  return labels;
}

/** Makes the store and finds the places; the same on every call with one seed. */
export async function makeHeld(seed: number): Promise<Held> {
  const folder = scratch('held', { memory: true });
  const keeper = callsInProcess(folder.fresh('base'));
  const trees = new Map<string, Tree>();
  const graphs = await makeGraphs(seed);
  const dirs = Array.from({ length: 4 }, (_, i) => {
    const dir = folder.fresh('dir');
    // The second one raises an alarm.
    makeTree(dir, seed, { version: SHRUNK_VERSION - 1 + i, graphs });
    return dir;
  });
  for (const dir of dirs.slice(0, 2))
    trees.set(await annotate(keeper, await keeper.snapshot(dir)), readTree(dir));
  const [first = '', second = ''] = trees.keys();
  const { snapshots: said } = await portrait(keeper);
  checkAnnotated(said);
  const calls: Call[] = [
    { name: 'snapshot', run: snapshotOf(dirs[2] as string) },
    { name: 'unchanged snapshot', run: snapshotOf(dirs[1] as string) },
    { name: 'prune', run: (client) => lastOf(client.pruneSnapshots({ policy: { last: 1 } })) },
    { name: 'repair', run: (client) => lastOf(client.repairStore({})) },
    {
      name: 'delete',
      run: (client) => client.deleteSnapshot({ snapshotId: first, graphId: GRAPH, reason: 'a test' }),
    },
    {
      name: ACKNOWLEDGE,
      run: (client) => client.acknowledgeSnapshot({ snapshotId: second, graphId: GRAPH, reason: ANOTHER }),
    },
  ];
  const cases: HeldCase[] = [];
  for (const call of calls) {
    const seen = new Map<string, number>();
    for (const label of await labelsOf({ folder, store: keeper.store }, call)) {
      const nth = (seen.get(label) ?? 0) + 1;
      seen.set(label, nth);
      for (const code of ['ENOSPC', 'EIO']) cases.push({ call, label, nth, code });
    }
  }
  return { seed, folder, store: keeper.store, first, second, trees, said, next: dirs[3] as string, cases };
}

/** Why a point could not be looked into: it is there all the same. */
function ungraded(result: unknown): string | undefined {
  const { findings = [] } = result as { findings?: readonly Finding[] };
  return findings.find((finding) => finding.code === 'not_graded')?.message;
}

/** Share of the cases in which the disk must have failed. */
export const MET_SHARE = 0.8;

/**
 * The disk fails once during a call; then, without the store having been closed, all goes on. Returns whether it
 * failed: how often an effect occurs in a call depends on names, which are those of other bytes in each run, and on time.
 */
export async function runHeld(held: Held, { call, label, nth, code }: HeldCase): Promise<boolean> {
  let isMet = false;
  const keeper = callsInProcess(held.folder.fresh('store'));
  cpSync(held.store, keeper.store, { recursive: true, preserveTimestamps: true });
  try {
    let further = '';
    await withClient(keeper.store, async (client) => {
      let seen = 0;
      const stop = watchEffects((phase, effect) => {
        if (phase !== 'before' || effect.label !== label || ++seen < nth) return;
        throw Object.assign(new Error(`${code}: injected`), { code });
      });
      const said = await call.run(client).then(ungraded, (error: unknown) => {
        const { code: what, message } = fromConnect(error);
        return what === 'IO' ? message : undefined;
      });
      stop();
      isMet = seen >= nth;
      if (isMet) assert.equal(said?.includes(code), true, `it says why: ${said}`);
      const prunes = call.name === 'prune' || call.name === 'delete';
      // What failed may have been done all the same: then it is not there to be done again.
      await call.run(client).catch((error: unknown) => {
        if (call.name !== 'delete' || fromConnect(error).code !== 'NOT_FOUND') throw error;
      });
      further = (await snapshotOf(held.next)(client)).snapshotId;
      const list = (await client.listSnapshots({})).snapshots.map(({ snapshotId }) => snapshotId);
      for (const id of held.trees.keys())
        assert.equal(list.includes(id), !(prunes && id === held.first), `${id} is listed`);
    });
    assert.deepEqual(await keeper.verify(), []);
    await restoresTo(keeper, further, readTree(held.next), held.folder.fresh('restored'));
    await checkPositions(keeper);
    const said = new Map(held.said);
    if (call.name === ACKNOWLEDGE) said.set(held.second, acknowledgedAs(said.get(held.second), ANOTHER));
    await checkSaid(keeper, { said });
    await checkRebuilt(keeper, new Set());
    const ids = (await keeper.list()).map(({ snapshotId }) => snapshotId);
    for (const [id, tree] of held.trees)
      if (ids.includes(id)) await restoresTo(keeper, id, tree, held.folder.fresh('restored'));
    return isMet;
  } catch (error) {
    throw new Error(`${call.name}, ${code} at ${label} ${nth}, seed ${held.seed}: ${String(error)}`, {
      cause: error,
    });
  } finally {
    rmSync(keeper.store, { recursive: true, force: true });
  }
}

/** The proof: every effect of every call fails once. */
export async function run(log: (line: string) => void): Promise<void> {
  const held = await makeHeld(Number(process.env.LIGHTKEEPER_SEED ?? 1));
  const failures: string[] = [];
  let met = 0;
  const started = performance.now();
  try {
    // One at a time: the watcher of effects belongs to the whole process.
    for (const one of held.cases) {
      try {
        if (await runHeld(held, one)) met += 1;
      } catch (error) {
        failures.push(String(error));
      }
    }
  } finally {
    held.folder.drop();
  }
  const seconds = ((performance.now() - started) / 1000).toFixed(0);
  log(
    `seed ${held.seed}: ${held.cases.length} failures of the disk, ${met} of them met, ${failures.length} failures, ${seconds} s`,
  );
  for (const failure of failures.slice(0, FAILURES_SHOWN)) log(failure);
  assert.equal(failures.length, 0, `${failures.length} failures`);
  assert.ok(met >= held.cases.length * MET_SHARE, `${met} of ${held.cases.length} were met`);
}
