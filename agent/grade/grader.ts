import { clone, create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt';
import { must } from '../../core/assert.ts';
import { LightkeeperError } from '../../core/errors.ts';
import { FACTS_VERSION, parseFactsUnit } from '../../core/lightrag/facts-codec.ts';
import {
  type GradeConditions,
  judge,
  mayStand,
  sightingKey,
  UNCHANGED_MS,
} from '../../core/lightrag/grade.ts';
import { type Lost, lossAlarms } from '../../core/lightrag/loss.ts';
import { capturedMs } from '../../core/manifest.ts';
import {
  idOf,
  isChangedCut,
  isStored,
  isUsable,
  type StoredSnapshot,
  snapshotState,
} from '../../core/snapshot.ts';
import { hex, unitId } from '../../core/unit.ts';
import { type Graded, GradedSchema, SightingSchema } from '../../gen/lightkeeper/store/v1/annotation_pb.ts';
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
import { type GraphContent, graphContents } from '../snapshots/graph-files.ts';
import { notFound, resolveSnapshot } from '../snapshots/resolve.ts';
import { newestChangeMs } from '../store/index/change-times.ts';
import type { Store } from '../store/store.ts';
import { Transaction } from '../store/transaction.ts';
import type { EncodedFacts } from '../workers/grade-task.ts';
import { checkIncrementally, contentDigest, FactsCache } from './incremental-check.ts';

/** Most findings stored with a grade; the rest is counted. */
const FINDINGS_MAX = 200;

/** Most snapshots searched for the last usable one. */
const HISTORY_MAX = 2000;

/** Earlier snapshots that a snapshot is graded against. */
interface History {
  /** The snapshot before it, of any grade. */
  readonly parent: StoredSnapshot | undefined;
  /** The newest graded one. */
  readonly last: StoredSnapshot | undefined;
  /** The newest usable one. */
  readonly usable: StoredSnapshot | undefined;
}

/** Options of one grading. */
interface GradeOptions {
  /** Share of the records that may be lost without an alarm. */
  readonly lossShare: number;
  /** Milliseconds for which the directory is known to be unchanged. */
  readonly unchangedMs: number;
  readonly signal?: AbortSignal | undefined;
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
      // Changes of the directory after the capture are not known here.
      const unchangedMs = capturedMs(current.manifest) - (await newestChangeMs(this.#store, current));
      this.#heads.set(current.manifest.graphId, { digest: hex(current.digest), sinceMs: monotonic() });
      return await this.#check(current, { lossShare, unchangedMs, signal });
    });
  }

  /**
   * Grades the newest snapshot of a graph again, after a scan found the directory equal to it. Its errors count as
   * seen in one more capture.
   */
  async regrade(snapshot: StoredSnapshot, lossShare: number, signal?: AbortSignal): Promise<StoredSnapshot> {
    return await this.#inTurn(snapshot, async (current) => {
      const { graded } = current;
      const unchangedMs = this.#unchangedMs(current);
      if (graded === undefined) return await this.#check(current, { lossShare, unchangedMs, signal });
      if (isChangedCut(current.manifest) || !canStillChange(graded)) return current;
      const next = clone(GradedSchema, graded);
      const ages = { unchangedMs, elapsedMs: this.#elapsedMs(current, graded) };
      this.#setGrade(next, graded.findings, current, { sightings: graded.sightings, ...ages });
      this.#lastMs.set(current.manifest.graphId, monotonic());
      return await this.#commit(current, next);
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

  async #check(
    snapshot: StoredSnapshot,
    { lossShare, unchangedMs, signal }: GradeOptions,
  ): Promise<StoredSnapshot> {
    if (isChangedCut(snapshot.manifest)) return snapshot;
    const began = monotonic();
    const { parent, last, usable } = await this.#history(snapshot);
    const before = usable?.graded?.stats;
    const graded = create(GradedSchema);
    let facts: readonly EncodedFacts[] = [];
    let findings: Finding[] = [];
    let lost: Lost | undefined;
    const endRead = this.#store.beginRead();
    let files: GraphContent[];
    try {
      files = await graphContents(this.#store, snapshot.manifest);
      if (files.length > 0) {
        const request = { snapshot, files, parent, base: usable ?? last, cache: this.#cache };
        const result = await this.#oneAtATime(() => checkIncrementally(this.#store, request, signal));
        ({ files: facts, lost } = result);
        graded.summary = result.summary;
        graded.stats = fromBinary(GraphStatsSchema, result.stats);
        findings = result.findings.map((bytes) => fromBinary(FindingSchema, bytes));
      } else if (before !== undefined) graded.stats = create(GraphStatsSchema);
    } finally {
      // The commit below may wait for a removal of packs, which waits for readers.
      endRead();
    }
    if (before !== undefined && graded.stats !== undefined)
      graded.alarms = lossAlarms(before, graded.stats, { lossShare, lost });
    const ages = { unchangedMs, elapsedMs: this.#elapsedMs(snapshot, last?.graded) };
    const sightings = last?.graded?.sightings ?? [];
    this.#setGrade(graded, findings, snapshot, { sightings, ...ages });
    graded.durationMs = BigInt(Math.max(1, Math.round(monotonic() - began)));
    this.#lastMs.set(snapshot.manifest.graphId, monotonic());
    return await this.#commit(snapshot, graded, { files, facts });
  }

  /** Accepts errors of a snapshot for a reason and returns the grade that results. A dry run does not commit it. */
  async accept(
    snapshot: StoredSnapshot,
    wanted: (finding: Finding) => boolean,
    options: { readonly reason: string; readonly dryRun: boolean },
  ): Promise<{ graded: Graded; accepted: Finding[] }> {
    return await this.#inTurn(snapshot, (current) => this.#accept(current, wanted, options));
  }

  async #accept(
    snapshot: StoredSnapshot,
    wanted: (finding: Finding) => boolean,
    options: { readonly reason: string; readonly dryRun: boolean },
  ): Promise<{ graded: Graded; accepted: Finding[] }> {
    const { reason, dryRun } = options;
    const { graded } = snapshot;
    const chosen = graded?.findings.filter((finding) => mayStand(finding) && wanted(finding)) ?? [];
    if (graded === undefined || chosen.length === 0) {
      throw new LightkeeperError(
        'NOT_FOUND',
        `Cannot accept findings of snapshot "${idOf(snapshot)}": no error that can be accepted matches`,
        {
          hint: `run lightkeeper show ${idOf(snapshot).slice(0, 12)}; files that cannot be read are never accepted`,
        },
      );
    }
    const keys = new Set(chosen.map((finding) => hex(sightingKey(finding))));
    const known = new Map(graded.sightings.map((sighting) => [hex(sighting.key), sighting]));
    for (const key of keys) {
      const { captures = 0, ageMs = 0n } = known.get(key)?.standing ?? {};
      const standing = { captures, ageMs, accepted: reason };
      known.set(key, create(SightingSchema, { key: Buffer.from(key, 'hex'), standing }));
    }
    const next = clone(GradedSchema, graded);
    // The directory was not scanned, so a snapshot that may be cut inside a flush still may be.
    const unchangedMs = graded.grade === Grade_Value.INVALID ? UNCHANGED_MS : 0;
    const ages = { unchangedMs, elapsedMs: 0, isCapture: false };
    this.#setGrade(next, graded.findings, snapshot, { sightings: [...known.values()], ...ages });
    // The ages of the errors must not grow by an acceptance.
    if (graded.at !== undefined) next.at = graded.at;
    if (!dryRun) await this.#commit(snapshot, next);
    return { graded: next, accepted: chosen };
  }

  /** Sets the grade and the findings of `graded`. */
  #setGrade(
    graded: Graded,
    findings: readonly Finding[],
    { manifest }: StoredSnapshot,
    ages: Omit<GradeConditions, 'idle'>,
  ): void {
    const idle = manifest.cutMethod === CutMethod_Value.IDLE;
    const judged = judge(findings, manifest.findings, { idle, ...ages });
    graded.grade = judged.grade;
    graded.findings = judged.findings.slice(0, FINDINGS_MAX);
    graded.findingsOmitted += Math.max(0, judged.findings.length - FINDINGS_MAX);
    graded.sightings = judged.sightings;
    graded.at = timestampFromMs(now());
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
    let parent: StoredSnapshot | undefined;
    let last: StoredSnapshot | undefined;
    let searched = 0;
    for await (const [, other] of this.#store.index.records({ graphId })) {
      if (!isStored(other) || other.manifest.sequence >= snapshot.manifest.sequence) continue;
      parent ??= other;
      if (other.graded !== undefined) last ??= other;
      if (isUsable(other)) return { parent, last, usable: other };
      searched += 1;
      if (searched === HISTORY_MAX) break;
    }
    return { parent, last, usable: undefined };
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
  return graded.findings.some((finding) => mayStand(finding) && finding.standing?.stands !== true);
}
