import assert from 'node:assert/strict';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type DescMessage, fromJsonString, type MessageShape, toJson } from '@bufbuild/protobuf';
import { type AgentClient, withStore } from '../../agent/main.ts';
import { snapshotView } from '../../agent/snapshots/views.ts';
import { Store } from '../../agent/store/store.ts';
import { lastOf } from '../../cli/await-result.ts';
import { idOf, isStored } from '../../core/snapshot.ts';
import { AnnotationSchema } from '../../gen/lightkeeper/store/v1/annotation_pb.ts';
import {
  DeleteSnapshotResponseSchema,
  GetStatsResponseSchema,
  ListSnapshotsResponseSchema,
  type PruneResult,
  PruneResultSchema,
  type RepairResult,
  RepairResultSchema,
  type RestoreResult,
  RestoreResultSchema,
  type Snapshot,
  SnapshotSchema,
  type SnapshotSummary,
  SnapshotSummarySchema,
  VerifyLevel_Value,
  VerifyResultSchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { type Ended, lightkeeper } from '../support/program.ts';
import { difference, readTree, type Tree } from '../support/tree.ts';

/** The graph of all stores here. */
export const GRAPH = 'g';
/** No change of a directory is this young when it is read. */
const QUIET_MS = 25;

/** What a prune keeps. */
export interface Policy {
  readonly last?: number;
  readonly hourly?: number;
  readonly withinMs?: number;
}

/** What people do with one store, by whichever way. */
export interface StoreCalls {
  readonly store: string;
  snapshot(dir: string): Promise<Snapshot>;
  list(): Promise<SnapshotSummary[]>;
  verify(level?: 'bytes' | 'structure'): Promise<Finding[]>;
  restore(snapshotId: string, to: string): Promise<RestoreResult>;
  prune(policy: Policy): Promise<PruneResult>;
  delete(snapshotId: string): Promise<void>;
  pin(snapshotId: string): Promise<void>;
  tag(snapshotId: string, tag: string): Promise<void>;
  acknowledge(snapshotId: string, reason: string): Promise<void>;
  repair(): Promise<RepairResult>;
  packs(): Promise<number>;
}

/** The store's calls in this process, opened and closed for each as the command line does it. */
export function callsInProcess(store: string): StoreCalls {
  const call = <T>(run: (client: AgentClient) => Promise<T>, create = false) =>
    withStore(store, { create }, run);
  return {
    store,
    snapshot: (dir) =>
      call(async (client) => {
        await sleep(QUIET_MS);
        const request = { dir: Buffer.from(dir), graphId: GRAPH, diskReserveBytes: 0n };
        // A window would grow with the pauses between these snapshots, which mean nothing on a busy machine.
        return await lastOf(client.createSnapshot({ ...request, quietMs: 0n }));
      }, true),
    list: () => call(async (client) => (await client.listSnapshots({})).snapshots),
    verify: (level = 'bytes') =>
      call(async (client) => {
        const wanted = level === 'bytes' ? VerifyLevel_Value.BYTES : VerifyLevel_Value.STRUCTURE;
        return (await lastOf(client.verifyStore({ level: wanted }))).findings;
      }),
    restore: (snapshotId, to) =>
      call((client) => {
        const target = { case: 'to' as const, value: Buffer.from(to) };
        return lastOf(client.restoreSnapshot({ snapshotId, target, diskReserveBytes: 0n }));
      }),
    prune: ({ last = 0, hourly = 0, withinMs = 0 }) =>
      call((client) =>
        lastOf(client.pruneSnapshots({ policy: { last, hourly, withinMs: BigInt(withinMs) } })),
      ),
    delete: (snapshotId) =>
      call(async (client) => {
        await client.deleteSnapshot({ snapshotId });
      }),
    pin: (snapshotId) =>
      call(async (client) => {
        await client.pinSnapshot({ snapshotId, pinned: true });
      }),
    tag: (snapshotId, tag) =>
      call(async (client) => {
        const [name = '', value = ''] = tag.split('=');
        await client.tagSnapshot({ snapshotId, set: { [name]: value } });
      }),
    acknowledge: (snapshotId, reason) =>
      call(async (client) => {
        await client.acknowledgeSnapshot({ snapshotId, reason });
      }),
    repair: async () => withStore(store, { recover: true }, (client) => lastOf(client.repairStore({}))),
    packs: () => call(async (client) => (await client.getStats({})).packs),
  };
}

/** Failures that a proof writes out; all are counted. */
export const FAILURES_SHOWN = 20;

const PROGRAM_MS_MAX = 60_000;

/** Runs the built program, with a fault, or with a trace of its effects to a file. */
export async function runBuilt(
  args: readonly string[],
  options: { fault?: string; trace?: string } = {},
): Promise<Ended> {
  const fd3 = options.trace === undefined ? undefined : openSync(options.trace, 'w');
  try {
    const fault = options.fault ?? (fd3 === undefined ? '' : 'trace:3');
    return await lightkeeper(args, {
      env: { LIGHTKEEPER_FAULT: fault },
      timeoutMs: PROGRAM_MS_MAX,
      ...(fd3 === undefined ? {} : { fd3 }),
    });
  } finally {
    if (fd3 !== undefined) closeSync(fd3);
  }
}

/** The command lines of the calls of a keeper. */
export const COMMANDS = {
  snapshot: (store: string, dir: string) =>
    ['snapshot', '--store', store, '--dir', dir, '--graph', GRAPH, '--quiet', `${QUIET_MS}ms`].concat([
      '--disk-reserve',
      '0',
      '--json',
    ]),
  list: (store: string) => ['list', '--store', store, '--json'],
  verify: (store: string, level: string) => ['verify', '--store', store, '--level', level, '--json'],
  restore: (store: string, id: string, to: string) => [
    'restore',
    '--store',
    store,
    '--snapshot',
    id,
    '--to',
    to,
    '--disk-reserve',
    '0',
    '--json',
  ],
  prune: (store: string, { last, hourly, withinMs }: Policy) => [
    ...['prune', '--store', store, '--json'],
    ...(last === undefined ? [] : ['--keep-last', `${last}`]),
    ...(hourly === undefined ? [] : ['--keep-hourly', `${hourly}`]),
    ...(withinMs === undefined ? [] : ['--keep-within', `${withinMs}ms`]),
  ],
  delete: (store: string, id: string) => ['delete', id, '--store', store, '--yes', '--json'],
  pin: (store: string, id: string) => ['pin', id, '--store', store, '--json'],
  tag: (store: string, id: string, tag: string) => ['tag', id, tag, '--store', store, '--json'],
  acknowledge: (store: string, id: string, reason: string) =>
    ['ack', id, '--reason', reason].concat(['--store', store, '--json']),
  repair: (store: string) => ['repair', '--store', store, '--json'],
  stats: (store: string) => ['stats', '--store', store, '--json'],
};

/** The same calls by the built program, a process each. */
export function callsByProgram(store: string): StoreCalls {
  const call = async <D extends DescMessage>(schema: D, args: string[]): Promise<MessageShape<D>> => {
    const { code, signal, stdout, stderr } = await runBuilt(args);
    assert.ok(code === 0 || code === 3, `${args.join(' ')}: exit ${code} ${signal}\n${stderr}`);
    return fromJsonString(schema, stdout);
  };
  return {
    store,
    snapshot: (dir) => call(SnapshotSchema, COMMANDS.snapshot(store, dir)),
    list: async () => (await call(ListSnapshotsResponseSchema, COMMANDS.list(store))).snapshots,
    verify: async (level = 'bytes') =>
      (await call(VerifyResultSchema, COMMANDS.verify(store, level))).findings,
    restore: (id, to) => call(RestoreResultSchema, COMMANDS.restore(store, id, to)),
    prune: (policy) => call(PruneResultSchema, COMMANDS.prune(store, policy)),
    delete: async (id) => {
      await call(DeleteSnapshotResponseSchema, COMMANDS.delete(store, id));
    },
    pin: async (id) => {
      await call(SnapshotSummarySchema, COMMANDS.pin(store, id));
    },
    tag: async (id, tag) => {
      await call(SnapshotSummarySchema, COMMANDS.tag(store, id, tag));
    },
    acknowledge: async (id, reason) => {
      await call(SnapshotSummarySchema, COMMANDS.acknowledge(store, id, reason));
    },
    repair: () => call(RepairResultSchema, COMMANDS.repair(store)),
    packs: async () => (await call(GetStatsResponseSchema, COMMANDS.stats(store))).packs,
  };
}

/** A folder for one test; `drop` removes it with all in it. */
export interface Scratch {
  readonly path: string;
  /** A name in it that nothing has. */
  fresh(name: string): string;
  drop(): void;
}

/** A disk in memory, where syncing costs nothing: for proofs that do not depend on what a real disk does. */
const MEMORY_DISK = '/dev/shm';
const MEMORY_FREE_MIN = 2 ** 31;

function memoryRoot(): string {
  if (!existsSync(MEMORY_DISK)) return tmpdir();
  const { bavail, bsize } = statfsSync(MEMORY_DISK);
  return bavail * bsize < MEMORY_FREE_MIN ? tmpdir() : MEMORY_DISK;
}

/** Makes a scratch folder, in memory where that is asked for and there is enough. */
export function scratch(name: string, options: { memory?: boolean } = {}): Scratch {
  const root = options.memory === true ? memoryRoot() : tmpdir();
  const path = mkdtempSync(join(root, `lightkeeper-${name}-`));
  let used = 0;
  return {
    path,
    fresh: (what) => join(path, `${what}-${++used}`),
    drop: () => rmSync(path, { recursive: true, force: true }),
  };
}

/** Restores a snapshot and fails unless it is the tree. */
export async function restoresTo(
  keeper: StoreCalls,
  snapshotId: string,
  wanted: Tree,
  to: string,
): Promise<void> {
  await keeper.restore(snapshotId, to);
  const wrong = difference(wanted, readTree(to));
  rmSync(to, { recursive: true });
  assert.equal(wrong, undefined, `snapshot ${snapshotId} restores to something else`);
}

/** What a store holds about one snapshot, as JSON. */
export type Said = Readonly<Record<string, unknown>>;

/** Returns what must be kept of a snapshot as a call returned it: all but what the index alone has. */
export function saidOf(snapshot: Snapshot): Said {
  const {
    confirmedAt: _index,
    unchanged: _call,
    ...said
  } = toJson(SnapshotSchema, snapshot, {
    alwaysEmitImplicit: true,
  }) as Readonly<Record<string, unknown>>;
  return said;
}

/** All that a store holds about its snapshots; it must survive the loss of the index. */
export interface Portrait {
  /** By the id of the snapshot. */
  readonly snapshots: ReadonlyMap<string, Said>;
  /** The annotations of each snapshot as they are stored, of whatever kind. */
  readonly annotations: ReadonlyMap<string, readonly unknown[]>;
}

/** Reads all that a store holds about its snapshots. */
export async function portrait(keeper: StoreCalls): Promise<Portrait> {
  // The keeper comes first: an index that is missing is made by what it calls.
  const listed = (await keeper.list()).map(({ snapshotId }) => snapshotId);
  const snapshots = new Map<string, Said>();
  const annotations = new Map<string, readonly unknown[]>();
  const store = await Store.open(keeper.store);
  try {
    for (const side of [false, true])
      for await (const [, snapshot] of store.index.records({ side })) {
        if (!isStored(snapshot)) continue;
        snapshots.set(idOf(snapshot), saidOf(snapshotView(snapshot)));
        annotations.set(
          idOf(snapshot),
          snapshot.record.annotations.map((annotation) => toJson(AnnotationSchema, annotation)),
        );
      }
  } finally {
    await store.close();
  }
  assert.deepEqual([...snapshots.keys()].sort(), listed.sort(), 'the list names every snapshot');
  return { snapshots, annotations };
}

/** Names of the packs that are there. */
export function packFiles(store: string, folder = 'packs'): string[] {
  const root = join(store, folder);
  if (!existsSync(root)) return [];
  return readdirSync(root, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.pack'))
    .map((name) => join(root, name))
    .sort();
}

/** Every file of a folder with its bytes, by its path from there. */
export function filesIn(folder: string): Map<string, Buffer> {
  const found = new Map<string, Buffer>();
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    found.set(path.slice(folder.length + 1), readFileSync(path));
  }
  return found;
}

/** Runs tasks, `width` at a time; the first failure ends it. */
export async function inParallel<T>(
  width: number,
  items: readonly T[],
  run: (item: T) => Promise<void>,
): Promise<void> {
  let next = 0;
  const lane = async () => {
    while (next < items.length) await run(items[next++] as T);
  };
  await Promise.all(Array.from({ length: width }, lane));
}
