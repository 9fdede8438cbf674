import { toBinary } from '@bufbuild/protobuf';
import { spanOf } from '../../core/list.ts';
import { pathFromBytes } from '../../core/path.ts';
import type { StoredSnapshot } from '../../core/snapshot.ts';
import { sha256 } from '../../core/unit.ts';
import { type FileEntry, ManifestSchema } from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import { FileType_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { isRestoredTime } from '../restore/tree-writer.ts';
import { newestSnapshot } from '../snapshots/resolve.ts';
import { isFromDirectory } from '../snapshots/source-directory.ts';
import { ChangeTimes } from '../store/index/change-times.ts';
import type { Store } from '../store/store.ts';
import { storableTime } from '../watch/names.ts';
import type { Entry } from '../watch/scan.ts';

/** Result of comparing a scanned name with the newest snapshot. */
export interface EntryMatch {
  readonly stored: FileEntry;
  /** Whether its bytes are the same, by size, modification time and change time. */
  readonly sameContent: boolean;
  /** Whether nothing about it has changed. */
  readonly unchanged: boolean;
}

/** The newest snapshot of a graph, which a capture compares its scan with. */
export interface ParentSnapshot {
  readonly snapshot: StoredSnapshot;
  /** Number of its files, directories and links. */
  readonly count: number;
  /** Returns a function that compares entries with the snapshot. It takes them in order of their paths. */
  matcher(): Promise<(entry: Entry) => Promise<EntryMatch | undefined>>;
}

/** Returns the manifest of a snapshot as a unit to store again, if its pack is missing or damaged. */
export function missingManifest(
  store: Store,
  { manifest, manifestUnitId, digest }: StoredSnapshot,
): { kind: UnitKind_Value; units: Uint8Array[] }[] {
  if (store.locate(manifestUnitId) !== undefined) return [];
  const bytes = toBinary(ManifestSchema, manifest);
  // Another version may have encoded it to other bytes, which cannot be reproduced.
  return sha256(bytes).equals(digest) ? [{ kind: UnitKind_Value.MANIFEST, units: [bytes] }] : [];
}

/** Loads the newest snapshot of a graph for a capture of `dir`; undefined if there is none. */
export async function loadParent(
  store: Store,
  graphId: string,
  dir: Uint8Array,
): Promise<ParentSnapshot | undefined> {
  const snapshot = await newestSnapshot(store, graphId);
  const files = snapshot?.manifest.files;
  if (snapshot === undefined || files === undefined) return undefined;
  return { snapshot, count: spanOf(files), matcher: () => matcher(store, snapshot, dir) };
}

async function matcher(
  store: Store,
  snapshot: StoredSnapshot,
  dir: Uint8Array,
): Promise<(entry: Entry) => Promise<EntryMatch | undefined>> {
  const { manifest, digest } = snapshot;
  const files = store.files(manifest.files)[Symbol.asyncIterator]();
  const times = new ChangeTimes(store, manifest.graphId, digest);
  // Times of files in different directories cannot be compared.
  const sameDir = isFromDirectory(snapshot, dir);
  let next = await files.next();
  let place = 0;
  return async (entry) => {
    while (next.done !== true && pathFromBytes(next.value.path) < entry.path) {
      next = await files.next();
      place += 1;
    }
    if (next.done === true || pathFromBytes(next.value.path) !== entry.path) return undefined;
    return compare(entry, next.value, sameDir ? await times.at(place) : undefined);
  };
}

// A restore cuts times, which alone is no change.
/** Reports whether a name has the modification time of a restored copy, which is not the stored one. */
export function hasRestoredTime({ mtimeNs }: Entry, stored: FileEntry): boolean {
  return mtimeNs !== stored.mtimeNs && isRestoredTime(mtimeNs, stored.mtimeNs);
}

function isSameTime(entry: Entry, stored: FileEntry): boolean {
  return storableTime(entry.mtimeNs) === stored.mtimeNs || hasRestoredTime(entry, stored);
}

function compare(entry: Entry, stored: FileEntry, ctimeNs: bigint | undefined): EntryMatch {
  const metadata =
    entry.mode === stored.mode &&
    entry.uid === stored.uid &&
    entry.gid === stored.gid &&
    isSameTime(entry, stored);
  if (entry.type !== 'file') {
    const type = entry.type === 'dir' ? FileType_Value.DIRECTORY : FileType_Value.SYMLINK;
    const target = entry.target === pathFromBytes(stored.target);
    return { stored, sameContent: false, unchanged: metadata && type === stored.type && target };
  }
  if (stored.type === FileType_Value.HARD_LINK) {
    return {
      stored,
      sameContent: false,
      unchanged: metadata && entry.links !== '' && entry.ctimeNs === ctimeNs,
    };
  }
  const sameContent =
    stored.type === FileType_Value.REGULAR &&
    BigInt(entry.size) === stored.size &&
    isSameTime(entry, stored) &&
    entry.ctimeNs === ctimeNs;
  return { stored, sameContent, unchanged: sameContent && metadata };
}
