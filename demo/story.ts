import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { withStore } from '../agent/main.ts';
import { collectExport, lastOf } from '../cli/await-result.ts';
import { LightkeeperError } from '../core/errors.ts';
import { type Snapshot, VerifyLevel_Value, type VerifyResult } from '../gen/lightkeeper/v1/agent_pb.ts';
import { CutMethod_Value, Grade_Value, Severity_Value } from '../gen/lightkeeper/v1/types_pb.ts';
import { durationText, sizeText } from '../host/quantity.ts';
import { DemoAgent, type SnapshotLog } from './demo-agent.ts';
import { StandIn } from './standin.ts';

const GRAPH = 'demo';
const DOCUMENTS = 2;
/** Settle timeout and quiet window of a hasty snapshot, in milliseconds. */
// Both are shorter than a flush, and the window than the pause between two files of it.
const HURRY_MS = 200;
const HURRY_QUIET_MS = 20;
/** Start of the graph ids of hasty snapshots. */
// Each has an id of its own, for which no quiet window has been learned.
const HURRIED = 'hurried-';
/** Most documents that are deleted until one flush is seen. */
const ATTEMPTS = 3;
/** Part of the summary of a point that lost a document. */
const DELETED = '−1 document';

/** Returns the SHA-256 and name of each file, as `sha256sum` prints them. */
async function sha256Tree(dir: string): Promise<string[]> {
  const lines: string[] = [];
  for (const name of (await readdir(dir)).sort()) {
    const hash = createHash('sha256').update(await readFile(join(dir, name)));
    lines.push(`${hash.digest('hex')}  ${name}`);
  }
  return lines;
}

function say(line = ''): void {
  process.stdout.write(`${line}\n`);
}

/** Demonstrates the main job on a generated graph. Throws if a claim does not hold. */
export async function runDemo(options: { keep: boolean }): Promise<void> {
  const place = await mkdtemp(join(tmpdir(), 'lightkeeper-demo-'));
  try {
    await runSteps(place);
  } finally {
    if (options.keep) say(`the files are in ${place}`);
    else await rm(place, { recursive: true, force: true });
  }
}

/** The folders of the demo: a directory and a store on the first machine, a store on the second. */
interface Places {
  readonly dir: string;
  readonly store: string;
  readonly secondStore: string;
}

async function runSteps(place: string): Promise<void> {
  const dir = join(place, 'rag_storage');
  const places = { dir, store: join(place, 'points'), secondStore: join(place, 'second-machine') };
  const beganMs = performance.now();
  say('1. An instance with its working directory, an agent beside it, and a second agent that follows');
  let instance = await StandIn.start(dir);
  try {
    say(`   ${await instance.summary()}`);
    const before = await protectInstance(places, instance);
    await instance.kill();
    for (const lost of [dir, places.store]) await rm(lost, { recursive: true });
    say('   kill -9, rm -rf of the directory and of its points: gone');
    say();
    await restoreAndCompare(places.secondStore, dir, before.tree);
    instance = await StandIn.start(dir);
    if ((await instance.digest()) !== before.digest) {
      throw new LightkeeperError(
        'INTERNAL',
        'Cannot run the demo: the instance serves other data than before',
      );
    }
    say(`   the instance starts from it and serves the same data as before: ${before.digest.slice(0, 16)}…`);
  } finally {
    await instance.kill();
  }
  say();
  await printCost(places.secondStore);
  say();
  say(`the demo took ${durationText(performance.now() - beganMs)}`);
}

/** The directory and the instance before the loss. */
interface Before {
  readonly tree: readonly string[];
  readonly digest: string;
}

/** Protects the directory while the instance writes to it, and returns the state before the loss. */
async function protectInstance({ dir, store, secondStore }: Places, instance: StandIn): Promise<Before> {
  const first = await DemoAgent.start({
    '--dir': dir,
    '--graph': GRAPH,
    '--store': store,
    '--name': 'first',
    '--instance-url': instance.url,
  });
  try {
    const names = { '--graph': GRAPH, '--store': secondStore, '--name': 'second' };
    const second = await DemoAgent.start({ ...names, '--follow': first.url });
    try {
      await first.log.atLeast(1);
      say(`   first point: ${pointText(first.log.all[0])}`);
      await held(second, first);
      say('   the second machine holds it too');
      say();
      say('2. The instance writes; every settled change becomes a point');
      await write(instance, first, second);
      await printDiff(store, first.log);
      say();
      const lost = await deleteAndCapture(dir, store, instance, first.log);
      say();
      await exportLostDocument(store, lost);
      say();
      await damageAndHeal(store, first);
      say();
      say('6. The first machine is lost');
      await held(second, first);
      for (const line of await sha256Tree(dir)) say(`   ${line}`);
    } finally {
      await second.stop();
    }
  } finally {
    await first.stop();
  }
  return { tree: await sha256Tree(dir), digest: await instance.digest() };
}

/** Waits until the second agent holds and has graded the newest point of the first. */
async function held(second: DemoAgent, first: DemoAgent): Promise<void> {
  const newest = first.log.all.at(-1)?.snapshotId;
  await second.log.until(0, ({ snapshotId }) => snapshotId === newest);
}

