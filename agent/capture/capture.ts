import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { create, toBinary } from '@bufbuild/protobuf';
import { must } from '../../core/assert.ts';
import { LightkeeperError } from '../../core/errors.ts';
import { filesPieceEnds, ListBuilder } from '../../core/list.ts';
import { capturedMs, captureTime, MANIFEST_FINDINGS_MAX, MANIFEST_FORMAT } from '../../core/manifest.ts';
import type { BytePath } from '../../core/path.ts';
import { MINT_ID_BYTES } from '../../core/position.ts';
import type { OnProgress } from '../../core/progress.ts';
import { learnPauses, quietWindowMs } from '../../core/quiet.ts';
import type { StoredSnapshot } from '../../core/snapshot.ts';
import {
  type FileEntry,
  FileEntrySchema,
  FileListSchema,
  type ListRoot,
  type Manifest,
  ManifestSchema,
  type PositionEntry,
  SourceSchema,
} from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import { CutMethod_Value, FileType_Value, type Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { monotonic, now } from '../../host/clock.ts';
import { checkReserve } from '../../host/disk-reserve.ts';
import { version } from '../../host/version.ts';
import type { CaptureHooks } from '../instance/hooks.ts';
import type { InstanceSettings } from '../instance/probe.ts';
import { packChangeTimes } from '../store/index/change-times.ts';
import type { Store } from '../store/store.ts';
import { sameFiles, Transaction } from '../store/transaction.ts';
import { type Entry, firstDifference, type Scan, type ScanOptions, scan } from '../watch/scan.ts';
import type { SeenScan } from '../watch/watcher.ts';
import { Reader, type Reading } from './file-reader.ts';
import { fileEntry, metadata, otherNameFinding, secondName, tornFinding } from './manifest-builder.ts';
import { loadPrevious, lostManifest, type PreviousState } from './parent.ts';
import type { Quiesce } from './quiesce.ts';
import { type Settled, waitUntilQuiet } from './settle.ts';

/** Captures that start over because something changed, before one is taken as it is. */
const RETRIES = 3;

/** Most milliseconds of waiting for a directory while the store is locked. */
const LOCKED_SETTLE_MAX_MS = 30_000;

/** Longer than the clock of a filesystem needs to tell two writes apart. */
const RETRY_WAIT_MIN_MS = 25;

/** A request to capture one directory. Commands, the API and the watcher all make this. */
export interface CaptureRequest {
  readonly graphId: string;
  /** Absolute path. */
  readonly dir: Uint8Array;
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
  readonly hooks?: CaptureHooks | undefined;
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
  /** What cannot be stored, found now: also if nothing has changed. */
  readonly findings: readonly Finding[];
  /** Attempts given up because files changed. */
  readonly retries: number;
  /** The directory as it was captured; undefined if it was not at rest. */
  readonly scan: Scan | undefined;
}

/** What was learned of the directory before the store was locked. */
export interface SettledDirectory {
  readonly quiesce: Quiesce;
  readonly settled: Settled;
}

/** Waits until a directory is at rest, and returns its scan then. */
export async function settleDirectory(
  store: Store,
  request: CaptureRequest,
  quiesce: Quiesce,
): Promise<Settled> {
  // An idle instance is in no flush: its pauses need not be waited for.
  const learned = quiesce.isIdle ? undefined : await store.index.quietRecord(request.graphId);
  const { settleTimeoutMs, seen, signal } = request;
  const quietMs = quietWindowMs(request.quietMs, learned);
  const options = {
    quietMs,
    settleTimeoutMs,
    ...(seen === undefined ? {} : { seen }),
    ...signalOption(signal),
  };
  return await waitUntilQuiet(options, () => scan(request.dir, scanOptions(store, request)));
}

/** Waits likewise while the store is locked: not longer than others can wait for it. */
export async function settleLocked(
  store: Store,
  request: CaptureRequest,
  quiesce: Quiesce,
): Promise<Settled> {
  const settleTimeoutMs = Math.min(request.settleTimeoutMs, LOCKED_SETTLE_MAX_MS);
  return await settleDirectory(store, { ...request, settleTimeoutMs, seen: undefined }, quiesce);
}

function scanOptions(store: Store, { exclude, workspaces, signal }: CaptureRequest): ScanOptions {
  return { exclude, leaveOut: workspaces?.(), store: store.root, ...signalOption(signal) };
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
  again = false,
): Promise<CaptureResult> {
  let trusted = true;
  try {
    return await Transaction.run(store, async (transaction) => {
      const attempt = new Capture(store, transaction, request, directory);
      try {
        return await attempt.run();
      } finally {
        trusted = attempt.trusted;
      }
    });
  } catch (error) {
    if (again || !trusted || !(error instanceof LightkeeperError) || error.code !== 'DAMAGED') throw error;
    await store.index.distrust();
    return await captureDirectory(store, request, directory, true);
  }
}

interface Attempt {
  readonly scan: Scan;
  readonly contents: ReadonlyMap<BytePath, ListRoot>;
  readonly dropped: ReadonlySet<BytePath>;
  readonly findings: readonly Finding[];
  /** Files that are not as the newest snapshot has them. */
  readonly fresh: readonly Entry[];
  /** A file that changed, if the attempt is not one consistent cut. */
  readonly changed: BytePath | undefined;
}

class Capture {
  readonly #store: Store;
  readonly #transaction: Transaction;
  readonly #request: CaptureRequest;
  readonly #directory: SettledDirectory;
  readonly #startedMs = now();
  readonly #began = monotonic();
  /** What the newest snapshot refers to is stored: no need to ask for each unit. */
  #trusted = true;
  readonly #read = new Map<BytePath, { entry: Entry; content: ListRoot }>();

  constructor(store: Store, transaction: Transaction, request: CaptureRequest, directory: SettledDirectory) {
    this.#directory = directory;
    this.#store = store;
    this.#transaction = transaction;
    this.#request = request;
  }

  get trusted(): boolean {
    return this.#trusted;
  }

  async run(): Promise<CaptureResult> {
    const { graphId } = this.#request;
    const previous = await loadPrevious(this.#store, graphId, this.#request.dir);
    if (previous !== undefined) this.#trusted = await this.#store.trusts(graphId, previous.snapshot.digest);
    const { quiesce } = this.#directory;
    let { settled } = this.#directory;
    for (let attempt = 0; ; attempt++) {
      const torn = attempt === RETRIES || !settled.quiet;
      await quiesce.readingBegins();
      const result = await this.#attempt(settled.scan, previous, torn);
      if (result === undefined) {
        const findings = [...settled.scan.findings, ...quiesce.findings];
        const confirmed = { scan: settled.scan, findings, retries: attempt };
        return await this.#confirm(must(previous, 'a newest snapshot'), confirmed);
      }
      if (result.changed === undefined && settled.quiet) {
        return await this.#commit(result, previous, await quiesce.cutMethod(), attempt);
      }
      if (torn) return await this.#commit(result, previous, CutMethod_Value.CHANGED, attempt);
      const waitMs = Math.max(this.#request.quietMs, RETRY_WAIT_MIN_MS) * 2 ** attempt;
      await sleep(waitMs, undefined, signalOption(this.#request.signal));
      settled = await settleLocked(this.#store, this.#request, quiesce);
    }
  }

  /** Reads what has changed; undefined if nothing has, since the newest snapshot. */
  async #attempt(
    before: Scan,
    previous: PreviousState | undefined,
    torn: boolean,
  ): Promise<Attempt | undefined> {
    const contents = new Map<BytePath, ListRoot>();
    const readings: Reading[] = [];
    let same = previous !== undefined && this.#trusted && before.entries.length === previous.count;
    const match = this.#trusted ? await previous?.matcher() : undefined;
    const links = new Set<string>();
    const fresh: Entry[] = [];
    for (const entry of before.entries) {
      const old = await match?.(entry);
      if (old === undefined || !old.same) same = false;
      if (entry.type !== 'file' || secondName(links, entry)) continue;
      if (old?.sameContent === true && old.file.content !== undefined) {
        contents.set(entry.path, old.file.content);
        continue;
      }
      fresh.push(entry);
      const known = this.#read.get(entry.path);
      if (known !== undefined && sameTimes(known.entry, entry)) contents.set(entry.path, known.content);
      else readings.push({ entry, previous: old?.file });
    }
    if (same) return undefined;
    return { ...(await this.#readAll(before, readings, contents, torn)), fresh };
  }

  async #readAll(
    before: Scan,
    readings: readonly Reading[],
    contents: Map<BytePath, ListRoot>,
    torn: boolean,
  ): Promise<Omit<Attempt, 'fresh'>> {
    const bytes = readings.reduce((sum, { entry }) => sum + entry.size, 0);
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
      const outcome = await new Reader(parts).read(readings, torn);
      for (const { entry } of readings) {
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
    previous: PreviousState,
    confirmed: Pick<CaptureResult, 'scan' | 'findings' | 'retries'>,
    entries: readonly Entry[] = [],
  ): Promise<CaptureResult> {
    const { graphId } = this.#request;
    const index = this.#store.index;
    const batch = index.batch();
    index.putConfirmedAt(batch, graphId, this.#startedMs);
    for (const [n, times] of packChangeTimes(entries, previous.snapshot.digest)) {
      index.putChangeTimes(batch, graphId, n, times);
    }
    index.putWholeDigest(batch, graphId, previous.snapshot.digest);
    await index.commit('index:confirm', batch);
    return { snapshot: previous.snapshot, unchanged: true, ...confirmed };
  }

  async #commit(
    attempt: Attempt,
    previous: PreviousState | undefined,
    cutMethod: CutMethod_Value,
    retries: number,
  ): Promise<CaptureResult> {
    const findings = [...attempt.scan.findings, ...this.#directory.quiesce.findings, ...attempt.findings];
    const torn = cutMethod === CutMethod_Value.CHANGED;
    if (torn) findings.push(tornFinding(attempt.changed));
    const { files, totals, kept } = await this.#listFiles(attempt, findings);
    const head = await this.#store.index.head(this.#request.graphId);
    const manifest = this.#manifest({ attempt, files, totals, cutMethod, head, previous, findings });
    if (
      !torn &&
      previous?.snapshot.manifest !== undefined &&
      sameFiles(previous.snapshot.manifest, manifest)
    ) {
      // What was missing or damaged has been stored again; or only change times differ.
      if (this.#trusted) await this.#transaction.abandon();
      else await this.#transaction.finishRepack(lostManifest(this.#store, previous.snapshot));
      return await this.#confirm(previous, { scan: attempt.scan, findings, retries }, kept);
    }
    const { graphId, tags } = this.#request;
    // Files of a first snapshot were written at any time; and times of an untrusted one are not looked at.
    const teaches = !torn && previous !== undefined && this.#trusted;
    const known = teaches ? await this.#store.index.quietRecord(graphId) : undefined;
    const snapshot = await this.#transaction.commit(manifest, {
      durationMs: () => monotonic() - this.#began,
      nowMs: now(),
      tags: { ...tags },
      more: (batch, digest) => {
        if (torn) return;
        const index = this.#store.index;
        index.putConfirmedAt(batch, graphId, this.#startedMs);
        index.putWholeDigest(batch, graphId, digest);
        if (teaches) index.putQuietRecord(batch, graphId, learnPauses(known, attempt.fresh, digest));
        for (const [n, times] of packChangeTimes(kept, digest))
          index.putChangeTimes(batch, graphId, n, times);
      },
    });
    return { snapshot, unchanged: false, findings, retries, scan: torn ? undefined : attempt.scan };
  }

  /** Writes the list of files, in pieces; answers its root. */
  async #listFiles(
    attempt: Attempt,
    findings: Finding[],
  ): Promise<{ files: ListRoot; totals: Manifest['totals']; kept: Entry[] }> {
    const list = new ListBuilder((piece) => this.#transaction.addPiece(UnitKind_Value.LIST, piece), 1);
    const totals = { files: 0, directories: 0, symlinks: 0, rawBytes: 0n, units: 0n };
    const first = new Map<string, BytePath>();
    const kept: Entry[] = [];
    let piece: FileEntry[] = [];
    const flush = async () => {
      if (piece.length === 0) return;
      const bytes = Buffer.from(toBinary(FileListSchema, create(FileListSchema, { files: piece })));
      list.add(this.#transaction.addPiece(UnitKind_Value.FILES, bytes), piece.length, piece.length);
      piece = [];
      await this.#transaction.flushPieces();
    };
    for (const entry of attempt.scan.entries) {
      if (attempt.dropped.has(entry.path)) continue;
      const file = fileEntry(entry, attempt.contents.get(entry.path), first);
      if (file === undefined) {
        findings.push(otherNameFinding(entry.path));
        continue;
      }
      kept.push(entry);
      piece.push(file);
      if (file.type === FileType_Value.DIRECTORY) totals.directories += 1;
      else if (file.type === FileType_Value.SYMLINK) totals.symlinks += 1;
      else totals.files += 1;
      totals.rawBytes += file.size;
      totals.units += file.content?.count ?? 0n;
      if (filesPieceEnds(piece.length, file.path)) await flush();
    }
    await flush();
    return { files: list.finish(), totals: create(ManifestSchema, { totals }).totals, kept };
  }

  #manifest(parts: {
    attempt: Attempt;
    files: ListRoot;
    totals: Manifest['totals'];
    cutMethod: CutMethod_Value;
    head: PositionEntry | undefined;
    previous: PreviousState | undefined;
    findings: readonly Finding[];
  }): Manifest {
    const { head, previous, findings, files, totals, cutMethod } = parts;
    const torn = cutMethod === CutMethod_Value.CHANGED;
    const parentMs =
      previous?.snapshot.manifest === undefined ? undefined : capturedMs(previous.snapshot.manifest);
    const manifest = create(ManifestSchema, {
      format: MANIFEST_FORMAT,
      graphId: this.#request.graphId,
      epoch: head?.epoch ?? { number: 1n, mintId: randomBytes(MINT_ID_BYTES) },
      sequence: torn ? 0n : (head?.sequence ?? 0n) + 1n,
      parentDigest: head?.digest ?? new Uint8Array(),
      capturedAt: captureTime(this.#startedMs, parentMs),
      cutMethod,
      files,
      source: this.#source(),
      findings: findings.slice(0, MANIFEST_FINDINGS_MAX),
      findingsOmitted: Math.max(0, findings.length - MANIFEST_FINDINGS_MAX),
      description: this.#request.description,
    });
    if (totals !== undefined) manifest.totals = totals;
    manifest.root = create(FileEntrySchema, metadata(parts.attempt.scan.root, FileType_Value.DIRECTORY));
    return manifest;
  }

  #source() {
    const { instance } = this.#directory.quiesce;
    const source = { host: hostname(), dir: this.#request.dir, agentVersion: version };
    return create(SourceSchema, instance === undefined ? source : { ...source, instance });
  }
}

function sameTimes(a: Entry, b: Entry): boolean {
  return a.size === b.size && a.mtimeNs === b.mtimeNs && a.ctimeNs === b.ctimeNs;
}

function signalOption(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}
