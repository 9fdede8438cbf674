import { clone, create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt';
import { must } from '../../core/assert.ts';
import { LightkeeperError } from '../../core/errors.ts';
import { FACTS_VERSION, parseFactsUnit } from '../../core/lightrag/facts-codec.ts';
import { type Circumstances, judge, mayStand, sightingKey, UNCHANGED_MS } from '../../core/lightrag/grade.ts';
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
import { type Content, graphContents } from '../snapshots/graph-files.ts';
import { notFound, resolveSnapshot } from '../snapshots/resolve.ts';
import { newestChangeMs } from '../store/index/change-times.ts';
import type { Store } from '../store/store.ts';
import { Transaction } from '../store/transaction.ts';
import type { EncodedFacts } from '../workers/grade-task.ts';
import { contentDigest, KnownChains, look } from './incremental-check.ts';

/** Findings that are kept with a grade; the rest is counted. */
const FINDINGS_MAX = 200;

/** Points that are looked through for the last usable one. */
const LOOK_BACK_MAX = 2000;

/** What a snapshot is graded against. */
interface History {
  /** The point before it, of whatever grade. */
  readonly parent: StoredSnapshot | undefined;
  /** The last one that was graded. */
  readonly last: StoredSnapshot | undefined;
  /** The last usable one. */
  readonly usable: StoredSnapshot | undefined;
}

/** Grades snapshots, and notes that durably. One for each open store. */
export class Grader {
  readonly #store: Store;
  /** When a graph was last graded by this process, on the monotonic clock. */
  readonly #lastMs = new Map<string, number>();
  readonly #chains = new KnownChains();
  /** Since when this process knows the newest snapshot of a graph to be what its directory is. */
  readonly #heads = new Map<string, { digest: string; sinceMs: number }>();
  readonly #turns = new Map<string, Promise<void>>();
  #looking: Promise<void> = Promise.resolve();

  constructor(store: Store) {
    this.#store = store;
  }

  /**
   * Looks into a snapshot, the newest of its graph, and grades it; answers its record as it is then. Side snapshots stay
   * as they are.
   */
  async grade(record: StoredSnapshot, lossShare: number, signal?: AbortSignal): Promise<StoredSnapshot> {
    return await this.#inTurn(record, async (current) => {
      // Nobody knows what became of the directory since.
      const restedMs = capturedMs(current.manifest) - (await newestChangeMs(this.#store, current));
      this.#heads.set(current.manifest.graphId, { digest: hex(current.digest), sinceMs: monotonic() });
      return await this.#look(current, { lossShare, restedMs, ...(signal === undefined ? {} : { signal }) });
    });
  }

  /** The directory was found to be as a snapshot, the newest, has it: its errors are a capture older. */
  async regrade(record: StoredSnapshot, lossShare: number, signal?: AbortSignal): Promise<StoredSnapshot> {
    return await this.#inTurn(record, async (current) => {
      const { graded } = current;
      const restedMs = this.#restedMs(current);
      if (graded === undefined)
        return await this.#look(current, {
          lossShare,
          restedMs,
          ...(signal === undefined ? {} : { signal }),
        });
      if (isChangedCut(current.manifest) || !isOpen(graded)) return current;
      const next = clone(GradedSchema, graded);
      const ages = { unchangedMs: restedMs, elapsedMs: this.#elapsedMs(current, graded) };
      this.#judge(next, graded.findings, current, { sightings: graded.sightings, ...ages });
      this.#lastMs.set(current.manifest.graphId, monotonic());
      return await this.#commit(current, next);
    });
  }

  /** Calls about one graph one after another, each with what the one before it has noted. */
  async #inTurn<T>(record: StoredSnapshot, run: (current: StoredSnapshot) => Promise<T>): Promise<T> {
    const { graphId } = record.manifest;
    const before = this.#turns.get(graphId);
    // What another grading of the graph has stored meanwhile is read again; otherwise the snapshot is as handed over.
    const mine =
      before === undefined
        ? run(record)
        : before.then(async () => await run(await resolveSnapshot(this.#store, idOf(record), graphId)));
    const ended = mine.then(
      () => {},
      () => {}, // Whoever asked is told.
    );
    this.#turns.set(graphId, ended);
    try {
      return await mine;
    } finally {
      if (this.#turns.get(graphId) === ended) this.#turns.delete(graphId);
    }
  }

  /** Looks of all graphs one after another: each holds what a capture does. */
  async #alone<T>(run: () => Promise<T>): Promise<T> {
    const mine = this.#looking.then(run);
    this.#looking = mine.then(
      () => {},
      () => {}, // Whoever asked is told.
    );
    return await mine;
  }

  /** For how long the newest snapshot is known to be what the directory is; by no clock that jumps within one process. */
  #restedMs({ manifest, digest }: StoredSnapshot): number {
    const head = this.#heads.get(manifest.graphId);
    return head?.digest === hex(digest) ? monotonic() - head.sinceMs : now() - capturedMs(manifest);
  }

  async #look(
    record: StoredSnapshot,
    { lossShare, restedMs, signal }: { lossShare: number; restedMs: number; signal?: AbortSignal },
  ): Promise<StoredSnapshot> {
    if (isChangedCut(record.manifest)) return record;
    const began = monotonic();
    const history = await this.#history(record);
    const before = history.usable?.graded?.stats;
    const graded = create(GradedSchema);
    let files: readonly EncodedFacts[] = [];
    let findings: Finding[] = [];
    let lost: Lost | undefined;
    const endRead = this.#store.beginRead();
    let contents: Content[];
    try {
      contents = await graphContents(this.#store, record.manifest);
      if (contents.length > 0) {
        const { parent, last, usable } = history;
        const order = { record, contents, parent, before: usable ?? last, chains: this.#chains };
        const outcome = await this.#alone(() => look(this.#store, order, signal));
        ({ files, lost } = outcome);
        graded.summary = outcome.summary;
        graded.stats = fromBinary(GraphStatsSchema, outcome.stats);
        findings = outcome.findings.map((bytes) => fromBinary(FindingSchema, bytes));
      } else if (before !== undefined) graded.stats = create(GraphStatsSchema);
    } finally {
      // A removal of packs waits for readers, and what is noted below may wait for it.
      endRead();
    }
    if (before !== undefined && graded.stats !== undefined)
      graded.alarms = lossAlarms(before, graded.stats, { lossShare, lost });
    const ages = { unchangedMs: restedMs, elapsedMs: this.#elapsedMs(record, history.last?.graded) };
    const sightings = history.last?.graded?.sightings ?? [];
    this.#judge(graded, findings, record, { sightings, ...ages });
    graded.durationMs = BigInt(Math.max(1, Math.round(monotonic() - began)));
    this.#lastMs.set(record.manifest.graphId, monotonic());
    return await this.#commit(record, graded, contents, files);
  }

  /** Has errors of a snapshot stand for a reason; answers its grade with them, without noting it if it is a dry run. */
  async accept(
    record: StoredSnapshot,
    wanted: (finding: Finding) => boolean,
    options: { readonly reason: string; readonly dryRun: boolean },
  ): Promise<{ graded: Graded; accepted: Finding[] }> {
    return await this.#inTurn(record, (current) => this.#accept(current, wanted, options));
  }

  async #accept(
    record: StoredSnapshot,
    wanted: (finding: Finding) => boolean,
    options: { readonly reason: string; readonly dryRun: boolean },
  ): Promise<{ graded: Graded; accepted: Finding[] }> {
    const { reason, dryRun } = options;
    const { graded } = record;
    const chosen = graded?.findings.filter((finding) => mayStand(finding) && wanted(finding)) ?? [];
    if (graded === undefined || chosen.length === 0) {
      throw new LightkeeperError(
        'NOT_FOUND',
        `Cannot accept findings of snapshot "${idOf(record)}": none of its errors is meant, or none can be accepted`,
        {
          hint: `run lightkeeper show ${idOf(record).slice(0, 12)}; files that do not read are never accepted`,
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
    // Nothing has looked at the directory: what may have been a moment of a flush may still have been one.
    const unchangedMs = graded.grade === Grade_Value.INVALID ? UNCHANGED_MS : 0;
    const ages = { unchangedMs, elapsedMs: 0, isCapture: false };
    this.#judge(next, graded.findings, record, { sightings: [...known.values()], ...ages });
    // Time has not passed for the next look.
    if (graded.at !== undefined) next.at = graded.at;
    if (!dryRun) await this.#commit(record, next);
    return { graded: next, accepted: chosen };
  }

  #judge(
    graded: Graded,
    findings: readonly Finding[],
    { manifest }: StoredSnapshot,
    ages: Omit<Circumstances, 'idle'>,
  ): void {
    const idle = manifest.cutMethod === CutMethod_Value.IDLE;
    const judged = judge(findings, manifest.findings, { idle, ...ages });
    graded.grade = judged.grade;
    graded.findings = judged.findings.slice(0, FINDINGS_MAX);
    graded.findingsOmitted += Math.max(0, judged.findings.length - FINDINGS_MAX);
    graded.sightings = judged.sightings;
    graded.at = timestampFromMs(now());
  }

  /** Time since the last grade; within one process clocks that jump do not count. */
  #elapsedMs({ manifest }: StoredSnapshot, last: Graded | undefined): number {
    const lastMs = this.#lastMs.get(manifest.graphId);
    if (lastMs !== undefined) return monotonic() - lastMs;
    return last?.at === undefined ? 0 : Math.max(0, now() - timestampMs(last.at));
  }

  async #history(record: StoredSnapshot): Promise<History> {
    const { graphId } = record.manifest;
    let parent: StoredSnapshot | undefined;
    let last: StoredSnapshot | undefined;
    let looked = 0;
    for await (const [, other] of this.#store.index.records({ graphId })) {
      if (!isStored(other) || other.manifest.sequence >= record.manifest.sequence) continue;
      parent ??= other;
      if (other.graded !== undefined) last ??= other;
      if (isUsable(other)) return { parent, last, usable: other };
      looked += 1;
      if (looked === LOOK_BACK_MAX) break;
    }
    return { parent, last, usable: undefined };
  }

  /** Commits a grade, with the facts that the next grading needs, and returns the snapshot with it. */
  async #commit(
    snapshot: StoredSnapshot,
    graded: Graded,
    contents: readonly Content[] = [],
    files: readonly EncodedFacts[] = [],
  ): Promise<StoredSnapshot> {
    const [record] = await this.#store.exclusively(() =>
      Transaction.run(this.#store, async (transaction) => {
        for (const { units } of files)
          for (const unit of units) {
            transaction.addPiece(UnitKind_Value.GRAPH, Buffer.from(unit));
            await transaction.flushPieces();
          }
        const kept = files.filter((file) => this.#isWhole(file));
        if (kept.length > 0) graded.index = this.#addIndex(transaction, contents, kept);
        const fact = { case: 'graded' as const, value: graded };
        return await transaction.commitFacts([{ digest: snapshot.digest, fact }], now());
      }),
    );
    const state = snapshotState(must(record, 'the record of a graded snapshot'), this.#store.config.storeId);
    if (!isStored(state)) throw notFound(idOf(snapshot), snapshot.manifest.graphId);
    return state;
  }

  /** Whether what facts build on is still there: it may have been removed since it was read. */
  #isWhole({ units, lastId }: EncodedFacts): boolean {
    const [first] = units;
    const previous = first === undefined ? lastId : parseFactsUnit(first).previous;
    return previous.length === 0 || this.#store.locate(previous) !== undefined;
  }

  #addIndex(
    transaction: Transaction,
    contents: readonly Content[],
    files: readonly EncodedFacts[],
  ): Uint8Array {
    const last = new Map(files.map(({ path, lastId }) => [path, lastId]));
    const index = create(GraphIndexSchema, { version: FACTS_VERSION });
    for (const { path, content } of contents) {
      const facts = last.get(path);
      if (facts === undefined) continue;
      index.files.push({
        $typeName: 'lightkeeper.store.v1.GraphFile',
        path,
        content: contentDigest(content),
        facts,
      });
    }
    const unit = Buffer.from(toBinary(GraphIndexSchema, index));
    transaction.addPiece(UnitKind_Value.GRAPH, unit);
    return unitId(UnitKind_Value.GRAPH, unit);
  }
}

/** Whether a grade may change although the files do not. */
export function isOpen(graded: Graded): boolean {
  return graded.findings.some((finding) => mayStand(finding) && finding.standing?.stands !== true);
}
