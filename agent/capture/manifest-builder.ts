import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { create, toBinary } from '@bufbuild/protobuf';
import { must } from '../../core/assert.ts';
import { errorFinding } from '../../core/finding.ts';
import { filesPieceEnds, ListBuilder, spanOf } from '../../core/list.ts';
import { capturedMs, captureTime, MANIFEST_FINDINGS_MAX, MANIFEST_FORMAT } from '../../core/manifest.ts';
import { type BytePath, pathBytes, pathText } from '../../core/path.ts';
import { MINT_ID_BYTES } from '../../core/position.ts';
import type { StoredSnapshot } from '../../core/snapshot.ts';
import {
  type FileEntry,
  FileEntrySchema,
  FileListSchema,
  type ListRoot,
  type Manifest,
  ManifestSchema,
  type PositionEntry,
  SourceSchema,
} from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import {
  CutMethod_Value,
  type Epoch,
  FileType_Value,
  type Finding,
  FindingSchema,
  type Instance,
} from '../../gen/lightkeeper/v1/types_pb.ts';
import { realPathOf } from '../../host/real-path.ts';
import { version } from '../../host/version.ts';
import type { Transaction } from '../store/transaction.ts';
import { storableTime } from '../watch/names.ts';
import type { Entry, Scan } from '../watch/scan.ts';
import type { Cut } from './quiesce.ts';

/** Most bytes of the findings in a manifest. */
const FINDINGS_BYTES_MAX = 4 << 20;

/** A directory as it was read. */
export interface ReadDirectory {
  readonly scan: Scan;
  /** Units of each file that was read or is unchanged. */
  readonly contents: ReadonlyMap<BytePath, ListRoot>;
  /** Names that could not be read or no longer exist. */
  readonly dropped: ReadonlySet<BytePath>;
  /** Modification times of the newest snapshot, of names whose own were cut by a restore. */
  readonly fullTimes: ReadonlyMap<BytePath, bigint>;
}

/** The stored list of files of a snapshot. */
export interface StoredFileList {
  readonly root: ListRoot;
  readonly totals: NonNullable<Manifest['totals']>;
  /** The names in the list, in its order. */
  readonly entries: readonly Entry[];
  /** Names that had to be left out. */
  readonly findings: readonly Finding[];
}

/** Stores the list of a directory's files as pieces. */
export async function storeFileList(
  transaction: Transaction,
  { scan, contents, dropped, fullTimes }: ReadDirectory,
): Promise<StoredFileList> {
  const list = new ListBuilder((piece) => transaction.addPiece(UnitKind_Value.LIST, piece), 1);
  const totals = { files: 0, directories: 0, symlinks: 0, rawBytes: 0n, units: 0n };
  const firstNames = new Map<string, BytePath>();
  const entries: Entry[] = [];
  const findings: Finding[] = [];
  let piece: FileEntry[] = [];
  const flush = async () => {
    if (piece.length === 0) return;
    const bytes = Buffer.from(toBinary(FileListSchema, create(FileListSchema, { files: piece })));
    list.add(transaction.addPiece(UnitKind_Value.FILES, bytes), piece.length, piece.length);
    piece = [];
    await transaction.flushPieces();
  };
  for (const entry of scan.entries) {
    if (dropped.has(entry.path)) continue;
    const mtimeNs = fullTimes.get(entry.path) ?? entry.mtimeNs;
    const file = fileEntry({ ...entry, mtimeNs }, contents.get(entry.path), firstNames);
    if (file === undefined) {
      findings.push(unreadableLinkFinding(entry.path));
      continue;
    }
    entries.push(entry);
    piece.push(file);
    if (file.type === FileType_Value.DIRECTORY) totals.directories += 1;
    else if (file.type === FileType_Value.SYMLINK) totals.symlinks += 1;
    else totals.files += 1;
    totals.rawBytes += file.size;
    totals.units += file.content?.count ?? 0n;
    if (filesPieceEnds(piece.length, file.path)) await flush();
  }
  await flush();
  const built = create(ManifestSchema, { totals }).totals;
  return { root: list.finish(), totals: must(built, 'the totals'), entries, findings };
}

/** All that a manifest is made of. */
export interface ManifestParts {
  readonly graphId: string;
  /** Absolute path of the directory. */
  readonly dir: Uint8Array;
  readonly description: string;
  /** Wall clock at the start of the capture, in milliseconds. */
  readonly startedMs: number;
  /** The directory itself. */
  readonly root: Entry;
  readonly list: StoredFileList;
  readonly cut: Cut;
  /** Store that the snapshot is captured into, 16 bytes. */
  readonly storeId: Uint8Array;
  /** The epoch that the snapshot begins; undefined for that of the head. */
  readonly epoch: Pick<Epoch, 'number' | 'mintId'> | undefined;
  /** The newest position of the graph; undefined before its first snapshot. */
  readonly head: PositionEntry | undefined;
  readonly parent: StoredSnapshot | undefined;
  readonly instance: Instance | undefined;
  readonly findings: readonly Finding[];
}