function pointText(snapshot: Snapshot | undefined): string {
  if (snapshot === undefined) return '-';
  const { snapshotId, grade, rawBytes, newBytes, storedBytes, durationMs, gradeMs } = snapshot;
  return (
    `${snapshotId.slice(0, 12)} ${Grade_Value[grade]}  ${sizeText(Number(rawBytes))}, ${sizeText(Number(newBytes))} new, ` +
    `${sizeText(Number(storedBytes))} stored, ${durationText(durationMs)} and ${durationText(gradeMs)} to grade`
  );
}

/** Lets the instance write. */
// A change of the cache alone is not urgent: it comes with the next document.
async function write(instance: StandIn, first: DemoAgent, second: DemoAgent): Promise<void> {
  const { log } = first;
  for (let step = 1; step <= DOCUMENTS; step++) {
    await instance.query();
    await instance.ingest();
    const wroteMs = performance.now();
    await log.until(log.all.length, (snapshot) => snapshot.grade === Grade_Value.VALID);
    const lag = durationText(performance.now() - wroteMs);
    say(`   a query and a document → ${pointText(log.all.at(-1))}  (${lag} after the write)`);
    const takenMs = performance.now();
    await held(second, first);
    say(
      `   received, hashed and graded on the second machine ${durationText(performance.now() - takenMs)} later`,
    );
  }
}

/** Prints what the last ingested document changed. */
async function printDiff(store: string, log: SnapshotLog): Promise<void> {
  const [before, after] = log.all.filter(({ unchanged }) => !unchanged).slice(-2);
  const diff = await withStore(store, { reading: true }, (client) =>
    client.diffSnapshots({ fromSnapshotId: before?.snapshotId ?? '', toSnapshotId: after?.snapshotId ?? '' }),
  );
  const kinds = ['documents', 'chunks', 'entities', 'relations'] as const;
  const counts = kinds.map((kind) => {
    const { addedCount = 0n, changedCount = 0n } = diff[kind] ?? {};
    return `${kind} +${addedCount} ~${changedCount}`;
  });
  say(`   what that document changed: ${counts.join(', ')}`);
  say(`   new among them: ${diff.entities?.added.slice(0, 3).join(', ')}`);
}

async function snapshotNow(store: string, dir: string, graphId: string): Promise<Snapshot> {
  return await withStore(store, {}, async (client) => {
    const request = {
      dir: Buffer.from(dir),
      graphId,
      settleTimeoutMs: BigInt(HURRY_MS),
      quietMs: BigInt(HURRY_QUIET_MS),
    };
    for await (const { event } of client.createSnapshot(request))
      if (event.case === 'result') return event.value;
    throw new LightkeeperError('INTERNAL', 'Cannot run the demo: a snapshot ended without a result');
  });
}

/** A deleted document, and the point before its deletion. */
interface Lost {
  readonly documentId: string;
  readonly snapshotId: string;
}

/** Deletes a document, takes a snapshot within the flush, and shows that it cannot be restored by mistake. */
async function deleteAndCapture(
  dir: string,
  store: string,
  instance: StandIn,
  log: SnapshotLog,
): Promise<Lost> {
  say('3. A document is deleted by mistake, and a snapshot is forced between two files of the flush');
  let before = '';
  let documentId = '';
  let seen = 0;
  let flush: Promise<unknown> = Promise.resolve();
  let torn: Snapshot | undefined;
  // On a busy machine a flush may be over before a snapshot is taken.
  for (let attempt = 1; torn === undefined && attempt <= ATTEMPTS; attempt++) {
    await flush;
    if (attempt > 1) await log.until(seen, ({ usable, summary }) => usable && summary.includes(DELETED));
    before = log.all.findLast(({ usable }) => usable)?.snapshotId ?? '';
    documentId = await instance.newest();
    seen = log.all.length;
    let flushing = true;
    flush = instance.deleteDocument(documentId).finally(() => {
      flushing = false;
    });
    for (let n = 1; flushing && torn === undefined; n++) {
      const taken = await snapshotNow(store, dir, `${HURRIED}${attempt}-${n}`);
      const byContent = taken.grade === Grade_Value.TORN && taken.cutMethod === CutMethod_Value.SETTLED;
      if (byContent) torn = taken;
    }
  }
  if (torn === undefined)
    throw new LightkeeperError(
      'INTERNAL',
      'Cannot run the demo: no snapshot within the flush was recognised as torn',
    );
  const why = torn.findings.find(({ severity }) => severity === Severity_Value.ERROR);
  say(`   ${torn.snapshotId.slice(0, 12)}: every file is whole, but the graph is TORN`);
  say(`   ${why?.object}: ${why?.message.split(': ')[0]}`);
  say(`   a restore of it is refused: ${await refusal(store, torn, `${dir}-torn`)}`);
  await flush;
  await log.until(seen, ({ usable, summary }) => usable && summary.includes(DELETED));
  say(`   after the flush → ${pointText(log.all.at(-1))}`);
  say(`   it records: ${log.all.at(-1)?.summary}`);
  return { documentId, snapshotId: before };
}

