import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { create, toBinary } from '@bufbuild/protobuf';
import { must } from '../../core/assert.ts';
import { LightkeeperError } from '../../core/errors.ts';
import { filesPieceEnds, ListBuilder } from '../../core/list.ts';
import { capturedMs, captureTime, MANIFEST_FINDINGS_MAX, MANIFEST_FORMAT } from '../../core/manifest.ts';
import type { BytePath } from '../../core/path.ts';
import { learnPauses, quietWindowMs } from '../../core/quiet.ts';
import {
  CutMethod_Value,
  type FileEntry,
  FileEntrySchema,
  FileListSchema,
  FileType_Value,
  type Finding,
  type ListRoot,
  type Manifest,
  ManifestSchema,
  type PositionEntry,
  type SnapshotRecord,
  SourceSchema,
  UnitKind_Value,
} from '../../gen/lightkeeper/v1/types_pb.ts';
import { monotonic, now } from '../../host/clock.ts';
import { checkReserve } from '../../host/disk-reserve.ts';
import { version } from '../../host/version.ts';
import type { CaptureHooks } from '../instance/hooks.ts';
import type { InstanceSettings } from '../instance/probe.ts';
import { settlePending } from '../restore/journal-recovery.ts';
import { packChangeTimes } from '../store/index/change-times.ts';
import type { Store } from '../store/store.ts';
import { Ingest, sameFiles } from '../store/transaction.ts';
import { type Entry, firstDifference, type Scan, type ScanOptions, scan } from '../watch/scan.ts';
import { Pool } from '../workers/pool.ts';
import { Reader, type Reading } from './file-reader.ts';
import { fileEntry, metadata, otherNameFinding, secondName, tornFinding } from './manifest-builder.ts';
import { loadPrevious, lostManifest, type PreviousState } from './parent.ts';
import { Moment } from './quiesce.ts';
import { type Settled, waitUntilQuiet } from './settle.ts';

/** Captures that start over because something changed, before one is taken as it is. */
const RETRIES = 3;

/** With the store taken, a directory is not waited for longer than this. */
const RETRY_SETTLE_MAX_MS = 30_000;

/** Longer than the clock of a filesystem needs to tell two writes apart. */
const RETRY_WAIT_MIN_MS = 25;

/** What one capture is asked. */
export interface CaptureRequest {
  readonly graphId: string;
  /** Absolute. */
  readonly dir: Uint8Array;
  readonly quietMs: number;
  /** How long to wait for the quiet window before taking the directory as it is. */
  readonly settleTimeoutMs: number;
  readonly exclude: readonly string[];
  /** Direct subfolders that are graphs of their own. */
  readonly leaveOut?: (() => ReadonlySet<BytePath>) | undefined;
  readonly tags: Readonly<Record<string, string>>;
  readonly description: string;
  /** Free bytes that must remain; undefined for the formula, 0 for no check. */
  readonly reserveBytes: bigint | undefined;
  readonly instance?: InstanceSettings | undefined;
  readonly hooks?: CaptureHooks | undefined;
  readonly signal?: AbortSignal;
  readonly onProgress?: (phase: string, doneBytes: number, totalBytes: number) => void;
  /** Told if a restore in place that was cut off had to be finished or undone first. */
  readonly onSettled?: (findings: readonly Finding[]) => void;
}

/** What a capture did. */
export interface CaptureResult {
  readonly record: SnapshotRecord;
  readonly unchanged: boolean;
  /** What cannot be kept, met now: also where nothing has changed. */
  readonly findings: readonly Finding[];
  /** Attempts that were given up because something changed. */
  readonly retries: number;
}

/** What was found before the store was taken: when, and what the directory was then. */
interface Chosen {
  readonly moment: Moment;
  readonly settled: Settled;
}

/**
 * Takes one snapshot of a directory, or finds that the newest one is equal to it. Waiting for the directory to
 * come to rest keeps nobody else from the store.
 */