/** Mints an epoch. */
export function mintEpoch(number: bigint): Pick<Epoch, 'number' | 'mintId'> {
  return { number, mintId: randomBytes(MINT_ID_BYTES) };
}

/** Builds the manifest of a captured directory. */
export function buildManifest(parts: ManifestParts): Manifest {
  const { head, parent, findings, list, instance } = parts;
  const { cutMethod, atRest } = parts.cut;
  const parentMs = parent === undefined ? undefined : capturedMs(parent.manifest);
  const { dir } = parts;
  const source = { host: hostname(), dir, realDir: realPathOf(dir), agentVersion: version };
  const listed = listedFindings(findings);
  return create(ManifestSchema, {
    format: MANIFEST_FORMAT,
    graphId: parts.graphId,
    storeId: parts.storeId,
    epoch: parts.epoch ?? head?.epoch ?? mintEpoch(1n),
    // A side snapshot has no place in the history.
    sequence: cutMethod === CutMethod_Value.CHANGED ? 0n : (head?.sequence ?? 0n) + 1n,
    parentDigest: head?.digest ?? new Uint8Array(),
    capturedAt: captureTime(parts.startedMs, parentMs),
    cutMethod,
    atRest,
    files: list.root,
    totals: list.totals,
    root: create(FileEntrySchema, entryMetadata(parts.root, FileType_Value.DIRECTORY)),
    source: create(SourceSchema, instance === undefined ? source : { ...source, instance }),
    findings: listed,
    findingsOmitted: findings.length - listed.length,
    description: parts.description,
  });
}

/** Returns the findings that a manifest lists: the first ones, up to a number and a size. */
function listedFindings(findings: readonly Finding[]): Finding[] {
  let bytes = 0;
  return findings.slice(0, MANIFEST_FINDINGS_MAX).filter((finding) => {
    bytes += toBinary(FindingSchema, finding).length;
    return bytes <= FINDINGS_BYTES_MAX;
  });
}

/** Returns the finding of a snapshot whose files changed while they were read. */
export function changedCutFinding(changed: BytePath | undefined): Finding {
  return changed === undefined
    ? errorFinding('not_settled', '', {
        message: 'the directory did not come to rest in time; it was captured as it was',
        hint: 'wait longer with --settle-timeout',
      })
    : errorFinding('changed_while_read', pathText(changed), {
        message: 'it changed while it was read, at every attempt',
        hint: 'take the snapshot while nothing writes, or run lightkeeper up, which waits for that',
      });
}

/** Returns the finding of a hard link to a file that could not be read. */
function unreadableLinkFinding(path: BytePath): Finding {
  return errorFinding('unreadable', pathText(path), {
    message: 'it is another name of a file that could not be read, and is not in the snapshot',
    hint: 'give the agent the right to read it, or exclude it',
  });
}

/** Returns the metadata of a name as it is stored. */
function entryMetadata(entry: Entry, type: FileType_Value) {
  const { mode, uid, gid } = entry;
  return { path: pathBytes(entry.path), type, mode, uid, gid, mtimeNs: storableTime(entry.mtimeNs) };
}

/** Reports whether a file has been seen under another name before. Adds the file to `links`. */
export function isSecondName(links: Set<string>, entry: Entry): boolean {
  if (entry.links === '') return false;
  if (links.has(entry.links)) return true;
  links.add(entry.links);
  return false;
}

/** Returns a scanned name as it is stored; undefined for a file that could not be read. */
function fileEntry(
  entry: Entry,
  content: ListRoot | undefined,
  firstNames: Map<string, BytePath>,
): FileEntry | undefined {
  if (entry.type === 'dir') return create(FileEntrySchema, entryMetadata(entry, FileType_Value.DIRECTORY));
  if (entry.type === 'symlink') {
    return create(FileEntrySchema, {
      ...entryMetadata(entry, FileType_Value.SYMLINK),
      target: pathBytes(entry.target),
    });
  }
  const other = entry.links === '' ? undefined : firstNames.get(entry.links);
  if (other !== undefined) {
    return create(FileEntrySchema, {
      ...entryMetadata(entry, FileType_Value.HARD_LINK),
      target: pathBytes(other),
    });
  }
  if (content === undefined) return undefined;
  if (entry.links !== '') firstNames.set(entry.links, entry.path);
  // A file that changed may have another size than the scan saw.
  const size = BigInt(spanOf(content));
  return create(FileEntrySchema, { ...entryMetadata(entry, FileType_Value.REGULAR), size, content });
}
