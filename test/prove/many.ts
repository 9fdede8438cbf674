import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { create } from '@bufbuild/protobuf';
import { type AgentClient, inProcessClient } from '../../agent/api/client.ts';
import { Store } from '../../agent/store/store.ts';
import { lastOf } from '../../cli/await-result.ts';
import {
  CreateSnapshotRequestSchema,
  PruneSnapshotsRequestSchema,
  RetentionPolicySchema,
  VerifyLevel_Value,
} from '../../gen/lightkeeper/v1/agent_pb.ts';

const SNAPSHOTS = Number(process.env.LIGHTKEEPER_COUNT ?? 100_000);
/** States are written ahead: one that was written this instant is not believed to be at rest. */
const DIRECTORIES = 20;
const MARKS = new Set([100, 1000, 10_000, 30_000, 100_000, SNAPSHOTS]);

async function timed<T>(run: () => Promise<T>): Promise<[value: T, ms: number]> {
  const began = performance.now();
  const value = await run();
  return [value, performance.now() - began];
}

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** What is held in memory once garbage is gone, and the resident set, which the system gives back late. */
function rssMb(): string {
  collectGarbage();
  const { heapUsed, external, rss } = process.memoryUsage();
  return `${((heapUsed + external) / 1e6).toFixed(0)} MB held, ${(rss / 1e6).toFixed(0)} MB resident`;
}

/** Writes the n-th state of the graph, into one of the directories in turn. */
async function writeState(dir: string, n: number): Promise<void> {
  const state = JSON.stringify({ n, text: `answer ${n}` });
  await writeFile(join(`${dir}${n % DIRECTORIES}`, 'kv_store_llm_response_cache.json'), state);
}

/** A small graph with very many snapshots: what a command costs then, and what it holds in memory. */
export async function run(log: (line: string) => void): Promise<void> {
  const place = await mkdtemp(join(tmpdir(), 'lightkeeper-many-'));
  const dir = join(place, 'graph');
  const root = join(place, 'store');
  for (let i = 0; i < DIRECTORIES; i++) {
    await mkdir(`${dir}${i}`);
    await writeFile(join(`${dir}${i}`, 'kv_store_full_docs.json'), JSON.stringify({ doc: 'x'.repeat(3000) }));
    await writeFile(join(`${dir}${i}`, 'graph.graphml'), '<graphml/>'.repeat(100));
    await writeState(dir, i);
  }
  try {
    await many({ dir, root, place }, log);
  } finally {
    await rm(place, { recursive: true, force: true });
  }
}

interface Place {
  readonly dir: string;
  readonly root: string;
  readonly place: string;
}

async function many({ dir, root, place }: Place, log: (line: string) => void): Promise<void> {
  let store = await Store.open(root, { create: true });
  let client = inProcessClient(store);
  const settings = { graphId: 'g', quietMs: 0n, diskReserveBytes: 0n };
  log(`snapshots | one snapshot (median of the last 100) | first page | whole list | open | memory`);
  let recent: number[] = [];
  for (let n = 1; n <= SNAPSHOTS; n++) {
    const request = create(CreateSnapshotRequestSchema, {
      ...settings,
      dir: Buffer.from(`${dir}${(n - 1) % DIRECTORIES}`),
    });
    const [snapshot, ms] = await timed(() => lastOf(client.createSnapshot(request)));
    await writeState(dir, n + DIRECTORIES - 1);
    if (snapshot.unchanged || snapshot.position?.sequence !== BigInt(n)) {
      throw new Error(
        `snapshot ${n} is number ${snapshot.position?.sequence}, unchanged: ${snapshot.unchanged}`,
      );
    }
    recent = [...recent.slice(-99), ms];
    if (!MARKS.has(n)) continue;
    const median = [...recent].sort((a, b) => a - b)[Math.floor(recent.length / 2)] ?? Number.NaN;
    const [, firstPage] = await timed(() => client.listSnapshots({ pageSize: 100 }));
    const [count, whole] = await timed(() => listAll(client));
    if (count !== n) throw new Error(`${count} snapshots are listed instead of ${n}`);
    await store.close();
    const [opened, open] = await timed(() => Store.open(root));
    store = opened;
    client = inProcessClient(store);
    log(
      `${n} | ${median.toFixed(1)} ms | ${firstPage.toFixed(0)} ms | ${whole.toFixed(0)} ms | ${open.toFixed(0)} ms | ${rssMb()}`,
    );
  }
  await pruneAndProve({ dir, root, place }, client, log);
  await store.close();
}

async function listAll(client: AgentClient): Promise<number> {
  let count = 0;
  for (let token = ''; ; ) {
    const page = await client.listSnapshots({ pageSize: 1000, pageToken: token });
    count += page.snapshots.length;
    token = page.nextPageToken;
    if (token === '') return count;
  }
}

async function pruneAndProve(
  { place }: Place,
  client: AgentClient,
  log: (line: string) => void,
): Promise<void> {
  const policy = create(RetentionPolicySchema, { last: 1000 });
  const plan = create(PruneSnapshotsRequestSchema, { policy, dryRun: true });
  const [, planMs] = await timed(() => lastOf(client.pruneSnapshots(plan)));
  log(`prune --keep-last 1000 --dry-run: ${(planMs / 1000).toFixed(1)} s, ${rssMb()}`);
  const [result, pruneMs] = await timed(() => lastOf(client.pruneSnapshots({ policy })));
  log(
    `prune --keep-last 1000: ${(pruneMs / 1000).toFixed(1)} s, ${result.remove.length} removed, ` +
      `${(Number(result.bytesFreed) / 1e6).toFixed(0)} MB freed, ${rssMb()}`,
  );
  const stats = await client.getStats({});
  log(
    `left: ${stats.snapshots} snapshots in ${stats.packs} packs, ${(Number(stats.storedBytes) / 1e6).toFixed(1)} MB`,
  );
  const [again, againMs] = await timed(() => lastOf(client.pruneSnapshots({ policy })));
  log(`the same again: ${(againMs / 1000).toFixed(1)} s, ${again.remove.length} removed`);
  const [verified, verifyMs] = await timed(() =>
    lastOf(client.verifyStore({ level: VerifyLevel_Value.BYTES })),
  );
  if (verified.findings.length > 0) throw new Error(`verify found ${verified.findings.length} problems`);
  log(
    `verify --level bytes: ${(verifyMs / 1000).toFixed(1)} s, ${verified.checkedSnapshots} snapshots, nothing wrong`,
  );
  const restored = await lastOf(
    client.restoreSnapshot({
      snapshotId: 'latest',
      target: { case: 'to', value: Buffer.from(join(place, 'back')) },
      diskReserveBytes: 0n,
    }),
  );
  log(`restore of the newest: ${restored.durationMs} ms, ${restored.files} files`);
}
