import { create } from '@bufbuild/protobuf';
import { LightkeeperError } from '../../core/errors.ts';
import { bytesText } from '../../core/path.ts';
import type { OnProgress } from '../../core/progress.ts';
import { gradeOf, idOf, type StoredSnapshot } from '../../core/snapshot.ts';
import {
  type RestoreResult,
  RestoreResultSchema,
  type RestoreSnapshotRequest,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { Grade_Value, type Instance } from '../../gen/lightkeeper/v1/types_pb.ts';
import { monotonic } from '../../host/clock.ts';
import { type GuardedDirectory, guardsOf } from '../graph/guarded-directory.ts';
import { InstanceProbe, type InstanceSettings } from '../instance/probe.ts';
import { type InPlaceRestored, restoreInPlace } from '../restore/in-place.ts';
import { nextSteps, serverFindings } from '../restore/next-steps.ts';
import { restoreToDirectory } from '../restore/to-directory.ts';
import { noticingDamage } from '../snapshots/damage.ts';
import { passedOver, resolveSnapshot } from '../snapshots/resolve.ts';
import { checkRestoreTarget, isFromDirectory } from '../snapshots/source-directory.ts';
import { writtenBy } from '../snapshots/views.ts';
import type { Store } from '../store/store.ts';

/** The context of a restore beside its request. */
export interface RestoreContext {
  readonly guarded: readonly GuardedDirectory[];
  readonly onProgress: OnProgress;
  readonly signal?: AbortSignal;
}

/** Restores a snapshot to a directory or in place. INVALID_ARGUMENT if the request is contradictory. */
export async function restoreSnapshot(
  store: Store,
  request: RestoreSnapshotRequest,
  context: RestoreContext,
): Promise<RestoreResult> {
  const began = monotonic();
  checkRequest(request);
  const snapshot = await resolveSnapshot(store, request.snapshotId, request.graphId);
  if (gradeOf(snapshot) === Grade_Value.TORN && !request.allowTorn) {
    throw new LightkeeperError('REFUSED', `Cannot restore snapshot "${idOf(snapshot)}": it is torn`, {
      hint: 'restore "latest", or add --allow-torn to get the files as they were read',
    });
  }
  if (request.target.case === 'inPlace') checkRestoreTarget(snapshot, request.target.value, request.graphId);
  const newer = request.snapshotId === 'latest-valid' ? await passedOver(store, snapshot) : [];
  const { inPlace, ...written } = await noticingDamage(store, snapshot, () =>
    run(store, snapshot, request, context),
  );
  const result = create(RestoreResultSchema, {
    snapshotId: idOf(snapshot),
    to: bytesText(request.target.value ?? new Uint8Array()),
    files: written.files,
    bytes: BigInt(written.bytes),
    durationMs: BigInt(Math.round(monotonic() - began)),
    verified: !request.dryRun,
    dryRun: request.dryRun,
    findings: [
      ...written.findings,
      ...newer,
      ...serverFindings(snapshot, await lastServer(store, snapshot, context)),
    ],
    graphId: snapshot.manifest.graphId,
    ...writtenBy(snapshot),
    nextSteps: stepsAfter(snapshot, request, context),
  });
  if (inPlace !== undefined) result.inPlace = inPlace;
  return result;
}

/** Returns the steps that remain; none after a dry run or a restore of a part. */
function stepsAfter(
  snapshot: StoredSnapshot,
  { target, evidence, dryRun, paths }: RestoreSnapshotRequest,
  { guarded }: RestoreContext,
): string[] {
  if (dryRun || paths.length > 0 || target.case === undefined) return [];
  const isInPlace = target.case === 'inPlace';
  const [instance] = instancesOf(guarded, target.value);
  const url = evidence.case === 'instanceUrl' ? evidence.value : (instance?.url ?? '');
  const dir = target.value;
  return nextSteps({ snapshot, dir, isInPlace, isFromHere: isFromDirectory(snapshot, dir), url });
}

/** Returns the instances of a directory, as agents query them. */
function instancesOf(guarded: readonly GuardedDirectory[], dir: Uint8Array): InstanceSettings[] {
  return guardsOf(guarded, dir).flatMap(({ settings: { instance } }) =>
    instance === undefined ? [] : [instance],
  );
}

/** Most snapshots that are searched for what is known of the server. */
const SEARCHED_MAX = 500;

/** Returns what is known of the graph's server: its own reply to an agent, or what the newest snapshot recorded. */
async function lastServer(
  store: Store,
  { manifest: { graphId } }: StoredSnapshot,
  { guarded, signal }: RestoreContext,
): Promise<Instance | undefined> {
  for (const { settings } of guarded) {
    if (settings.graphId !== graphId || settings.instance === undefined) continue;
    const report = await new InstanceProbe(settings.instance, settings.dir).report({ signal });
    if (report.kind === 'own' && report.instance.coreVersion !== '') return report.instance;
  }
  let searched = 0;
  for await (const [, state] of store.index.records({ graphId })) {
    const instance = state.manifest?.source?.instance;
    if (instance !== undefined && instance.coreVersion !== '') return instance;
    searched += 1;
    if (searched >= SEARCHED_MAX) return undefined;
  }
  return undefined;
}

async function run(
  store: Store,
  snapshot: StoredSnapshot,
  request: RestoreSnapshotRequest,
  { guarded, onProgress, signal }: RestoreContext,
): Promise<InPlaceRestored> {
  const { dryRun, target, evidence, paths } = request;
  const guards = target.case === undefined ? [] : guardsOf(guarded, target.value);
  const reserveBytes = request.diskReserveBytes ?? guards[0]?.common.reserveBytes;
  const base = { snapshot, dryRun, reserveBytes, onProgress, ...(signal === undefined ? {} : { signal }) };
  if (target.case !== 'inPlace') {
    const to = target.value ?? new Uint8Array();
    return { ...(await restoreToDirectory(store, { ...base, to, paths })), inPlace: undefined };
  }
  const dir = target.value;
  const exclude = [...request.exclude, ...guards.flatMap(({ settings }) => settings.exclude)];
  const otherFlags = [
    ...(request.graphId === '' ? [] : [`--graph ${request.graphId}`]),
    ...(request.allowTorn ? ['--allow-torn'] : []),
  ];
  const order = { ...base, dir, evidence, exclude, instances: instancesOf(guarded, dir), otherFlags };
  const replace = () => restoreInPlace(store, order);
  // A capture meanwhile would read a directory between two states.
  return store.readOnly || dryRun ? await replace() : await store.exclusively(replace);
}

function checkRequest({ target, evidence, paths, exclude }: RestoreSnapshotRequest): void {
  const wrong = (what: string, hint: string) =>
    new LightkeeperError('INVALID_ARGUMENT', `Cannot restore ${what}`, { hint });
  if (target.case === undefined || target.value.length === 0)
    throw wrong('without a target', 'give either --to or --in-place');
  if (target.case === 'to') {
    if (evidence.case !== undefined || exclude.length > 0)
      throw wrong('to a directory with options for --in-place', 'leave that flag out');
    return;
  }
  if (paths.length > 0) throw wrong('a part in place', 'leave --path out, or restore with --to');
}
