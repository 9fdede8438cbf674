import { fromBinary } from '@bufbuild/protobuf';
import { timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt';
import { type Annotation, AnnotationSchema } from '../gen/lightkeeper/store/v1/annotation_pb.ts';
import {
  type FileEntry,
  FileListSchema,
  type ListRoot,
  type Manifest,
  ManifestSchema,
  type PositionEntry,
  PositionEntrySchema,
} from '../gen/lightkeeper/store/v1/manifest_pb.ts';
import { FileType_Value } from '../gen/lightkeeper/v1/types_pb.ts';
import { PIECE_ENTRIES_MAX } from './boundaries.ts';
import { LightkeeperError } from './errors.ts';
import { isGraphId } from './graph-id.ts';
import { LIST_DEPTH_MAX, NODE_REF_BYTES } from './list.ts';
import { type BytePath, checkPath, pathFromBytes } from './path.ts';
import { MINT_ID_BYTES } from './position.ts';
import { checkCount, KNOWN_FIELDS } from './proto-limits.ts';
import { hex } from './unit.ts';

/** Format of the manifests that this version writes, and the only one that it reads. */
export const MANIFEST_FORMAT = 2;
/** Hex digits of a snapshot id. */
export const SNAPSHOT_ID_DIGITS = 32;
/** Most findings in a manifest; the rest are counted. */
export const MANIFEST_FINDINGS_MAX = 1000;

/** Seconds since 1970 at the end of the year 9999, the last time with a four-digit year. */
const YEAR_9999_SECONDS = 253_402_300_799n;
const DIGEST_BYTES = 32;
const STORE_ID_BYTES = 16;

/** Returns the snapshot id for the digest of a manifest. */
export function snapshotIdOf(digest: Uint8Array): string {
  return hex(digest).slice(0, SNAPSHOT_ID_DIGITS);
}

function checkRoot(root: ListRoot | undefined, what: string): void {
  if (root === undefined || root.depth > LIST_DEPTH_MAX || root.entries.length % NODE_REF_BYTES !== 0) {
    throw new LightkeeperError('DAMAGED', `Cannot read a manifest: ${what} is not a list`);
  }
}

/** Parses and checks a stored manifest. Throws DAMAGED, or TOO_NEW for a format of a newer version. */
export function parseManifest(bytes: Uint8Array): Manifest {
  let manifest: Manifest;
  try {
    checkCount(bytes, ManifestSchema.field.findings.number, MANIFEST_FINDINGS_MAX);
    manifest = fromBinary(ManifestSchema, bytes, KNOWN_FIELDS);
  } catch (error) {
    throw new LightkeeperError('DAMAGED', 'Cannot read a manifest: it does not parse', { cause: error });
  }
  if (manifest.format > MANIFEST_FORMAT) {
    throw new LightkeeperError('TOO_NEW', `Cannot read a manifest: it has format ${manifest.format}`, {
      hint: 'use the version of Lightkeeper that wrote it, or a newer one',
    });
  }
  if (manifest.format > 0 && manifest.format < MANIFEST_FORMAT) {
    throw new LightkeeperError('TOO_OLD', `Cannot read a manifest: it has format ${manifest.format}`, {
      hint: 'use the version of Lightkeeper that wrote it',
    });
  }
  if (manifest.format !== MANIFEST_FORMAT || !isGraphId(manifest.graphId)) {
    throw new LightkeeperError('DAMAGED', 'Cannot read a manifest: it names no graph');
  }
  const digestLengths = manifest.parentDigest.length === 0 || manifest.parentDigest.length === 32;
  if (
    !digestLengths ||
    manifest.epoch?.mintId.length !== MINT_ID_BYTES ||
    manifest.capturedAt === undefined
  ) {
    throw new LightkeeperError('DAMAGED', 'Cannot read a manifest: its position is incomplete');
  }
  const { seconds, nanos } = manifest.capturedAt;
  if (seconds < 0n || seconds > YEAR_9999_SECONDS || nanos < 0 || nanos >= 1e9) {
    throw new LightkeeperError('DAMAGED', 'Cannot read a manifest: its time is out of range');
  }
  checkRoot(manifest.files, 'its list of files');
  return manifest;
}

/** Parses and checks a stored annotation. Throws DAMAGED. */
export function parseAnnotation(bytes: Uint8Array): Annotation {
  let annotation: Annotation;
  try {
    annotation = fromBinary(AnnotationSchema, bytes, KNOWN_FIELDS);
  } catch (error) {
    throw new LightkeeperError('DAMAGED', 'Cannot read an annotation: it does not parse', { cause: error });
  }
  if (annotation.digest.length !== DIGEST_BYTES || annotation.storeId.length !== STORE_ID_BYTES) {
    throw new LightkeeperError('DAMAGED', 'Cannot read an annotation: it belongs to no snapshot');
  }
  return annotation;
}

/** Parses and checks a stored position. Throws DAMAGED. */
export function parsePosition(bytes: Uint8Array): PositionEntry {
  let entry: PositionEntry;
  try {
    entry = fromBinary(PositionEntrySchema, bytes, KNOWN_FIELDS);
  } catch (error) {
    throw new LightkeeperError('DAMAGED', 'Cannot read a position: it does not parse', { cause: error });
  }
  const { graphId, epoch, digest, parentDigest } = entry;
  const digests = digest.length === DIGEST_BYTES && [0, DIGEST_BYTES].includes(parentDigest.length);
  if (!isGraphId(graphId) || epoch?.mintId.length !== MINT_ID_BYTES || !digests) {
    throw new LightkeeperError('DAMAGED', 'Cannot read a position: it is incomplete');
  }
  return entry;
}

/** Parses a piece of the list of files. Throws DAMAGED unless its paths are safe and in order after `previous`. */
export function parseFileList(bytes: Uint8Array, previous: BytePath): FileEntry[] {
  let files: FileEntry[];
  try {
    checkCount(bytes, FileListSchema.field.files.number, PIECE_ENTRIES_MAX);
    files = fromBinary(FileListSchema, bytes, KNOWN_FIELDS).files;
  } catch (error) {
    throw new LightkeeperError('DAMAGED', 'Cannot read a list of files: it does not parse', { cause: error });
  }
  let last = previous;
  for (const file of files) {
    const path = pathFromBytes(file.path);
    checkPath(path);
    if (path <= last)
      throw new LightkeeperError('DAMAGED', 'Cannot read a list of files: it is out of order');
    if (FileType_Value[file.type] === undefined || file.type === FileType_Value.UNSPECIFIED)
      throw new LightkeeperError(
        'DAMAGED',
        `Cannot read a list of files: there is no file type ${file.type}`,
      );
    if (file.type === FileType_Value.REGULAR) checkRoot(file.content, 'a file');
    if (file.type === FileType_Value.HARD_LINK) checkPath(pathFromBytes(file.target));
    last = path;
  }
  return files;
}

/** Returns the time of a snapshot's capture in milliseconds since 1970; 0 if it is not recorded. */
export function capturedMs(manifest: Manifest): number {
  return manifest.capturedAt === undefined ? 0 : timestampMs(manifest.capturedAt);
}

/** Returns the capture time of a new snapshot, later than its parent's. */
// A history never goes back, whatever the clock does.
export function captureTime(nowMs: number, parentMs: number | undefined): ReturnType<typeof timestampFromMs> {
  return timestampFromMs(parentMs === undefined ? nowMs : Math.max(nowMs, parentMs + 1));
}
