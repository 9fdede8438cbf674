import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt';
import {
  type Annotation,
  AnnotationSchema,
  GradedSchema,
  TaggedSchema,
} from '../gen/lightkeeper/store/v1/annotation_pb.ts';
import {
  type FileEntry,
  FileListSchema,
  type ListRoot,
  type Manifest,
  ManifestSchema,
  type PositionEntry,
  PositionEntrySchema,
} from '../gen/lightkeeper/store/v1/manifest_pb.ts';
import { FileType_Value, FindingSchema } from '../gen/lightkeeper/v1/types_pb.ts';
import { PIECE_ENTRIES_MAX } from './boundaries.ts';
import { LightkeeperError } from './errors.ts';
import { isGraphId } from './graph-id.ts';
import { LIST_DEPTH_MAX, NODE_REF_BYTES, spanOf } from './list.ts';
import { type BytePath, checkCapturedPath, pathFromBytes, pathText } from './path.ts';
import { MINT_ID_BYTES } from './position.ts';
import { checkCount, checkNestedCount, KNOWN_FIELDS } from './proto-limits.ts';
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

/** Most bytes of stored messages. */
const MANIFEST_BYTES_MAX = 16 << 20;
// A grade has up to 200 sightings with 1,000 hashes each, and 200 findings.
const ANNOTATION_BYTES_MAX = 4 << 20;
const POSITION_BYTES_MAX = 4 << 10;
const FILE_LIST_BYTES_MAX = 8 << 20;
/** Most names and ids in the findings of one message. */
const FINDING_NAMES_MAX = 100_000;
/** Most findings, alarms or sightings of a grade, and most tags. */
const GRADE_ITEMS_MAX = 1000;
const TAGS_MAX = 10_000;
/** Most bytes of the path of a captured directory. */
const SOURCE_BYTES_MAX = 64 << 10;
/** Most bytes of the target of a symlink. */
const TARGET_BYTES_MAX = 4096;
const MODE_MAX = 0o7777;
/** Counters, sequences and the numbers of epochs lie below this. */
export const COUNTER_END = 2n ** 63n;
/** Sizes and counts of entries are at most this. */
const NUMBER_MAX = BigInt(Number.MAX_SAFE_INTEGER);

/** Returns the snapshot id for the digest of a manifest. */
export function snapshotIdOf(digest: Uint8Array): string {
  return hex(digest).slice(0, SNAPSHOT_ID_DIGITS);
}

function damagedMessage(what: string, state: string, cause?: unknown): LightkeeperError {
  return new LightkeeperError('DAMAGED', `Cannot read ${what}: ${state}`, { cause });
}

/** Checks the bounds of a list and that its spans add up to `span`. */
function checkRoot(root: ListRoot | undefined, what: string, span: bigint | undefined): void {
  const isList =
    root !== undefined &&
    root.depth <= LIST_DEPTH_MAX &&
    root.entries.length % NODE_REF_BYTES === 0 &&
    root.entries.length <= PIECE_ENTRIES_MAX * NODE_REF_BYTES;
  if (!isList) throw damagedMessage('a manifest', `${what} is not a list`);
  const entries = BigInt(root.entries.length / NODE_REF_BYTES);
  const isCounted = root.depth === 0 ? root.count === entries : root.count >= entries;
  const sum = spanOf(root);
  if (!isCounted || root.count > NUMBER_MAX || sum > Number.MAX_SAFE_INTEGER)
    throw damagedMessage('a manifest', `${what} does not count its entries`);
  if (span !== undefined && BigInt(sum) !== span)
    throw damagedMessage('a manifest', `${what} does not add up to its size`);
}

function isStoreId({ length }: Uint8Array): boolean {
  return length === 0 || length === STORE_ID_BYTES;
}

/** Reports whether an epoch and a sequence are in bounds. */
function isPosition({ epoch, sequence }: Pick<PositionEntry, 'epoch' | 'sequence'>): boolean {
  return (
    epoch?.mintId.length === MINT_ID_BYTES &&
    epoch.number >= 1n &&
    epoch.number < COUNTER_END &&
    sequence < COUNTER_END
  );
}

/** Parses and checks a stored manifest. Throws DAMAGED, or TOO_NEW for a format of a newer version. */
export function parseManifest(bytes: Uint8Array): Manifest {
  const manifest = parseBounded('a manifest', bytes, MANIFEST_BYTES_MAX, () => {
    const { findings } = ManifestSchema.field;
    checkCount(bytes, findings.number, MANIFEST_FINDINGS_MAX);
    for (const { number } of [FindingSchema.field.keys, FindingSchema.field.snapshots])
      checkNestedCount(bytes, [findings.number, number], FINDING_NAMES_MAX);
    return fromBinary(ManifestSchema, bytes, KNOWN_FIELDS);
  });
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
  if (manifest.format !== MANIFEST_FORMAT || !isGraphId(manifest.graphId))
    throw damagedMessage('a manifest', 'it names no graph');
  const { parentDigest, capturedAt, storeId } = manifest;
  const hasParent = parentDigest.length === 0 || parentDigest.length === DIGEST_BYTES;
  if (!hasParent || !isPosition(manifest) || !isStoreId(storeId) || capturedAt === undefined)
    throw damagedMessage('a manifest', 'its position is incomplete');
  const { seconds, nanos } = capturedAt;
  if (seconds < 0n || seconds > YEAR_9999_SECONDS || nanos < 0 || nanos >= 1e9)
    throw damagedMessage('a manifest', 'its time is out of range');
  const { files, root, source, totals } = manifest;
  checkRoot(files, 'its list of files', files?.depth === 0 ? undefined : files?.count);
  if (root !== undefined && (root.path.length > 0 || root.mode > MODE_MAX))
    throw damagedMessage('a manifest', 'its directory has impossible properties');
  if ((source?.dir.length ?? 0) > SOURCE_BYTES_MAX || (source?.realDir.length ?? 0) > SOURCE_BYTES_MAX)
    throw damagedMessage('a manifest', 'the path of its directory is too long');
  if ((totals?.rawBytes ?? 0n) > NUMBER_MAX || (totals?.units ?? 0n) > NUMBER_MAX)
    throw damagedMessage('a manifest', 'its totals are out of range');
  return manifest;
}