async function refusal(store: string, torn: Snapshot, to: string): Promise<string> {
  const target = { case: 'to' as const, value: Buffer.from(to) };
  const request = { snapshotId: torn.snapshotId, target, diskReserveBytes: 0n };
  const outcome = await withStore(store, {}, async (client) => {
    for await (const { event } of client.restoreSnapshot(request)) if (event.case === 'result') break;
    return undefined;
  }).catch((error: unknown) => (error instanceof LightkeeperError ? error.message : String(error)));
  if (outcome !== undefined) return outcome;
  throw new LightkeeperError('INTERNAL', 'Cannot run the demo: a torn point was restored');
}

/** Exports a deleted document from the point before. */
async function exportLostDocument(store: string, { documentId, snapshotId }: Lost): Promise<void> {
  say('4. The deleted document is taken from the point before');
  const { exported, chunks } = await withStore(store, { reading: true }, (client) =>
    collectExport(client.exportDocument({ snapshotId, documentId })),
  );
  const content = String(exported.document?.content ?? '');
  if (content === '')
    throw new LightkeeperError('INTERNAL', 'Cannot run the demo: the exported document is empty');
  say(`   lightkeeper export --snapshot ${snapshotId.slice(0, 12)} --document ${documentId}`);
  say(`   returns its text, ${content.length} characters in ${chunks.length} chunks, to be ingested again`);
}

/** Flips one bit of a file of the store, and shows that the agent fetches what is lost from its follower. */
async function damageAndHeal(store: string, first: DemoAgent): Promise<void> {
  say('5. One bit of the first store flips on its disk');
  const name = await flipBit(join(store, 'packs'));
  const damaged = await verify(store);
  const needing = new Set(damaged.findings.flatMap(({ snapshots }) => snapshots));
  const points = first.log.all.filter(({ graphId }) => graphId === GRAPH).map(({ snapshotId }) => snapshotId);
  const affected = new Set(points.filter((id) => needing.has(id)));
  if (affected.size === 0)
    throw new LightkeeperError('INTERNAL', 'Cannot run the demo: the check of the store finds no damage');
  say(`   in pack ${name.slice(0, 12)}; verify reads every byte: ${affected.size} points need what is lost`);
  const { snapshotIds, units, from } = await first.untilHealed();
  say(
    `   the agent heals by itself: what is lost came from ${from.join(', ')} (${units} unit${units === 1 ? '' : 's'}), and ${snapshotIds.length} points are whole again`,
  );
  const { findings, checkedBytes } = await verify(store);
  const [left] = findings;
  if (left !== undefined)
    throw new LightkeeperError('INTERNAL', `Cannot run the demo: the store is not whole: ${left.message}`);
  say(`   verify reads ${sizeText(Number(checkedBytes))} again, and finds nothing`);
}

async function verify(store: string): Promise<VerifyResult> {
  return await withStore(store, {}, (client) =>
    lastOf(client.verifyStore({ level: VerifyLevel_Value.BYTES })),
  );
}

/** Flips a bit in the middle of the largest pack. Returns its name. */
async function flipBit(packs: string): Promise<string> {
  const names = await readdir(packs, { recursive: true });
  const files = names.filter((name) => name.endsWith('.pack'));
  const sizes = await Promise.all(files.map(async (name) => (await stat(join(packs, name))).size));
  const largest = files[sizes.indexOf(Math.max(...sizes))] ?? '';
  const bytes = await readFile(join(packs, largest));
  const at = bytes.length >> 1;
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  await writeFile(join(packs, largest), bytes);
  return basename(largest);
}

async function restoreAndCompare(store: string, dir: string, before: readonly string[]): Promise<void> {
  say('7. The directory is restored from the second machine');
  const began = performance.now();
  await withStore(store, {}, async (client) => {
    const events = client.restoreSnapshot({
      snapshotId: 'latest-valid',
      graphId: GRAPH,
      target: { case: 'to', value: Buffer.from(dir) },
      diskReserveBytes: 0n,
    });
    for await (const { event } of events) {
      if (event.case !== 'result') continue;
      const { files, bytes } = event.value;
      say(
        `   ${files} files, ${sizeText(Number(bytes))}, read back and hashed, in ${durationText(performance.now() - began)}`,
      );
    }
  });
  const after = await sha256Tree(dir);
  for (const line of after) say(`   ${line}`);
  if (after.join('\n') !== before.join('\n')) {
    throw new LightkeeperError('INTERNAL', 'Cannot run the demo: the restored files differ');
  }
  say(`   both lists are equal: ${after.length} files, byte for byte`);
}

async function printCost(store: string): Promise<void> {
  const stats = await withStore(store, { reading: true }, (client) => client.getStats({ graphId: GRAPH }));
  say(
    `8. Storage: ${stats.snapshots} points of ${sizeText(Number(stats.rawBytes))} in all take ` +
      `${sizeText(Number(stats.storedBytes))} (${(stats.savedRatio * 100).toFixed(0)} % saved)`,
  );
}
