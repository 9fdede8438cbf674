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
import { Grade_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { monotonic } from '../../host/clock.ts';
import { type GuardedDirectory, guardsOf } from '../graph/guarded-directory.ts';
import { type InPlaceRestored, restoreInPlace } from '../restore/in-place.ts';
import { restoreToDirectory } from '../restore/to-directory.ts';
import { resolveSnapshot } from '../snapshots/resolve.ts';
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
  const { inPlace, ...written } = await run(store, snapshot, request, context);
  const result = create(RestoreResultSchema, {
    snapshotId: idOf(snapshot),
    to: bytesText(request.target.value ?? new Uint8Array()),
    files: written.files,
    bytes: BigInt(written.bytes),
    durationMs: BigInt(Math.round(monotonic() - began)),
    verified: !request.dryRun,
    dryRun: request.dryRun,
    findings: [...written.findings],
  });
  if (inPlace !== undefined) result.inPlace = inPlace;
  return result;
}

async function run(
  store: Store,
  snapshot: StoredSnapshot,
  request: RestoreSnapshotRequest,
  { guarded, onProgress, signal }: RestoreContext,
): Promise<InPlaceRestored> {
  const { dryRun, diskReserveBytes: reserveBytes, target, evidence, paths } = request;
  const base = { snapshot, dryRun, reserveBytes, onProgress, ...(signal === undefined ? {} : { signal }) };
  if (target.case !== 'inPlace') {
    const to = target.value ?? new Uint8Array();
    return { ...(await restoreToDirectory(store, { ...base, to, paths })), inPlace: undefined };
  }
  const dir = target.value;
  const own = guardsOf(guarded, dir).flatMap(({ settings }) => settings.exclude);
  const exclude = [...request.exclude, ...own];
  const replace = () => restoreInPlace(store, { ...base, dir, evidence, exclude });
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
