import { create } from '@bufbuild/protobuf';
import type { ServiceImpl } from '@connectrpc/connect';
import { LightkeeperError } from '../../core/errors.ts';
import { checkGraphId, defaultGraphId } from '../../core/graph-id.ts';
import { pathFromBytes } from '../../core/path.ts';
import type { OnProgress } from '../../core/progress.ts';
import {
  type AgentService,
  type CreateSnapshotRequest,
  type RestoreResult,
  type RestoreSnapshotRequest,
  type Snapshot,
  type ValidateDirectoryRequest,
  VerifyLevel_Value,
  VerifyResultSchema,
  type VerifyStoreRequest,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { realPathOf } from '../../host/real-path.ts';
import type { CaptureRequest } from '../capture/capture.ts';
import { GRAPH_DEFAULTS } from '../config/settings.ts';
import { exportDocument } from '../diff/document-export.ts';
import { diffSnapshots } from '../diff/snapshot-diff.ts';
import { validateDirectory } from '../grade/validate.ts';
import { verifyGraphs } from '../grade/verify-graphs.ts';
import { type GuardedDirectory, guardsOf } from '../graph/guarded-directory.ts';
import { type SnapshotTaker, takeSnapshot } from '../graph/take-snapshot.ts';
import { parseInstanceUrl } from '../instance/url.ts';
import type { TargetList } from '../peer/target-list.ts';
import { acknowledgeSnapshot, pinSnapshot, tagSnapshot } from '../snapshots/annotate.ts';
import { recordDamage, streamNoticingDamage } from '../snapshots/damage.ts';
import { dumpFile } from '../snapshots/dump-file.ts';
import { acceptFork, dropFork, listForks } from '../snapshots/forks.ts';
import { getSnapshot, listSnapshots, storeStats } from '../snapshots/queries.ts';
import { resolveSnapshot } from '../snapshots/resolve.ts';
import { deleteSnapshot, pruneSnapshots } from '../snapshots/retention.ts';
import { summaryView } from '../snapshots/views.ts';
import { reconcile } from '../store/index/reconcile.ts';
import { recordVerdict } from '../store/upkeep/record-verdict.ts';
import { storedSnapshots, verifyStore } from '../store/upkeep/verify.ts';
import { workspacesIn } from '../watch/workspaces.ts';
import { acceptFindings, gradeSnapshots } from './grade.ts';
import { withProgress } from './progress.ts';
import { type RepairPeers, repair } from './repair.ts';
import { restoreSnapshot } from './restore.ts';
import { type FollowingState, getStatus, replicate } from './status.ts';
import { addTarget, checkTargets, listTargets, removeTarget } from './targets.ts';
import { versionInfo } from './version.ts';

/** Milliseconds that a snapshot waits for its directory to settle. */
const SETTLE_TIMEOUT_MS = 30_000;

/** Most bytes of the description of a snapshot. */
const DESCRIPTION_BYTES_MAX = 1 << 20;

/** The parts of an agent that the handlers use. */
export interface ServiceParts {
  readonly taker: SnapshotTaker;
  /** Returns the directories that this process guards. */
  readonly guarded?: () => readonly GuardedDirectory[];
  /** Receives the duration of every restore in milliseconds. */
  readonly onRestored?: (durationMs: number) => void;
  /** The agents that follow graphs here, and the graphs that are followed; undefined where no agent runs. */
  readonly following?: FollowingState;
  readonly targets: TargetList;
  /** The peers that a repair can ask; undefined where no agent runs. */
  readonly peers?: RepairPeers;
}

/** Returns the handlers of AgentService for an open store. */
export function agentService(parts: ServiceParts): ServiceImpl<typeof AgentService> {
  const { store } = parts.taker;
  const targetParts = { store, targets: parts.targets, followers: parts.following?.followers };
  return {
    createSnapshot: (request, { signal }) =>
      withProgress((onProgress) => createSnapshot(parts, request, { onProgress, signal })),
    listSnapshots: (request) => listSnapshots(store, request),
    getSnapshot: (request) => getSnapshot(store, request),
    restoreSnapshot: (request, { signal }) =>
      withProgress((onProgress) => restore(parts, request, { onProgress, signal })),
    verifyStore: (request, { signal }) =>
      withProgress((onProgress) => verify(parts, request, { onProgress, signal })),
    validateDirectory: ({ dir, instanceStopped }: ValidateDirectoryRequest, { signal }) =>
      validateDirectory(dir, { instanceStopped, signal }),
    pruneSnapshots: (request) => withProgress((onProgress) => pruneSnapshots(store, request, onProgress)),
    repairStore: (request, { signal }) =>
      withProgress((onProgress) => repair(request, { store, peers: parts.peers, onProgress, signal })),
    deleteSnapshot: (request) => deleteSnapshot(store, request),
    pinSnapshot: async (request) => summaryView(await pinSnapshot(store, request)),
    tagSnapshot: async (request) => summaryView(await tagSnapshot(store, request)),
    acknowledgeSnapshot: async (request) => summaryView(await acknowledgeSnapshot(store, request)),
    acceptFindings: (request) => acceptFindings(parts.taker, request, lossShareOf(parts, request.graphId)),
    gradeSnapshots: (request, { signal }) =>
      withProgress((onProgress) =>
        gradeSnapshots(parts.taker, request, {
          lossShare: lossShareOf(parts, request.graphId),
          onProgress,
          signal,
        }),
      ),
    listForks: ({ graphId }) => listForks(store, graphId),
    acceptFork: (request) => acceptFork(store, request),
    dropFork: (request) => dropFork(store, request),
    diffSnapshots: async ({ fromSnapshotId, toSnapshotId, graphId }, { signal }) => {
      const from = await resolveSnapshot(store, fromSnapshotId, graphId);
      const to = await resolveSnapshot(store, toSnapshotId, graphId);
      return await diffSnapshots(store, { from, to, signal });
    },
    exportDocument: async function* ({ snapshotId, graphId, documentId }, { signal }) {
      const snapshot = await resolveSnapshot(store, snapshotId, graphId);
      yield* streamNoticingDamage(store, snapshot, () =>
        exportDocument(store, { snapshot, documentId, signal }),
      );
    },
    dumpFile: async function* ({ snapshotId, graphId, path }) {
      const snapshot = await resolveSnapshot(store, snapshotId, graphId);
      const file = () => dumpFile(store, snapshot, pathFromBytes(path));
      for await (const data of streamNoticingDamage(store, snapshot, file)) yield { data };
    },
    getStats: ({ graphId }) => storeStats(store, graphId),
    getStatus: () => getStatus(parts),
    replicateGraph: (request, { signal }) => replicate(parts, request, signal),
    addTarget: (request) => addTarget(targetParts, request),
    listTargets: () => listTargets(targetParts),
    removeTarget: ({ name }) => removeTarget(targetParts, name),
    checkTargets: (request) => checkTargets(targetParts, request),
    getVersion: () => versionInfo(),
  };
}

/** The context of a long call beside its request. */
interface LongCall {
  readonly onProgress: OnProgress;
  readonly signal: AbortSignal;
}

async function createSnapshot(
  { taker, guarded }: ServiceParts,
  request: CreateSnapshotRequest,
  call: LongCall,
): Promise<Snapshot> {
  if (Buffer.byteLength(request.description) > DESCRIPTION_BYTES_MAX) {
    throw new LightkeeperError('INVALID_ARGUMENT', 'Cannot take a snapshot: its description is too long', {
      hint: `use at most ${DESCRIPTION_BYTES_MAX} bytes`,
    });
  }
  const dir = Buffer.from(request.dir);
  const [guard] = guardsOf(guarded?.() ?? [], dir);
  const { quietMs, settleTimeoutMs, exclude, tags, description, diskReserveBytes, split } = request;
  const ofGuard = guard?.settings ?? GRAPH_DEFAULTS;
  const { snapshot } = await takeSnapshot(taker, {
    ...requestedGraph(request, guard),
    takeOver: request.takeOver || guard?.settings.takeOver === true,
    dir,
    ...instanceOf(request, guard),
    hooks: ofGuard.hooks,
    workspaces: guard?.workspaces ?? (split ? () => new Set(workspacesIn(dir)) : undefined),
    quietMs: quietMs === undefined ? ofGuard.quietMs : Number(quietMs),
    settleTimeoutMs: settleTimeoutMs === 0n ? SETTLE_TIMEOUT_MS : Number(settleTimeoutMs),
    exclude: [...new Set([...exclude, ...ofGuard.exclude])],
    tags,
    description,
    reserveBytes: diskReserveBytes ?? guard?.common.reserveBytes,
    lossShare: request.noGrade ? undefined : ofGuard.lossShare,
    ...call,
  });
  return snapshot;
}

/** Returns what the request or else the guard of a directory says of its instance. */
function instanceOf(
  { instanceState, instanceApiKey: apiKey }: CreateSnapshotRequest,
  guard: GuardedDirectory | undefined,
): Pick<CaptureRequest, 'instance' | 'watch' | 'instanceStopped'> {
  const guarded = { instance: guard?.settings.instance, watch: guard?.watch };
  switch (instanceState.case) {
    case 'instanceUrl':
      parseInstanceUrl(instanceState.value);
      return { instance: { url: instanceState.value, apiKey, allowPartial: false } };
    case 'instanceStopped':
      return { ...guarded, instanceStopped: instanceState.value };
    default:
      return guarded;
  }
}

/** Returns the graph that a request names, else that of the guard, else the default one of the directory. */
function requestedGraph(
  { graphId, derivedGraphId, dir }: CreateSnapshotRequest,
  guard: GuardedDirectory | undefined,
): { graphId: string; isIdGiven: boolean } {
  const isIdGiven = graphId !== '' && !derivedGraphId;
  if (!isIdGiven && guard !== undefined)
    return { graphId: guard.settings.graphId, isIdGiven: guard.settings.isIdGiven };
  if (graphId === '') return { graphId: defaultGraphId(realPathOf(dir)), isIdGiven };
  checkGraphId(graphId);
  return { graphId, isIdGiven };
}

async function restore(
  { taker, guarded, onRestored }: ServiceParts,
  request: RestoreSnapshotRequest,
  call: LongCall,
): Promise<RestoreResult> {
  const result = await restoreSnapshot(taker.store, request, { guarded: guarded?.() ?? [], ...call });
  if (!request.dryRun) onRestored?.(Number(result.durationMs));
  return result;
}

async function verify(
  { taker: { store } }: ServiceParts,
  { snapshotId, graphId, level: asked }: VerifyStoreRequest,
  { onProgress, signal }: LongCall,
) {
  const level = asked === VerifyLevel_Value.UNSPECIFIED ? VerifyLevel_Value.STRUCTURE : asked;
  const only = snapshotId === '' ? undefined : [await resolveSnapshot(store, snapshotId, graphId)];
  // The index is a cache and may have lost entries; the packs are authoritative.
  if (!store.readOnly) await store.exclusively(() => reconcile(store, { all: true, tables: true }));
  const result = await verifyStore(store, {
    bytes: level !== VerifyLevel_Value.STRUCTURE,
    onProgress,
    signal,
    ...(only === undefined ? {} : { only }),
  });
  await recordVerdict(store, result);
  await recordDamage(store, {
    findings: result.findings,
    only,
    bytes: level !== VerifyLevel_Value.STRUCTURE,
  });
  if (level === VerifyLevel_Value.GRAPH)
    result.findings.push(...(await verifyGraphs(store, storedSnapshots(store, only), signal)));
  return create(VerifyResultSchema, {
    level,
    checkedSnapshots: result.snapshots,
    checkedPacks: result.packs,
    checkedBytes: BigInt(result.bytes),
    findings: result.findings,
  });
}

/** Returns the share of a graph that may be lost without an alarm. */
function lossShareOf({ guarded }: ServiceParts, graphId: string): number {
  const guard = guarded?.().find(({ settings }) => settings.graphId === graphId);
  return guard?.settings.lossShare ?? GRAPH_DEFAULTS.lossShare;
}