/** Runs a parser of a stored message of at most `most` bytes. Throws DAMAGED if it fails. */
function parseBounded<T>(what: string, { length }: Uint8Array, most: number, parse: () => T): T {
  if (length > most) throw damagedMessage(what, `it has ${length} bytes`);
  try {
    return parse();
  } catch (error) {
    throw damagedMessage(what, 'it does not parse', error);
  }
}

/** Parses and checks a stored annotation. Throws DAMAGED. */
export function parseAnnotation(bytes: Uint8Array): Annotation {
  const annotation = parseBounded('an annotation', bytes, ANNOTATION_BYTES_MAX, () => {
    const { graded, tagged } = AnnotationSchema.field;
    const { findings, alarms, sightings } = GradedSchema.field;
    for (const { number } of [findings, alarms, sightings])
      checkNestedCount(bytes, [graded.number, number], GRADE_ITEMS_MAX);
    checkNestedCount(bytes, [tagged.number, TaggedSchema.field.tags.number], TAGS_MAX);
    return fromBinary(AnnotationSchema, bytes, KNOWN_FIELDS);
  });
  const { digest, storeId, counter } = annotation;
  if (digest.length !== DIGEST_BYTES || storeId.length !== STORE_ID_BYTES || counter >= COUNTER_END)
    throw damagedMessage('an annotation', 'it belongs to no snapshot');
  return annotation;
}

/** Encodes an annotation. INVALID_ARGUMENT if it is longer than `parseAnnotation` accepts. */
export function encodeAnnotation(annotation: Annotation): Uint8Array {
  const bytes = toBinary(AnnotationSchema, annotation);
  const { fact } = annotation;
  const tags = fact.case === 'tagged' ? Object.keys(fact.value.tags).length : 0;
  if (bytes.length <= ANNOTATION_BYTES_MAX && tags <= TAGS_MAX) return bytes;
  throw new LightkeeperError(
    'INVALID_ARGUMENT',
    `Cannot store what is ${fact.case}: it has ${bytes.length} bytes`,
    { hint: 'use fewer or shorter tags and reasons' },
  );
}

/** Parses and checks a stored position. Throws DAMAGED. */
export function parsePosition(bytes: Uint8Array): PositionEntry {
  const entry = parseBounded('a position', bytes, POSITION_BYTES_MAX, () =>
    fromBinary(PositionEntrySchema, bytes, KNOWN_FIELDS),
  );
  const { graphId, digest, parentDigest, storeId } = entry;
  const digests = digest.length === DIGEST_BYTES && [0, DIGEST_BYTES].includes(parentDigest.length);
  if (!isGraphId(graphId) || !isPosition(entry) || !digests || !isStoreId(storeId))
    throw damagedMessage('a position', 'it is incomplete');
  return entry;
}

/** Parses a piece of the list of files. Throws DAMAGED unless its paths are safe and in order after `previous`. */
export function parseFileList(bytes: Uint8Array, previous: BytePath): FileEntry[] {
  const { files } = parseBounded('a list of files', bytes, FILE_LIST_BYTES_MAX, () => {
    checkCount(bytes, FileListSchema.field.files.number, PIECE_ENTRIES_MAX);
    return fromBinary(FileListSchema, bytes, KNOWN_FIELDS);
  });
  let last = previous;
  for (const file of files) {
    const path = pathFromBytes(file.path);
    checkCapturedPath(path);
    if (path <= last) throw damagedMessage('a list of files', 'it is out of order');
    checkFile(file, path);
    last = path;
  }
  return files;
}

/** Checks the properties of a file that its type has. */
function checkFile(file: FileEntry, path: BytePath): void {
  const { type, mode, size, target, content } = file;
  if (FileType_Value[type] === undefined || type === FileType_Value.UNSPECIFIED)
    throw damagedMessage('a list of files', `there is no file type ${type}`);
  const wrong = (state: string) => damagedMessage('a list of files', `"${pathText(path)}" has ${state}`);
  if (mode > MODE_MAX) throw wrong(`mode ${mode.toString(8)}`);
  if (type === FileType_Value.REGULAR) {
    if (size > NUMBER_MAX) throw wrong(`${size} bytes`);
    checkRoot(content, 'a file', size);
  } else if (size !== 0n || content !== undefined) throw wrong('bytes, but is no file');
  if (type === FileType_Value.HARD_LINK) {
    const first = pathFromBytes(target);
    checkCapturedPath(first);
    if (first >= path) throw wrong('a first name that comes later');
  } else if (type === FileType_Value.SYMLINK) {
    if (target.length === 0 || target.length > TARGET_BYTES_MAX || target.includes(0))
      throw wrong('an impossible target');
  } else if (target.length > 0) throw wrong('a target, but is no link');
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
