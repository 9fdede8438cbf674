import { realpathSync } from 'node:fs';
import { create } from '@bufbuild/protobuf';
import { LightkeeperError, systemCode } from '../../core/errors.ts';
import { bytesText } from '../../core/path.ts';
import type { OnProgress } from '../../core/progress.ts';
import { type CommittedSnapshot, gradeOf, idOf } from '../../core/snapshot.ts';
import {
  type RestoreRequest,
  type RestoreResult,
  RestoreResultSchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { Grade_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { monotonic } from '../../host/clock.ts';
import type { Guarded } from '../config/settings.ts';
import { type InPlaceRestored, restoreInPlace } from '../restore/in-place.ts';
import { restore } from '../restore/to-directory.ts';
import { selectSnapshot } from '../snapshots/resolve.ts';
import type { Store } from '../store/store.ts';

/** What a restore is run with, beside what was asked. */
export interface RestoreAround {
  readonly guarded: readonly Guarded[];
  readonly onProgress: OnProgress;
  readonly signal?: AbortSignal;
}

/** Answers a call for a restore, to a directory or in place. */
export async function answerRestore(
  store: Store,
  request: RestoreRequest,
  around: RestoreAround,
): Promise<RestoreResult> {
  const began = monotonic();
  checkWay(request);
  const { record } = await selectSnapshot(store, request.snapshotId, request.graphId);
  if (gradeOf(record) === Grade_Value.TORN && !request.allowTorn) {
    throw new LightkeeperError('REFUSED', `Cannot restore snapshot "${idOf(record)}": it is torn`, {
      hint: 'restore "latest", or add --allow-torn to get the files as they were read',
    });
  }
  const { inPlace, ...written } = await run(store, record, request, around);
  const result = create(RestoreResultSchema, {
    snapshotId: idOf(record),
    to: bytesText(request.inPlace.length > 0 ? request.inPlace : request.to),
    files: written.files,
    bytes: BigInt(written.bytes),
    durationMs: Math.round(monotonic() - began),
    verified: !request.dryRun,
    dryRun: request.dryRun,
    findings: [...written.findings],
  });
  if (inPlace !== undefined) result.inPlace = inPlace;
  return result;
}

async function run(
  store: Store,
  record: CommittedSnapshot,
  request: RestoreRequest,
  { guarded, onProgress, signal }: RestoreAround,
): Promise<InPlaceRestored> {
  const { dryRun, diskReserveBytes: reserveBytes, inPlace: dir, instanceUrl, instanceStopped } = request;
  const asked = { record, dryRun, reserveBytes, onProgress, ...(signal === undefined ? {} : { signal }) };
  if (dir.length === 0) {
    const { to, paths } = request;
    return { ...(await restore(store, { ...asked, to, paths })), inPlace: undefined };
  }
  const own = guarded.filter((guard) => sameDirectory(guard.dir, dir));
  const exclude = [...request.exclude, ...own.flatMap((guard) => guard.exclude)];
  const replace = () => restoreInPlace(store, { ...asked, dir, instanceUrl, instanceStopped, exclude });
  // No capture of this store begins meanwhile: it would see a directory between two states.
  return store.readOnly || dryRun ? await replace() : await store.exclusively(replace);
}

function checkWay({ to, inPlace, paths, instanceUrl, instanceStopped, exclude }: RestoreRequest): void {
  const wrong = (what: string, hint: string) =>
    new LightkeeperError('INVALID_ARGUMENT', `Cannot restore ${what}`, { hint });
  if (to.length > 0 === inPlace.length > 0)
    throw wrong('both to a directory and in place, or to neither', 'give either --to or --in-place');
  if (inPlace.length === 0) {
    if (instanceUrl !== '' || instanceStopped || exclude.length > 0)
      throw wrong('to a directory with what is meant for --in-place', 'leave that flag out');
    return;
  }
  if (paths.length > 0) throw wrong('a part in place', 'leave --path out, or restore with --to');
  if (instanceUrl !== '' && instanceStopped)
    throw wrong('in place on two kinds of evidence', 'give either --instance-url or --instance-stopped');
}

function sameDirectory(a: string, b: Uint8Array): boolean {
  const real = (path: string | Buffer) => realpathSync(path, { encoding: 'buffer' });
  try {
    return real(a).equals(real(Buffer.from(b)));
  } catch (error) {
    if (systemCode(error) !== undefined) return false;
    throw error;
  }
}
