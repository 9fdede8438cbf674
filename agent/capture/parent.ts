import { toBinary } from '@bufbuild/protobuf';
import { spanOf } from '../../core/list.ts';
import { pathFromBytes } from '../../core/path.ts';
import { sameBytes, sha256 } from '../../core/unit.ts';
import {
  type FileEntry,
  FileType_Value,
  type Manifest,
  ManifestSchema,
  type SnapshotRecord,
  UnitKind_Value,
} from '../../gen/lightkeeper/v1/types_pb.ts';
import { now } from '../../host/clock.ts';
import type { Store } from '../store/store.ts';
import { type Entry, keptTime } from '../watch/scan.ts';

/** Change times in one value of the index. */
const TIMES_A_VALUE = 4096;
const DIGEST_BYTES = 32;

/** How a name compares with the newest snapshot. */
export interface Match {
  readonly file: FileEntry;
  /** Its bytes are the same: size, modification and change time are. */
  readonly sameContent: boolean;
  /** Nothing about it has changed. */
  readonly same: boolean;
}

/** The newest snapshot of a graph, to compare a scan with. */
export interface PreviousState {
  readonly record: SnapshotRecord;
  /** Names in it. */
  readonly count: number;
  /** Answers for entries in order of their paths what the snapshot has of them. */
  matcher(): Promise<(entry: Entry) => Promise<Match | undefined>>;
}

/** The newest snapshot of a graph that is not a side snapshot and not deleted. */
export async function newestRecord(store: Store, graphId: string): Promise<SnapshotRecord | undefined> {
  for await (const [, record] of store.index.records({ graphId })) {
    if (!record.deleted && record.manifest !== undefined) return record;
  }
  return undefined;
}

/** The manifest of a snapshot, to be stored again, if its pack is gone or damaged: the index still has it. */
export function lostManifest(
  store: Store,
  { manifest, manifestUnitId, digest }: SnapshotRecord,
): { kind: UnitKind_Value; units: Uint8Array[] }[] {
  if (manifest === undefined || store.locate(manifestUnitId) !== undefined) return [];
  const bytes = toBinary(ManifestSchema, manifest);
  // Written by another version it may have been other bytes: those cannot be made again.
  return sha256(bytes).equals(digest) ? [{ kind: UnitKind_Value.MANIFEST, units: [bytes] }] : [];
}

/** Loads what a capture of `dir` compares with; undefined for a graph without a snapshot. */
export async function loadPrevious(
  store: Store,
  graphId: string,
  dir: Uint8Array,
): Promise<PreviousState | undefined> {
  const record = await newestRecord(store, graphId);
  const files = record?.manifest?.files;
  if (record === undefined || files === undefined) return undefined;
  return { record, count: spanOf(files), matcher: () => matcher(store, graphId, record, dir) };
}

async function matcher(
  store: Store,
  graphId: string,
  record: SnapshotRecord,
  dir: Uint8Array,
): Promise<(entry: Entry) => Promise<Match | undefined>> {
  const files = store.files(record.manifest?.files)[Symbol.asyncIterator]();
  const times = new ChangeTimes(store, graphId, record.digest);
  // Equal times mean nothing between the files of two directories.
  const sameDir = sameBytes(record.manifest?.source?.dir ?? new Uint8Array(), dir);
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

function compare(entry: Entry, file: FileEntry, ctimeNs: bigint | undefined): Match {
  const metadata =
    entry.mode === file.mode &&
    entry.uid === file.uid &&
    entry.gid === file.gid &&
    keptTime(entry.mtimeNs) === file.mtimeNs;
  if (entry.type !== 'file') {
    const type = entry.type === 'dir' ? FileType_Value.DIRECTORY : FileType_Value.SYMLINK;
    const target = entry.target === pathFromBytes(file.target);
    return { file, sameContent: false, same: metadata && type === file.type && target };
  }
  if (file.type === FileType_Value.HARD_LINK) {
    return { file, sameContent: false, same: metadata && entry.links !== '' && entry.ctimeNs === ctimeNs };
  }
  const sameContent =
    file.type === FileType_Value.REGULAR &&
    BigInt(entry.size) === file.size &&
    keptTime(entry.mtimeNs) === file.mtimeNs &&
    entry.ctimeNs === ctimeNs;
  return { file, sameContent, same: sameContent && metadata };
}

/**
 * When the directory of a graph's newest snapshot last changed, in milliseconds since 1970; now, if that is not known.
 * Times that a copy keeps are not believed: only the kernel sets these.
 */
export async function newestChangeMs(
  store: Store,
  { manifest, digest }: { readonly manifest: Manifest; readonly digest: Uint8Array },
): Promise<number> {
  let newestNs: bigint | undefined;
  for (let n = 0; ; n++) {
    const times = await store.index.changeTimes(manifest.graphId, n);
    if (times?.subarray(0, DIGEST_BYTES).equals(digest) !== true) break;
    for (let at = DIGEST_BYTES; at + 8 <= times.length; at += 8) {
      const time = times.readBigInt64LE(at);
      if (newestNs === undefined || time > newestNs) newestNs = time;
    }
  }
  return newestNs === undefined ? now() : Number(newestNs / 1_000_000n);
}

/** The change times of a snapshot's files, which only this machine knows. */
class ChangeTimes {
  readonly #store: Store;
  readonly #graphId: string;
  readonly #digest: Uint8Array;
  #n = -1;
  #times: Buffer | undefined;

  constructor(store: Store, graphId: string, digest: Uint8Array) {
    this.#store = store;
    this.#graphId = graphId;
    this.#digest = digest;
  }

  async at(place: number): Promise<bigint | undefined> {
    const n = Math.floor(place / TIMES_A_VALUE);
    if (n !== this.#n) {
      this.#n = n;
      const value = await this.#store.index.changeTimes(this.#graphId, n);
      const ours = value?.subarray(0, DIGEST_BYTES).equals(this.#digest) === true;
      this.#times = ours ? value?.subarray(DIGEST_BYTES) : undefined;
    }
    const at = (place % TIMES_A_VALUE) * 8;
    return this.#times === undefined || at + 8 > this.#times.length
      ? undefined
      : this.#times.readBigInt64LE(at);
  }
}

/**
 * Change times as the index keeps them: `TIMES_A_VALUE` to a value, behind the digest of the snapshot whose
 * files they are of.
 */
export function* packChangeTimes(
  entries: readonly Entry[],
  digest: Uint8Array,
): Generator<[n: number, value: Buffer]> {
  for (let from = 0; from < entries.length; from += TIMES_A_VALUE) {
    const part = entries.slice(from, from + TIMES_A_VALUE);
    const value = Buffer.alloc(DIGEST_BYTES + part.length * 8);
    value.set(digest);
    for (const [i, { ctimeNs }] of part.entries())
      value.writeBigInt64LE(keptTime(ctimeNs), DIGEST_BYTES + i * 8);
    yield [from / TIMES_A_VALUE, value];
  }
}
