import { basename } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { ServiceImpl } from '@connectrpc/connect';
import { LightkeeperError, normalise } from '../../core/errors.ts';
import { warning } from '../../core/finding.ts';
import { mayStand } from '../../core/lightrag/grade.ts';
import { LOSS_SHARE } from '../../core/lightrag/loss.ts';
import { capturedMs, checkGraphId, graphIdOf } from '../../core/manifest.ts';
import type { OnProgress } from '../../core/progress.ts';
import { learnTorn, windowBefore } from '../../core/quiet.ts';
import { type CommittedSnapshot, gradeOf, idOf, isCommitted, isTorn, isUsable } from '../../core/snapshot.ts';
import {
  type AcceptFindingsRequest,
  AcceptFindingsResponseSchema,
  type AgentService,
  type CreateSnapshotRequest,
  GetSnapshotResponseSchema,
  GetStatsResponseSchema,
  GetStatusResponseSchema,
  GraphStatusSchema,
  ListSnapshotsResponseSchema,
  RepairResultSchema,
  type RestoreRequest,
  type RestoreResult,
  type Snapshot,
  type SnapshotSummary,
  VerifyLevel_Value,
  type VerifyRequest,
  VerifyResultSchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import {
  type Finding,
  Grade_Value,
  Severity_Value,
  type SnapshotRecord,
} from '../../gen/lightkeeper/v1/types_pb.ts';
import { now } from '../../host/clock.ts';
import { type CaptureResult, capture } from '../capture/capture.ts';
import { GRAPH_DEFAULTS, type Guarded } from '../config/settings.ts';
import { exportDocument } from '../diff/document-export.ts';
import { diffSnapshots } from '../diff/snapshot-diff.ts';
import { Grader } from '../grade/grader.ts';
import { inspectSnapshots } from '../grade/verify-graphs.ts';
import { newestRecord, notFound, onlyGraph, selectSnapshot } from '../snapshots/resolve.ts';
import { Keeping, withoutReason } from '../snapshots/retention.ts';
import { allFindings, fileView, snapshotView, summaryView } from '../snapshots/views.ts';
import { reconcile } from '../store/index/reconcile.ts';
import type { Store } from '../store/store.ts';
import { repairStore } from '../store/upkeep/repair.ts';
import { snapshotsOf, verifyStore } from '../store/upkeep/verify.ts';
import { workspacesIn } from '../watch/workspaces.ts';
import { tell } from './progress.ts';
import { answerRestore } from './restore.ts';

/** How long a snapshot waits for its directory to settle. */
export const SETTLE_TIMEOUT_MS = 30_000;
const PAGE_SNAPSHOTS = 1000;
const PAGE_FILES = 1000;
const PAGE_MAX = 10_000;

/** The calls that people make of a store, on one that is open in this process. */
export class StoreService {
  readonly store: Store;
  readonly #guarded: () => readonly Guarded[];
  readonly #onSnapshot: (snapshot: Snapshot, result: CaptureResult) => void;
  readonly #onRestored: (ms: number) => void;
  readonly #onSettled: (findings: readonly Finding[]) => void;
  readonly keeping: Keeping;
  readonly #grader: Grader;

  constructor(
    store: Store,
    options: {
      guarded?: () => readonly Guarded[];
      onSnapshot?: (snapshot: Snapshot, result: CaptureResult) => void;
      onRestored?: (ms: number) => void;
      /** A capture has first finished or undone a restore in place that was cut off. */
      onSettled?: (findings: readonly Finding[]) => void;
    } = {},
  ) {
    this.store = store;
    this.keeping = new Keeping(store);
    this.#grader = new Grader(store);
    this.#guarded = options.guarded ?? (() => []);
    this.#onSnapshot = options.onSnapshot ?? (() => {});
    this.#onRestored = options.onRestored ?? (() => {});
    this.#onSettled = options.onSettled ?? (() => {});
  }

  /** The calls as the generated service wants them. */
  implementation(): ServiceImpl<typeof AgentService> {
    return {
      createSnapshot: (request, { signal }) =>
        tell((onProgress) => this.snapshot(request, onProgress, signal)),
      listSnapshots: ({ graphId, pageSize, pageToken }) => this.list(graphId, pageSize, pageToken),
      getSnapshot: (request) => this.show(request),
      restore: (request, { signal }) => tell((onProgress) => this.restore(request, onProgress, signal)),
      verify: (request, { signal }) => tell((onProgress) => this.verify(request, onProgress, signal)),
      prune: (request) => tell((onProgress) => this.keeping.prune(request, onProgress)),
      repair: ({ dryRun }) => tell((onProgress) => this.repair(dryRun, onProgress)),
      deleteSnapshot: ({ snapshotId, graphId, reason, dryRun }) =>
        this.keeping.delete(snapshotId, graphId, reason, dryRun),
      pinSnapshot: ({ snapshotId, graphId, pinned }) => this.keeping.pin(snapshotId, graphId, pinned),
      tagSnapshot: ({ snapshotId, graphId, set, remove }) =>
        this.keeping.tag(snapshotId, graphId, set, remove),
      acknowledgeSnapshot: ({ snapshotId, graphId, reason }) =>
        this.keeping.acknowledge(snapshotId, graphId, reason),
      acceptFindings: (request) => this.accept(request),
      diff: async ({ fromSnapshotId, toSnapshotId, graphId }, { signal }) => {
        const from = await selectSnapshot(this.store, fromSnapshotId, graphId);
        const to = await selectSnapshot(this.store, toSnapshotId, graphId);
        return await diffSnapshots(this.store, from.record, to.record, signal);
      },
      exportDocument: async ({ snapshotId, graphId, documentId }, { signal }) => {
        const { record } = await selectSnapshot(this.store, snapshotId, graphId);
        return await exportDocument(this.store, record, documentId, signal);
      },
      getStats: ({ graphId }) => this.stats(graphId),
      getStatus: () => this.status(),
    };
  }

  /** Takes a snapshot; see the proto for what the fields mean. */
  async snapshot(
    request: CreateSnapshotRequest,
    onProgress: OnProgress,
    signal?: AbortSignal,
  ): Promise<Snapshot> {
    const dir = Buffer.from(request.dir);
    const graphId = request.graphId === '' ? graphIdOf(basename(dir.toString())) : request.graphId;
    checkGraphId(graphId);
    const guarded = this.#guarded().find((one) => one.graphId === graphId && one.dir === dir.toString());
    const result = await capture(this.store, {
      graphId,
      dir,
      instance: guarded?.instance,
      hooks: guarded?.hooks,
      leaveOut: guarded?.leaveOut ?? (request.split ? () => new Set(workspacesIn(dir)) : undefined),
      quietMs: request.quietMs ?? GRAPH_DEFAULTS.quietMs,
      settleTimeoutMs: request.settleTimeoutMs === 0 ? SETTLE_TIMEOUT_MS : request.settleTimeoutMs,
      exclude: request.exclude,
      tags: request.tags,
      description: request.description,
      reserveBytes: request.diskReserveBytes,
      onProgress,
      onSettled: this.#onSettled,
      ...(signal === undefined ? {} : { signal }),
    });
    const tagged = result.unchanged ? await this.#withTags(result.record, request.tags) : result.record;
    if (!isCommitted(tagged))
      throw new LightkeeperError('INTERNAL', 'Cannot show the snapshot that was just taken');
    const { record, failure } = request.noGrade
      ? { record: tagged, failure: undefined }
      : await this.#graded(tagged, result.unchanged, guarded?.lossShare, signal);
    if (!result.unchanged) await this.#learnTorn(record, request.quietMs);
    const met = failure === undefined ? result.findings : [...result.findings, failure];
    const snapshot = snapshotView(record, {
      unchanged: result.unchanged,
      confirmedAtMs: await this.store.index.confirmedAt(graphId),
      findings: allFindings(record, met),
    });
    this.#onSnapshot(snapshot, result);
    return snapshot;
  }

  /** The window before a point that proved to be torn by its content was too short; an old defect says nothing of it. */
  async #learnTorn(record: CommittedSnapshot, quietMs: number = GRAPH_DEFAULTS.quietMs): Promise<void> {
    const { manifest, digest, graded } = record;
    const isNew = graded?.findings.some((finding) => mayStand(finding) && finding.standing?.captures === 1);
    if (isNew !== true || isTorn(manifest) || gradeOf(record) !== Grade_Value.TORN) return;
    const { index } = this.store;
    const known = await index.quietRecord(manifest.graphId);
    const batch = index.batch();
    const learned = learnTorn(known, digest, windowBefore(quietMs, known, digest));
    index.putQuietRecord(batch, manifest.graphId, learned);
    await index.write('index:quiet', batch);
  }

  /** A snapshot is there whether or not it can be looked into: that is tried again with the next one. */
  async #graded(
    record: CommittedSnapshot,
    unchanged: boolean,
    lossShare: number = LOSS_SHARE,
    signal?: AbortSignal,
  ): Promise<{ record: CommittedSnapshot; failure: Finding | undefined }> {
    try {
      const graded = unchanged
        ? await this.#grader.again(record, lossShare, signal)
        : await this.#grader.grade(record, lossShare, signal);
      return { record: graded, failure: undefined };
    } catch (error) {
      const { message, hint } = normalise(error);
      return { record, failure: warning('not_graded', idOf(record), { message, hint }) };
    }
  }

  /** A point that was asked for with tags has them, also where nothing had changed. */
  async #withTags(record: SnapshotRecord, tags: Readonly<Record<string, string>>): Promise<SnapshotRecord> {
    if (Object.keys(tags).length === 0) return record;
    const name = idOf(record);
    await this.keeping.tag(name, '', tags, []);
    return (await selectSnapshot(this.store, name, '')).record;
  }

  /** Has errors of the newest snapshot of a graph stand, for a reason. */
  async accept({ graphId, code, object, reason, dryRun }: AcceptFindingsRequest) {
    if (reason === '') throw withoutReason('accept findings');
    const record = await newestRecord(this.store, graphId === '' ? await onlyGraph(this.store) : graphId);
    if (record === undefined || !isCommitted(record)) throw notFound('latest', graphId);
    const wanted = (finding: Finding) =>
      (code === '' || finding.code === code) && (object === '' || finding.object === object);
    const { graded, accepted } = await this.#grader.accept(record, wanted, reason, dryRun);
    return create(AcceptFindingsResponseSchema, {
      snapshotId: idOf(record),
      grade: graded.grade,
      accepted,
      remaining: graded.findings.filter(
        ({ severity, standing }) => severity === Severity_Value.ERROR && standing?.stands !== true,
      ),
      dryRun,
    });
  }

  async list(graphId: string, pageSize: number, pageToken: string) {
    const limit = Math.min(pageSize === 0 ? PAGE_SNAPSHOTS : pageSize, PAGE_MAX);
    const snapshots: SnapshotSummary[] = [];
    const side = pageToken.startsWith('x');
    const before = pageToken === '' || pageToken === 'x' ? undefined : Buffer.from(pageToken.slice(1), 'hex');
    const scope = graphId === '' ? {} : { graphId };
    for (const letter of side ? [true] : [false, true]) {
      const from = letter === side && before !== undefined ? { before } : {};
      for await (const [at, record] of this.store.index.records({ ...scope, side: letter, ...from })) {
        if (!isCommitted(record)) continue;
        if (snapshots.length >= limit) {
          // The record at the token is the first of the next page.
          const next = Buffer.concat([at, Buffer.from([0])]).toString('hex');
          return create(ListSnapshotsResponseSchema, {
            snapshots,
            nextPageToken: `${letter ? 'x' : 's'}${next}`,
          });
        }
        snapshots.push(summaryView(record));
      }
    }
    return create(ListSnapshotsResponseSchema, { snapshots });
  }

  async show(request: { snapshotId: string; graphId: string; pageSize: number; pageToken: string }) {
    const { record } = await selectSnapshot(this.store, request.snapshotId, request.graphId);
    const limit = Math.min(request.pageSize === 0 ? PAGE_FILES : request.pageSize, PAGE_MAX);
    const from = request.pageToken === '' ? 0 : Number(request.pageToken);
    const response = create(GetSnapshotResponseSchema, {
      snapshot: snapshotView(record, { confirmedAtMs: await this.#confirmedAt(record) }),
      findings: allFindings(record),
      ...(record.graded?.stats === undefined ? {} : { stats: record.graded.stats }),
    });
    let place = 0;
    for await (const file of this.store.files(record.manifest.files)) {
      if (place >= from + limit) {
        response.nextPageToken = String(place);
        break;
      }
      if (place >= from) response.files.push(fileView(file));
      place += 1;
    }
    return response;
  }

  /** Only the head of a graph is what its directory was last found equal to. */
  async #confirmedAt(record: CommittedSnapshot): Promise<number | undefined> {
    const { graphId } = record.manifest;
    const head = await this.store.index.head(graphId);
    if (head === undefined || !Buffer.from(head.digest).equals(record.digest)) return undefined;
    return await this.store.index.confirmedAt(graphId);
  }

  async restore(
    request: RestoreRequest,
    onProgress: OnProgress,
    signal?: AbortSignal,
  ): Promise<RestoreResult> {
    const result = await answerRestore(this.store, request, {
      guarded: this.#guarded(),
      onProgress,
      ...(signal === undefined ? {} : { signal }),
    });
    if (!request.dryRun) this.#onRestored(result.durationMs);
    return result;
  }

  async verify(request: VerifyRequest, onProgress: OnProgress, signal?: AbortSignal) {
    const only =
      request.snapshotId === ''
        ? undefined
        : (await selectSnapshot(this.store, request.snapshotId, request.graphId)).record;
    // The index is a cache, and may have lost something without a word: the packs say what there is.
    if (only === undefined && !this.store.readOnly)
      await this.store.exclusively(() => reconcile(this.store, { all: true }));
    const result = await verifyStore(this.store, {
      bytes: request.level !== VerifyLevel_Value.STRUCTURE,
      onProgress,
      ...(only === undefined ? {} : { only }),
      ...(signal === undefined ? {} : { signal }),
    });
    if (request.level === VerifyLevel_Value.GRAPH)
      result.findings.push(...(await inspectSnapshots(this.store, snapshotsOf(this.store, only), signal)));
    return create(VerifyResultSchema, {
      level: request.level,
      checkedSnapshots: result.snapshots,
      checkedPacks: result.packs,
      checkedBytes: BigInt(result.bytes),
      findings: result.findings,
    });
  }

  async repair(dryRun: boolean, onProgress: OnProgress) {
    return await this.store.exclusively(async () => {
      const result = await repairStore(this.store, { dryRun, onProgress });
      return create(RepairResultSchema, { ...result, dryRun });
    });
  }

  async stats(graphId: string) {
    const result = create(GetStatsResponseSchema);
    const scope = graphId === '' ? {} : { graphId };
    for (const side of [false, true]) {
      for await (const [, record] of this.store.index.records({ ...scope, side })) {
        if (!isCommitted(record)) continue;
        result.snapshots += 1;
        result.rawBytes += record.manifest.totals?.rawBytes ?? 0n;
      }
    }
    let unitBytes = 0n;
    for await (const [, pack] of this.store.index.packs()) {
      result.packs += 1;
      result.storedBytes += pack.size;
      result.units += BigInt(pack.units);
      unitBytes += pack.rawBytes;
    }
    const [raw, stored, units] = [Number(result.rawBytes), Number(result.storedBytes), Number(unitBytes)];
    result.dedupRatio = units === 0 ? 0 : raw / units;
    result.compressionRatio = stored === 0 ? 0 : units / stored;
    result.savedRatio = raw === 0 ? 0 : 1 - stored / raw;
    return result;
  }

  async status() {
    const guarded = this.#guarded();
    const graphs = new Set([...guarded.map(({ graphId }) => graphId), ...(await this.store.index.graphs())]);
    const status = create(GetStatusResponseSchema, { store: this.store.root });
    for (const graphId of [...graphs].sort()) {
      const guard = guarded.find((one) => one.graphId === graphId);
      const graph = await this.graphStatus(graphId, guard?.dir ?? '');
      graph.findings.push(...(guard?.findings ?? []));
      for await (const [, record] of this.store.index.records({ graphId }))
        if (isCommitted(record)) graph.snapshots += 1;
      status.graphs.push(graph);
    }
    return status;
  }

  /** How a graph stands: its newest usable point and what would be lost now. */
  async graphStatus(graphId: string, dir: string) {
    const status = create(GraphStatusSchema, { graphId, dir, findings: [...this.store.findings] });
    const usable = await this.#newestUsable(graphId);
    if (usable === undefined) return status;
    status.lastUsableId = idOf(usable);
    if (usable.manifest.capturedAt !== undefined) status.lastUsableAt = usable.manifest.capturedAt;
    const confirmedMs = Math.max((await this.#confirmedAt(usable)) ?? 0, capturedMs(usable.manifest));
    status.confirmedAt = timestampFromMs(confirmedMs);
    status.rpoMs = BigInt(Math.max(0, Math.round(now() - confirmedMs)));
    return status;
  }

  async #newestUsable(graphId: string): Promise<CommittedSnapshot | undefined> {
    for await (const [, record] of this.store.index.records({ graphId })) {
      if (isCommitted(record) && isUsable(record)) return record;
    }
    return undefined;
  }
}
