import { clone, create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt';
import { must } from '../../core/assert.ts';
import { LightkeeperError } from '../../core/errors.ts';
import { unsplitFinding, workspaceOf } from '../../core/lightrag/check.ts';
import { FACTS_VERSION, parseFactsUnit } from '../../core/lightrag/facts-codec.ts';
import { judge, mayStand, UNCHANGED_MS } from '../../core/lightrag/grade.ts';
import { emptiedAlarms, type Lost, lossAlarms } from '../../core/lightrag/loss.ts';
import { nameNumber } from '../../core/lightrag/name-table.ts';
import { setOf } from '../../core/lightrag/sorted-numbers.ts';
import { acceptNames, advanceSightings, type Passed, standingKeys } from '../../core/lightrag/standing.ts';
import { capturedMs } from '../../core/manifest.ts';
import {
  idOf,
  isChangedCut,
  isStored,
  isUsable,
  isUsableGrade,
  type StoredSnapshot,
  snapshotState,
} from '../../core/snapshot.ts';
import { hex, unitId } from '../../core/unit.ts';
import { type Graded, GradedSchema, type Sighting } from '../../gen/lightkeeper/store/v1/annotation_pb.ts';
import { GraphIndexSchema } from '../../gen/lightkeeper/store/v1/graph_pb.ts';
import { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import {
  CutMethod_Value,
  type Finding,
  FindingSchema,
  Grade_Value,
  GraphStatsSchema,
} from '../../gen/lightkeeper/v1/types_pb.ts';
import { monotonic, now } from '../../host/clock.ts';
import { noticingDamage } from '../snapshots/damage.ts';
import { type GraphContent, graphContents } from '../snapshots/graph-files.ts';
import { notFound, resolveSnapshot } from '../snapshots/resolve.ts';
import { newestChangeMs } from '../store/index/change-times.ts';
import type { Store } from '../store/store.ts';
import { Transaction } from '../store/transaction.ts';
import type { EncodedFacts } from '../workers/grade-task.ts';
import { type CheckResult, checkIncrementally, contentDigest, FactsCache } from './incremental-check.ts';

/** Most findings stored with a grade; the rest is counted. */
const FINDINGS_MAX = 200;

/** Most snapshots searched for the last usable one. */
const HISTORY_MAX = 2000;

/** Earlier snapshots that a snapshot is graded against. */
interface History {
  /** The newest graded one. */
  readonly last: StoredSnapshot | undefined;
  /** The newest usable one. */
  readonly usable: StoredSnapshot | undefined;
}

/** Options of one grading. */
interface GradeOptions extends Passed {
  /** Share of the records that may be lost without an alarm. */
  readonly lossShare: number;
  /** Whether no flush can have been under way when the snapshot was captured. */
  readonly atRest: boolean;
  /** Sightings of earlier gradings. */
  readonly sightings: readonly Sighting[];
  readonly signal?: AbortSignal | undefined;
  /** Whether the grade is only computed. */
  readonly dryRun?: boolean;
}

/** Options of an acceptance. */
export interface AcceptOptions {
  readonly reason: string;
  readonly dryRun: boolean;
  /** Names to accept; empty for all of the findings. */
  readonly keys: readonly string[];
  readonly lossShare: number;
}

/** Grades the snapshots of one open store and commits the grades. */
export class Grader {
  readonly #store: Store;
  /** Monotonic time of the last grading by this process, by graph id. */
  readonly #lastMs = new Map<string, number>();
  readonly #cache = new FactsCache();
  /** Newest snapshot by graph id, with the monotonic time since which its directory is known to equal it. */
  readonly #heads = new Map<string, { digest: string; sinceMs: number }>();
  readonly #turns = new Map<string, Promise<void>>();
  #checking: Promise<void> = Promise.resolve();

  constructor(store: Store) {
    this.#store = store;
  }

  /**
   * Checks the newest snapshot of a graph and grades it. Returns the snapshot with its grade; a side snapshot is
   * returned unchanged.
   */
  async grade(snapshot: StoredSnapshot, lossShare: number, signal?: AbortSignal): Promise<StoredSnapshot> {
    return await this.#inTurn(snapshot, async (current) => {
      if (isChangedCut(current.manifest)) return current;
      // Changes of the directory after the capture are not known here.
      const unchangedMs = capturedMs(current.manifest) - (await newestChangeMs(this.#store, current));
      this.#heads.set(current.manifest.graphId, { digest: hex(current.digest), sinceMs: monotonic() });
      const history = await this.#history(current);
      const last = history.last?.graded;
      return await this.#checkHead(current, history, {
        lossShare,
        atRest: wasAtRest(current, unchangedMs),
        sightings: last?.sightings ?? [],
        elapsedMs: this.#elapsedMs(current, last),
        isCapture: true,
        signal,
      });
    });
  }

  /**
   * Grades the newest snapshot of a graph again, after a scan found the directory equal to it. Its errors count as
   * seen in one more capture. `atRest` tells whether that scan found the directory at rest.
   */
  async regrade(
    snapshot: StoredSnapshot,
    lossShare: number,
    { atRest, signal }: { readonly atRest: boolean; readonly signal?: AbortSignal | undefined },
  ): Promise<StoredSnapshot> {
    return await this.#inTurn(snapshot, async (current) => {
      const { graded } = current;
      if (isChangedCut(current.manifest) || (graded !== undefined && !canStillChange(graded))) return current;
      const history = await this.#history(current);
      return await this.#checkHead(current, history, {
        lossShare,
        atRest: atRest || wasAtRest(current, this.#unchangedMs(current)),
        sightings: (graded ?? history.last?.graded)?.sightings ?? [],
        elapsedMs: this.#elapsedMs(current, graded ?? history.last?.graded),
        isCapture: true,
        signal,
      });
    });
  }

  /** Grades any snapshot of a graph again from its stored bytes. Returns it with its grade. */
  // Later snapshots are not its history, and the directory of today says nothing about it.
  async gradeAgain(
    snapshot: StoredSnapshot,
    lossShare: number,
    signal?: AbortSignal,
  ): Promise<StoredSnapshot> {
    return await this.#inTurn(snapshot, async (current) => {
      if (isChangedCut(current.manifest)) return current;
      const unchangedMs = capturedMs(current.manifest) - (await newestChangeMs(this.#store, current));
      const history = await this.#history(current);
      const known = current.graded ?? history.last?.graded;
      return await this.#check(current, history, {
        lossShare,
        // A state that was found to be final before stays so.
        atRest: wasAtRest(current, unchangedMs) || current.graded?.grade === Grade_Value.INVALID,
        sightings: known?.sightings ?? [],
        elapsedMs: 0,
        isCapture: current.graded === undefined,
        signal,
      });
    });
  }

  /** Runs calls for one graph one after another, each with the snapshot as the call before left it. */
  async #inTurn<T>(snapshot: StoredSnapshot, run: (current: StoredSnapshot) => Promise<T>): Promise<T> {
    const { graphId } = snapshot.manifest;
    const before = this.#turns.get(graphId);
    // The snapshot is read again only if another call may have committed a grade meanwhile.
    const mine =
      before === undefined
        ? run(snapshot)
        : before.then(async () => await run(await resolveSnapshot(this.#store, idOf(snapshot), graphId)));
    const ended = mine.then(
      () => {},
      () => {}, // The caller gets the error from `mine`.
    );
    this.#turns.set(graphId, ended);
    try {
      return await mine;
    } finally {
      if (this.#turns.get(graphId) === ended) this.#turns.delete(graphId);
    }
  }

  /** Runs the checks of all graphs one after another. */
  // Each of them needs as much memory as a capture.
  async #oneAtATime<T>(run: () => Promise<T>): Promise<T> {
    const mine = this.#checking.then(run);
    this.#checking = mine.then(
      () => {},
      () => {}, // The caller gets the error from `mine`.
    );
    return await mine;
  }

  /** Returns for how many milliseconds the directory is known to equal its newest snapshot. */
  // Within one process the monotonic clock counts, as the wall clock may jump.
  #unchangedMs({ manifest, digest }: StoredSnapshot): number {
    const head = this.#heads.get(manifest.graphId);
    return head?.digest === hex(digest) ? monotonic() - head.sinceMs : now() - capturedMs(manifest);
  }

  /** Checks the newest snapshot of a graph, from which the ages of later findings count. */
  async #checkHead(
    snapshot: StoredSnapshot,
    history: History,
    options: GradeOptions,
  ): Promise<StoredSnapshot> {
    const graded = await this.#check(snapshot, history, options);
    this.#lastMs.set(snapshot.manifest.graphId, monotonic());
    return graded;
  }

  async #check(
    snapshot: StoredSnapshot,
    { last, usable }: History,
    options: GradeOptions,
  ): Promise<StoredSnapshot> {
    const began = monotonic();
    const graded = create(GradedSchema);
    const sightings = advanceSightings(options.sightings, options);
    // Damage is recorded after the read: a commit may wait for a removal of packs, which waits for readers.
    const { files, unsplit, result } = await noticingDamage(this.#store, snapshot, () =>
      this.#readGraph(snapshot, { last, usable }, { sightings, signal: options.signal }),
    );
    const found = (result?.findings ?? []).map(({ finding, numbers, stands }) => ({
      finding: fromBinary(FindingSchema, finding),
      numbers,
      stands,
    }));
    if (result !== undefined) {
      graded.summary = result.summary;
      graded.stats = fromBinary(GraphStatsSchema, result.stats);
    } else if (usable?.graded?.stats !== undefined) graded.stats = create(GraphStatsSchema);
    const lost = result?.lost;
    this.#compareWith(usable, { snapshot, graded, lossShare: options.lossShare, lost });
    const { manifest } = snapshot;
    const judged = judge(found, manifest.findings, { ...options, sightings });
    const isPartial = unsplit !== undefined && isUsableGrade(judged.grade);
    graded.grade = isPartial ? Grade_Value.UNGRADED : judged.grade;
    if (unsplit !== undefined) judged.findings.push(unsplit);
    graded.findings = judged.findings.slice(0, FINDINGS_MAX);
    graded.findingsOmitted = Math.max(0, judged.findings.length - FINDINGS_MAX);
    graded.sightings = judged.sightings;
    graded.at = timestampFromMs(now());
    graded.durationMs = BigInt(Math.max(1, Math.round(monotonic() - began)));
    return options.dryRun === true
      ? { ...snapshot, graded }
      : await this.#commit(snapshot, graded, { files, facts: result?.files ?? [] });
  }

  /** Reads and checks the graph in a snapshot. The result is undefined if it holds none. */
  async #readGraph(
    snapshot: StoredSnapshot,
    { last, usable }: History,
    { sightings, signal }: Pick<GradeOptions, 'sightings' | 'signal'>,
  ): Promise<{ files: GraphContent[]; unsplit: Finding | undefined; result: CheckResult | undefined }> {
    const endRead = this.#store.beginRead();
    try {
      const inWorkspaces = new Set<string>();
      const files = await graphContents(this.#store, snapshot.manifest, (path) => {
        if (workspaceOf(path) !== undefined) inWorkspaces.add(path);
      });
      const unsplit = unsplitFinding(inWorkspaces);
      if (files.length === 0) return { files, unsplit, result: undefined };
      const base = snapshot.graded === undefined ? (usable ?? last) : snapshot;
      const standing = standingKeys(sightings);
      const request = { snapshot, files, usable, base, cache: this.#cache, standing };
      const result = await this.#oneAtATime(() => checkIncrementally(this.#store, request, signal));
      return { files, unsplit, result };
    } finally {
      endRead();
    }
  }

  /** Sets what changed since the newest usable snapshot, and the alarms. */
  #compareWith(
    usable: StoredSnapshot | undefined,
    parts: { snapshot: StoredSnapshot; graded: Graded; lossShare: number; lost: Lost | undefined },
  ): void {
    const { snapshot, graded, lossShare, lost } = parts;
    const earlier = snapshot.graded;
    // A snapshot that is graded again is compared with itself, which tells nothing new.
    if (earlier !== undefined && earlier.index.length > 0) {
      graded.summary = earlier.summary;
      graded.alarms = earlier.alarms;
      return;
    }
    if (usable === undefined) return;
    const before = usable.graded?.stats;
    if (before !== undefined && graded.stats !== undefined)
      graded.alarms = lossAlarms(before, graded.stats, { lossShare, lost });
    if (before === undefined && graded.stats === undefined)
      graded.alarms = emptiedAlarms(usable.manifest.totals?.files ?? 0, snapshot.manifest.totals?.files ?? 0);
  }

  /** Accepts errors of a snapshot for a reason and returns the grade that results. A dry run does not commit it. */
  async accept(
    snapshot: StoredSnapshot,
    wanted: (finding: Finding) => boolean,
    options: AcceptOptions,
  ): Promise<{ graded: Graded; accepted: Finding[] }> {
    return await this.#inTurn(snapshot, (current) => this.#accept(current, wanted, options));
  }

  async #accept(
    snapshot: StoredSnapshot,
    wanted: (finding: Finding) => boolean,
    options: AcceptOptions,
  ): Promise<{ graded: Graded; accepted: Finding[] }> {
    const { reason, dryRun, keys, lossShare } = options;
    const { graded } = snapshot;
    const chosen = graded?.findings.filter((finding) => mayStand(finding) && wanted(finding)) ?? [];
    if (graded === undefined || chosen.length === 0) throw nothingToAccept(snapshot);
    const numbers = keys.length === 0 ? 'all' : setOf(keys.map((key) => nameNumber(Buffer.from(key))));
    let sightings: readonly Sighting[] = graded.sightings;
    for (const { code, object: file } of chosen)
      sightings = acceptNames(sightings, { code, file, numbers }, reason);
    const before = await this.#history(snapshot);
    const after = await this.#check(snapshot, before, {
      lossShare,
      // The directory was not scanned, so a snapshot that may be cut inside a flush still may be.
      atRest: graded.grade === Grade_Value.INVALID,
      sightings,
      elapsedMs: 0,
      isCapture: false,
      dryRun,
    });
    const next = clone(GradedSchema, must(after.graded, 'the grade of a graded snapshot'));
    return { graded: next, accepted: chosen };
  }

  /** Returns the milliseconds since the last grading of the graph. */
  // Within one process the monotonic clock counts, as the wall clock may jump.
  #elapsedMs({ manifest }: StoredSnapshot, last: Graded | undefined): number {
    const lastMs = this.#lastMs.get(manifest.graphId);
    if (lastMs !== undefined) return monotonic() - lastMs;
    return last?.at === undefined ? 0 : Math.max(0, now() - timestampMs(last.at));
  }

  async #history(snapshot: StoredSnapshot): Promise<History> {
    const { graphId } = snapshot.manifest;
    let last: StoredSnapshot | undefined;
    let searched = 0;
    for await (const [, other] of this.#store.index.records({ graphId })) {
      if (!isStored(other) || other.manifest.sequence >= snapshot.manifest.sequence) continue;
      // What is on a fork only precedes other points of forks.
      if (other.forked !== undefined && snapshot.forked === undefined) continue;
      if (other.graded !== undefined) last ??= other;
      if (isUsable(other)) return { last, usable: other };
      searched += 1;
      if (searched === HISTORY_MAX) break;
    }
    return { last, usable: undefined };
  }

  /** Commits a grade with the facts for the next check. Returns the snapshot with its grade. */
  async #commit(
    snapshot: StoredSnapshot,
    graded: Graded,
    checked: { readonly files: readonly GraphContent[]; readonly facts: readonly EncodedFacts[] } = {
      files: [],
      facts: [],
    },
  ): Promise<StoredSnapshot> {
    const [record] = await this.#store.exclusively(() =>
      Transaction.run(this.#store, async (transaction) => {
        for (const { units } of checked.facts)
          for (const unit of units) {
            transaction.addPiece(UnitKind_Value.GRAPH, Buffer.from(unit));
            await transaction.flushPieces();
          }
        const usable = checked.facts.filter((file) => this.#hasBase(file));
        if (usable.length > 0) graded.index = this.#addIndex(transaction, checked.files, usable);
        const fact = { case: 'graded' as const, value: graded };
        return await transaction.commitFacts([{ digest: snapshot.digest, fact }], now());
      }),
    );
    const state = snapshotState(must(record, 'the record of a graded snapshot'), this.#store.config.storeId);
    if (!isStored(state)) throw notFound(idOf(snapshot), snapshot.manifest.graphId);
    return state;
  }

  /** Reports whether the unit that facts build on is still stored. */
  // It may have been removed since it was read.
  #hasBase({ units, lastId }: EncodedFacts): boolean {
    const [first] = units;
    const previous = first === undefined ? lastId : parseFactsUnit(first).previous;
    return previous.length === 0 || this.#store.locate(previous) !== undefined;
  }

  /** Stores the list of a graph's facts. Returns the id of its unit. */
  #addIndex(
    transaction: Transaction,
    files: readonly GraphContent[],
    facts: readonly EncodedFacts[],
  ): Uint8Array {
    const lastUnits = new Map(facts.map(({ path, lastId }) => [path, lastId]));
    const index = create(GraphIndexSchema, { version: FACTS_VERSION });
    for (const { path, content } of files) {
      const lastUnit = lastUnits.get(path);
      if (lastUnit === undefined) continue;
      index.files.push({
        $typeName: 'lightkeeper.store.v1.GraphFile',
        path,
        content: contentDigest(content),
        facts: lastUnit,
      });
    }
    const unit = Buffer.from(toBinary(GraphIndexSchema, index));
    transaction.addPiece(UnitKind_Value.GRAPH, unit);
    return unitId(UnitKind_Value.GRAPH, unit);
  }
}

/** Reports whether a grade may change although the files do not. */
export function canStillChange(graded: Graded): boolean {
  return (
    graded.grade === Grade_Value.TORN ||
    graded.findings.some((finding) => mayStand(finding) && finding.standing?.stands !== true)
  );
}

/** Reports whether no flush can have been under way when a snapshot was captured. */
function wasAtRest({ manifest }: StoredSnapshot, unchangedMs: number): boolean {
  const { cutMethod, atRest } = manifest;
  return (
    atRest ||
    cutMethod === CutMethod_Value.IDLE ||
    cutMethod === CutMethod_Value.PAUSED ||
    unchangedMs >= UNCHANGED_MS
  );
}

function nothingToAccept(snapshot: StoredSnapshot): LightkeeperError {
  return new LightkeeperError(
    'NOT_FOUND',
    `Cannot accept findings of snapshot "${idOf(snapshot)}": no error that can be accepted matches`,
    {
      hint: `run lightkeeper show ${idOf(snapshot).slice(0, 12)}; files that cannot be read are never accepted`,
    },
  );
}