export async function capture(store: Store, request: CaptureRequest): Promise<CaptureResult> {
  const { graphId, dir, instance, hooks, signal } = request;
  const moment = await Moment.begin({ graphId, dir, instance, hooks, ...signalOption(signal) });
  let result: CaptureResult | undefined;
  let late: Finding | undefined;
  try {
    let settled = await settle(store, request, moment);
    result = await store.exclusively(async () => {
      const endRead = store.beginRead();
      try {
        const rolled = await settlePending(dir);
        if (rolled.length > 0) {
          request.onSettled?.(rolled);
          settled = await settle(store, soon(request), moment);
        }
        const taken = await captureOnce(store, request, { moment, settled });
        return { ...taken, findings: [...rolled, ...taken.findings] };
      } finally {
        endRead();
      }
    });
  } finally {
    late = await moment.end();
  }
  return late === undefined ? result : { ...result, findings: [...result.findings, late] };
}

/** As a capture is waited for that keeps others from the store. */
function soon(request: CaptureRequest): CaptureRequest {
  return { ...request, settleTimeoutMs: Math.min(request.settleTimeoutMs, RETRY_SETTLE_MAX_MS) };
}

/** An instance that says that it is idle is in no flush: what was learned of its pauses need not be waited for. */
async function settle(store: Store, request: CaptureRequest, { isIdle }: Moment): Promise<Settled> {
  const learned = isIdle ? undefined : await store.index.quietRecord(request.graphId);
  const quietMs = quietWindowMs(request.quietMs, learned);
  return await waitUntilQuiet({ ...request, quietMs }, () => scan(request.dir, scanOptions(store, request)));
}

function scanOptions(store: Store, { exclude, leaveOut, signal }: CaptureRequest): ScanOptions {
  return { exclude, leaveOut: leaveOut?.(), store: store.root, ...signalOption(signal) };
}

/**
 * Captures comparing with the newest snapshot. If that cannot be read, the store has been damaged: the directory
 * is then captured as if it were new, every unit is asked for, and what is missing is stored again.
 */
