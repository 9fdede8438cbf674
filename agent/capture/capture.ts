import { setTimeout as sleep } from 'node:timers/promises';
import { must } from '../../core/assert.ts';
import { LightkeeperError } from '../../core/errors.ts';
import type { BytePath } from '../../core/path.ts';
import { epochOf } from '../../core/position.ts';
import type { OnProgress } from '../../core/progress.ts';
import { learnNothing, learnPauses, quietWindowMs } from '../../core/quiet.ts';
import type { StoredSnapshot } from '../../core/snapshot.ts';
import type { ListRoot, PositionEntry } from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import { CutMethod_Value, type Epoch, type Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { monotonic, now } from '../../host/clock.ts';
import { checkReserve } from '../../host/disk-reserve.ts';
import type { CaptureHooks } from '../instance/hooks.ts';
import type { InstanceWatch } from '../instance/instance-watch.ts';
import type { InstanceSettings } from '../instance/probe.ts';
import { type CapturePermit, checkCapture, type GraphSource } from '../snapshots/source-directory.ts';
import { packChangeTimes } from '../store/index/change-times.ts';
import type { IndexBatch } from '../store/index/store-index.ts';
import type { Store } from '../store/store.ts';
import { sameFiles, Transaction } from '../store/transaction.ts';
import { type Entry, firstDifference, type Scan, type ScanOptions, scan } from '../watch/scan.ts';
import type { TempWriters } from '../watch/temp-writers.ts';
import type { SeenScan } from '../watch/watcher.ts';
import { FileReader, type FileToRead } from './file-reader.ts';
import {
  buildManifest,
  changedCutFinding,
  isSecondName,
  mintEpoch,
  type ReadDirectory,
  storeFileList,
} from './manifest-builder.ts';
import { hasRestoredTime, loadParent, missingManifest, type ParentSnapshot } from './parent.ts';
import type { Cut, Quiesce } from './quiesce.ts';
import { type Settled, waitUntilQuiet } from './settle.ts';

/** Most attempts that start over because something changed. The next one captures the directory as it is. */
const RETRIES_MAX = 3;

/** Most milliseconds of waiting for a directory while the store is locked. */
const LOCKED_SETTLE_MAX_MS = 30_000;

/** Default of `patienceMs`. */
const PATIENCE_MS = 8000;

/** Least milliseconds between two attempts. */
// It is longer than a tick of a filesystem's clock, so that a second write changes the times.
const RETRY_WAIT_MIN_MS = 25;

/** A request to capture one directory. Commands, the API and the watcher all make this. */
export interface CaptureRequest extends GraphSource {
  /** Least milliseconds without a change before the read; 0 for no wait. */
  readonly quietMs: number;
  /** Milliseconds to wait for the quiet window before the directory is captured as it is. */
  readonly settleTimeoutMs: number;
  /** Patterns of names that are not captured. */
  readonly exclude: readonly string[];
  /** Returns the direct subfolders that are graphs of their own. */
  readonly workspaces?: (() => ReadonlySet<BytePath>) | undefined;
  readonly tags: Readonly<Record<string, string>>;
  readonly description: string;
  /** Bytes that must stay free; undefined for the formula, 0 for no check. */
  readonly reserveBytes: bigint | undefined;
  readonly instance?: InstanceSettings | undefined;
  /** The watch of the instance, if an agent has one. */
  readonly watch?: InstanceWatch | undefined;
  readonly hooks?: CaptureHooks | undefined;
  /** Whether the operator has stated that the instance is stopped. */
  readonly instanceStopped?: boolean | undefined;
  /** Milliseconds after which the capture demands less rest; undefined for the default. */
  readonly patienceMs?: number | undefined;
  /** What was seen of the writers of temporary files. */
  readonly writers?: TempWriters | undefined;
  /** The scan that found the directory changed, if there was one: settling goes on from it. */
  readonly seen?: SeenScan | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/** A finished capture. */
export interface CaptureResult {
  readonly snapshot: StoredSnapshot;
  /** Whether the directory equals its newest snapshot, so that no new one was made. */
  readonly unchanged: boolean;
  /** Findings of this capture, also if nothing has changed. */
  readonly findings: readonly Finding[];
  /** Attempts given up because files changed. */
  readonly retries: number;
  /** The directory as it was captured; undefined if it was not at rest. */
  readonly scan: Scan | undefined;
  /** Whether the directory was known to be at rest at this capture, also if nothing has changed. */
  readonly atRest: boolean;
  /** Whether the directory had not rested for the whole quiet window. */
  readonly isEarly: boolean;
  /** Milliseconds of waits between attempts. */
  readonly waitedMs: number;
}

/** The state of the directory before the store was locked. */
export interface SettledDirectory {
  readonly quiesce: Quiesce;
  readonly settled: Settled;
}

/** Waits until a directory is at rest, and returns its scan then. */
export async function settleDirectory(
  store: Store,
  request: CaptureRequest,
  { isIdle, beganMs }: Quiesce,
): Promise<Settled> {
  // An idle instance is in no flush, so the pauses between its writes need not be waited for.
  const learned = isIdle ? undefined : await store.index.local.quietRecord(request.graphId);
  const { quietMs, settleTimeoutMs, patienceMs = PATIENCE_MS, seen, signal } = request;
  const windowMs = quietWindowMs(quietMs, learned);
  const options = { quietMs, windowMs, settleTimeoutMs, patienceMs, beganMs, isIdle, seen, signal };
  return await waitUntilQuiet(options, () => scan(request.dir, scanOptions(store, request)));
}

/** Waits until a directory is at rest, for a shorter time than without the lock of the store. */
export async function settleLocked(
  store: Store,
  request: CaptureRequest,
  quiesce: Quiesce,
): Promise<Settled> {
  const settleTimeoutMs = Math.min(request.settleTimeoutMs, LOCKED_SETTLE_MAX_MS);
  return await settleDirectory(store, { ...request, settleTimeoutMs, seen: undefined }, quiesce);
}

function scanOptions(store: Store, { exclude, workspaces, writers, signal }: CaptureRequest): ScanOptions {
  return { exclude, workspaces: workspaces?.(), store: store.root, writers, ...signalOption(signal) };
}

/**
 * Captures a settled directory, or finds that its newest snapshot equals it. Runs inside `Store.exclusively`.
 *
 * If the newest snapshot cannot be read, the store is damaged: the directory is then captured as if it were new, and
 * units that are missing are stored again.
 */
export async function captureDirectory(
  store: Store,
  request: CaptureRequest,
  directory: SettledDirectory,
): Promise<CaptureResult> {
  let trusted = true;
  const run = async () =>
    await Transaction.run(store, async (transaction) => {
      const capture = new Capture(store, { transaction, request, directory });
      try {
        return await capture.run();
      } finally {
        trusted = capture.trusted;
      }
    });
  try {
    return await run();
  } catch (error) {
    const isDamage = error instanceof LightkeeperError && error.code === 'DAMAGED';
    if (!trusted || !isDamage) throw error;
    await store.index.local.markIncomplete();
    return await run();
  }
}

/** One reading of the directory. */
interface Attempt extends ReadDirectory {
  readonly findings: readonly Finding[];
  /** Files that differ from the newest snapshot. */
  readonly differing: readonly Entry[];
  /** A file that changed during the attempt; undefined if nothing did. */
  readonly changed: BytePath | undefined;
}

class Capture {
  readonly #store: Store;
  readonly #transaction: Transaction;
  readonly #request: CaptureRequest;
  readonly #directory: SettledDirectory;
  readonly #startedMs = now();
  readonly #began = monotonic();
  #waitedMs = 0;
  /** Whether all units of the newest snapshot are known to be stored. */
  #trusted = true;
  #permit: CapturePermit = { moved: undefined, takesOver: false };
  /** Files that earlier attempts have read. */
  readonly #read = new Map<BytePath, { entry: Entry; content: ListRoot }>();

  constructor(
    store: Store,
    parts: { transaction: Transaction; request: CaptureRequest; directory: SettledDirectory },
  ) {
    this.#store = store;
    this.#transaction = parts.transaction;
    this.#request = parts.request;
    this.#directory = parts.directory;
  }

  get trusted(): boolean {
    return this.#trusted;
  }

  async run(): Promise<CaptureResult> {
    const { graphId } = this.#request;
    const parent = await loadParent(this.#store, graphId, this.#request.dir);
    this.#permit = await checkCapture(this.#store, this.#request);
    if (parent !== undefined) this.#trusted = await this.#store.isComplete(graphId, parent.snapshot.digest);
    const { quiesce } = this.#directory;
    let { settled } = this.#directory;
    for (let attempt = 0; ; attempt++) {
      const isLast = attempt === RETRIES_MAX || !settled.quiet;
      await quiesce.beforeRead();
      const result = await this.#attempt(settled.scan, parent, isLast);
      if (result === undefined) {
        const findings = [...settled.scan.findings, ...quiesce.findings];
        const { atRest } = await quiesce.cut(settled.scan);
        const { isEarly } = settled;
        const confirmed = { scan: settled.scan, findings, retries: attempt, atRest, isEarly };
        return await this.#confirm(must(parent, 'a newest snapshot').snapshot, confirmed);
      }
      if (result.changed === undefined && settled.quiet) {
        return await this.#commit(result, parent, {
          cut: await quiesce.cut(settled.scan),
          retries: attempt,
          isEarly: settled.isEarly,
        });
      }
      if (isLast) {
        const cut = { cutMethod: CutMethod_Value.CHANGED, atRest: false };
        return await this.#commit(result, parent, { cut, retries: attempt, isEarly: true });
      }
      const stoppedMs = monotonic();
      const waitMs = Math.max(this.#request.quietMs, RETRY_WAIT_MIN_MS) * 2 ** attempt;
      await sleep(waitMs, undefined, signalOption(this.#request.signal));
      settled = await settleLocked(this.#store, this.#request, quiesce);
      this.#waitedMs += monotonic() - stoppedMs;
    }
  }

  /** Reads the files that differ from the newest snapshot. Returns undefined if the directory equals it. */
  async #attempt(
    before: Scan,
    parent: ParentSnapshot | undefined,
    isLast: boolean,
  ): Promise<Attempt | undefined> {
    const contents = new Map<BytePath, ListRoot>();
    const toRead: FileToRead[] = [];
    let same =
      parent !== undefined &&
      this.#trusted &&
      this.#permit.moved === undefined &&
      before.entries.length === parent.count;
    const match = this.#trusted ? await parent?.matcher() : undefined;
    const links = new Set<string>();
    const fullTimes = new Map<BytePath, bigint>();
    const differing: Entry[] = [];
    for (const entry of before.entries) {
      const old = await match?.(entry);
      if (old === undefined || !old.unchanged) same = false;
      if (old !== undefined && hasRestoredTime(entry, old.stored))
        fullTimes.set(entry.path, old.stored.mtimeNs);
      if (entry.type !== 'file' || isSecondName(links, entry)) continue;
      if (old?.sameContent === true && old.stored.content !== undefined) {
        contents.set(entry.path, old.stored.content);
        continue;
      }
      differing.push(entry);
      const known = this.#read.get(entry.path);
      if (known !== undefined && sameTimes(known.entry, entry)) contents.set(entry.path, known.content);
      else toRead.push({ entry, previous: old?.stored });
    }
    if (same) return undefined;
    const read = await this.#readAll(toRead, { before, contents, takeChanged: isLast });
    return { ...read, differing, fullTimes };
  }

  /** Reads files into `contents` and scans the directory again. */
  async #readAll(
    files: readonly FileToRead[],
    options: { before: Scan; contents: Map<BytePath, ListRoot>; takeChanged: boolean },
  ): Promise<Omit<Attempt, 'differing' | 'fullTimes'>> {
    const { before, contents, takeChanged } = options;
    const bytes = files.reduce((sum, { entry }) => sum + entry.size, 0);
    await checkReserve({
      doing: `take a snapshot of "${this.#request.graphId}"`,
      place: this.#store.root,
      bytes,
      largestBytes: before.largestBytes,
      reserveBytes: this.#request.reserveBytes,
    });
    let done = 0;
    const report = (more: number) => {
      done += more;
      this.#request.onProgress?.('reading', done, bytes);
    };
    const workers = this.#store.workers.open(bytes, {
      gentle: true,
      sink: (frame) => this.#transaction.append({ kind: UnitKind_Value.BYTES, ...frame }),
    });
    const { dir, signal } = this.#request;
    const parts = {
      store: this.#store,
      transaction: this.#transaction,
      workers,
      dir,
      trusted: this.#trusted,
      onBytes: report,
      signal,
    };
    try {
      const outcome = await new FileReader(parts).read(files, takeChanged);
      for (const { entry } of files) {
        const content = outcome.contents.get(entry.path);
        if (content === undefined) continue;
        contents.set(entry.path, content);
        if (!outcome.changed.has(entry.path)) this.#read.set(entry.path, { entry, content });
      }
      const after = await scan(dir, scanOptions(this.#store, this.#request));
      const changed = firstDifference(before, after) ?? [...outcome.changed][0];
      return { scan: before, contents, dropped: outcome.dropped, findings: outcome.findings, changed };
    } finally {
      await workers.close();
    }
  }

  /** Records that the directory equals its newest snapshot, and the change times of `entries`. */
  async #confirm(
    snapshot: StoredSnapshot,
    confirmed: Omit<CaptureResult, 'snapshot' | 'unchanged' | 'waitedMs'>,
    entries: readonly Entry[] = [],
  ): Promise<CaptureResult> {
    const { index } = this.#store;
    const batch = index.batch();
    this.#putConfirmed(batch, snapshot.digest, entries);
    await index.commit('index:confirm', batch);
    return { snapshot, unchanged: true, ...confirmed, waitedMs: this.#waitedMs };
  }

  #putConfirmed(batch: IndexBatch, digest: Uint8Array, entries: readonly Entry[]): void {
    const { graphId } = this.#request;
    const { index } = this.#store;
    index.local.putConfirmedAt(batch, graphId, this.#startedMs);
    for (const [n, times] of packChangeTimes(entries, digest))
      index.local.putChangeTimes(batch, graphId, { n, times });
    index.local.putCompleteDigest(batch, graphId, digest);
  }

  /** Returns the epoch that a snapshot begins; undefined if it stays in that of the head, or is the very first. */
  // Without a head, all positions of the graph are on forks.
  async #newEpoch(head: PositionEntry | undefined): Promise<Pick<Epoch, 'number' | 'mintId'> | undefined> {
    if (head !== undefined && !this.#permit.takesOver) return undefined;
    for await (const newest of this.#store.index.positions(this.#request.graphId, { reverse: true }))
      return mintEpoch(epochOf(newest).number + 1n);
    return undefined;
  }

  /** Commits an attempt as a snapshot, unless it equals the newest one after all. */
  async #commit(
    attempt: Attempt,
    parent: ParentSnapshot | undefined,
    { cut, retries, isEarly }: { cut: Cut; retries: number; isEarly: boolean },
  ): Promise<CaptureResult> {
    const { quiesce } = this.#directory;
    const findings = [...attempt.scan.findings, ...quiesce.findings, ...attempt.findings];
    const { moved } = this.#permit;
    if (moved !== undefined) findings.unshift(moved);
    const isChanged = cut.cutMethod === CutMethod_Value.CHANGED;
    const { atRest } = cut;
    if (isChanged) findings.push(changedCutFinding(attempt.changed));
    const list = await storeFileList(this.#transaction, attempt);
    findings.push(...list.findings);
    const { graphId, dir, description, tags } = this.#request;
    const head = await this.#store.index.head(graphId);
    const manifest = buildManifest({
      graphId,
      dir,
      description,
      startedMs: this.#startedMs,
      root: attempt.scan.root,
      list,
      cut,
      storeId: this.#store.config.storeId,
      head,
      epoch: isChanged ? undefined : await this.#newEpoch(head),
      parent: parent?.snapshot,
      instance: quiesce.instance,
      findings,
    });
    // A graph that has moved or was taken over gets a point, so that the history says where it is now.
    const isSame = parent !== undefined && sameFiles(parent.snapshot.manifest, manifest);
    if (isSame && !isChanged && moved === undefined) {
      // Units that were missing or damaged have been stored again, or only change times differ.
      if (this.#trusted) await this.#transaction.abandon();
      else await this.#transaction.finishRepack(missingManifest(this.#store, parent.snapshot));
      const confirmed = { scan: attempt.scan, findings, retries, atRest, isEarly };
      return await this.#confirm(parent.snapshot, confirmed, list.entries);
    }
    // The files of a first snapshot may be of any age, and those of an untrusted one may be unchanged.
    const teaches = !isChanged && parent !== undefined && this.#trusted;
    const known = teaches ? await this.#store.index.local.quietRecord(graphId) : undefined;
    const snapshot = await this.#transaction.commit(manifest, {
      durationMs: () => monotonic() - this.#began,
      nowMs: now(),
      tags: { ...tags },
      more: (batch, digest) => {
        if (isChanged) return;
        const { index } = this.#store;
        this.#putConfirmed(batch, digest, list.entries);
        if (!teaches) return;
        const learned = isEarly ? learnNothing(known) : learnPauses(known, attempt.differing, digest);
        index.local.putQuietRecord(batch, graphId, learned);
      },
    });
    const scanned = isChanged ? undefined : attempt.scan;
    const outcome = { findings, retries, atRest, isEarly, waitedMs: this.#waitedMs };
    return { snapshot, unchanged: false, scan: scanned, ...outcome };
  }
}

function sameTimes(a: Entry, b: Entry): boolean {
  return a.size === b.size && a.mtimeNs === b.mtimeNs && a.ctimeNs === b.ctimeNs;
}

function signalOption(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}