async function captureOnce(
  store: Store,
  request: CaptureRequest,
  chosen: Chosen,
  again = false,
): Promise<CaptureResult> {
  const ingest = new Ingest(store);
  const attempt = new Capture(store, ingest, request, chosen);
  try {
    return await attempt.run();
  } catch (error) {
    await ingest.abandon();
    if (again || !attempt.trusted || !(error instanceof LightkeeperError) || error.code !== 'DAMAGED')
      throw error;
    await store.index.distrust();
    return await captureOnce(store, request, chosen, true);
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
  readonly #ingest: Ingest;
  readonly #request: CaptureRequest;
  readonly #chosen: Chosen;
  readonly #startedMs = now();
  readonly #began = monotonic();
  /** What the newest snapshot refers to is stored: no need to ask for each unit. */
  #trusted = true;
  readonly #read = new Map<BytePath, { entry: Entry; content: ListRoot }>();

  constructor(store: Store, ingest: Ingest, request: CaptureRequest, chosen: Chosen) {
    this.#chosen = chosen;
    this.#store = store;
    this.#ingest = ingest;
    this.#request = request;
  }

  get trusted(): boolean {
    return this.#trusted;
  }

  async run(): Promise<CaptureResult> {
    const { graphId } = this.#request;
    const previous = await loadPrevious(this.#store, graphId, this.#request.dir);
    if (previous !== undefined) this.#trusted = await this.#store.trusts(graphId, previous.record.digest);
    const { moment } = this.#chosen;
    let { settled } = this.#chosen;
    for (let attempt = 0; ; attempt++) {
      const torn = attempt === RETRIES || !settled.quiet;
      await moment.readingBegins();
      const result = await this.#attempt(settled.scan, previous, torn);
      if (result === undefined) {
        const findings = [...settled.scan.findings, ...moment.findings];
        return await this.#confirm(must(previous, 'a newest snapshot'), findings, attempt);
      }
      if (result.changed === undefined && settled.quiet) {
        return await this.#commit(result, previous, await moment.cutMethod(), attempt);
      }
      if (torn) return await this.#commit(result, previous, CutMethod_Value.TORN, attempt);
      const waitMs = Math.max(this.#request.quietMs, RETRY_WAIT_MIN_MS) * 2 ** attempt;
      await sleep(waitMs, undefined, signalOption(this.#request.signal));
      settled = await settle(this.#store, soon(this.#request), moment);
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
    const pool = new Pool(bytes, {
      chunkerSeed: this.#store.config.chunkerSeed,
      gentle: true,
      sink: (frame) => this.#ingest.append({ kind: UnitKind_Value.BYTES, ...frame }),
    });
    const { dir, signal } = this.#request;
    const parts = {
      store: this.#store,
      ingest: this.#ingest,
      pool,
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
      await pool.close();
    }
  }

  /** Notes that the directory is equal to its newest snapshot; `kept` where change times must be noted too. */
  async #confirm(
    previous: PreviousState,
    findings: readonly Finding[],
    retries: number,
    kept: readonly Entry[] = [],
  ): Promise<CaptureResult> {
    const { graphId } = this.#request;
    const index = this.#store.index;
    const batch = index.batch();
    index.putConfirmedAt(batch, graphId, this.#startedMs);
    for (const [n, times] of packChangeTimes(kept, previous.record.digest)) {
      index.putChangeTimes(batch, graphId, n, times);
    }
    index.putWholeDigest(batch, graphId, previous.record.digest);
    await index.commit('index:confirm', batch);
    return { record: previous.record, unchanged: true, findings, retries };
  }

  async #commit(
    attempt: Attempt,
    previous: PreviousState | undefined,
    cutMethod: CutMethod_Value,
    retries: number,
  ): Promise<CaptureResult> {
    const findings = [...attempt.scan.findings, ...this.#chosen.moment.findings, ...attempt.findings];
    const torn = cutMethod === CutMethod_Value.TORN;
    if (torn) findings.push(tornFinding(attempt.changed));
    const { files, totals, kept } = await this.#listFiles(attempt, findings);
    const head = await this.#store.index.head(this.#request.graphId);
    const manifest = this.#manifest({ attempt, files, totals, cutMethod, head, previous, findings });
    if (!torn && previous?.record.manifest !== undefined && sameFiles(previous.record.manifest, manifest)) {
      // What was missing or damaged has been stored again; or only change times differ.
      if (this.#trusted) await this.#ingest.abandon();
      else await this.#ingest.finishRepack(lostManifest(this.#store, previous.record));
      return await this.#confirm(previous, findings, retries, kept);
    }
    const { graphId, tags } = this.#request;
    // Files of a first snapshot were written at any time; and times of an untrusted one are not looked at.
    const teaches = !torn && previous !== undefined && this.#trusted;
    const known = teaches ? await this.#store.index.quietRecord(graphId) : undefined;
    const { record } = await this.#ingest.commit(manifest, {
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
    return { record, unchanged: false, findings, retries };
  }

  /** Writes the list of files, in pieces; answers its root. */
  async #listFiles(
    attempt: Attempt,
    findings: Finding[],
  ): Promise<{ files: ListRoot; totals: Manifest['totals']; kept: Entry[] }> {
    const list = new ListBuilder((piece) => this.#ingest.addPiece(UnitKind_Value.LIST, piece), 1);
    const totals = { files: 0, directories: 0, symlinks: 0, rawBytes: 0n, units: 0n };
    const first = new Map<string, BytePath>();
    const kept: Entry[] = [];
    let piece: FileEntry[] = [];
    const flush = async () => {
      if (piece.length === 0) return;
      const bytes = Buffer.from(toBinary(FileListSchema, create(FileListSchema, { files: piece })));
      list.add(this.#ingest.addPiece(UnitKind_Value.FILES, bytes), piece.length, piece.length);
      piece = [];
      await this.#ingest.flushPieces();
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
    const torn = cutMethod === CutMethod_Value.TORN;
    const parentMs =
      previous?.record.manifest === undefined ? undefined : capturedMs(previous.record.manifest);
    const manifest = create(ManifestSchema, {
      format: MANIFEST_FORMAT,
      graphId: this.#request.graphId,
      epoch: head?.epoch ?? 1n,
      mintId: head?.mintId ?? randomBytes(16),
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
    const { instance } = this.#chosen.moment;
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
