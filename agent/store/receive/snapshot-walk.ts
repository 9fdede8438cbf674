import { readNodeRefs } from '../../../core/list.ts';
import { parseFileList } from '../../../core/manifest.ts';
import { type BytePath, pathFromBytes } from '../../../core/path.ts';
import type { ListRoot, Manifest } from '../../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { UnitKind_Value } from '../../../gen/lightkeeper/store/v1/pack_pb.ts';
import { FileType_Value } from '../../../gen/lightkeeper/v1/types_pb.ts';
import { checkOfPeer, peerInvalid } from './check-frame.ts';

/** Most missing units that a walk lists; the rest are counted. */
const MISSING_LISTED_MAX = 1000;
/** Most pieces that are remembered as complete between two walks. */
const MEMO_PIECES_MAX = 100_000;
/** Entries between two turns of the event loop. */
const TURN_ENTRIES = 4000;

/** The store as a walk sees it. */
export interface WalkedUnits {
  /** Reports whether a unit of file bytes is in a whole pack. */
  hasBytes(id: Buffer): boolean;
  /** Returns a list piece; undefined if it is missing. */
  piece(id: Buffer, kind: UnitKind_Value): Promise<Buffer | undefined>;
}

/** What the entries below a list piece add up to. */
interface Sums {
  /** Bytes of a list of units, names of a list of files. */
  readonly span: number;
  readonly units: number;
  readonly files: number;
  readonly directories: number;
  readonly symlinks: number;
  readonly rawBytes: number;
  /** First and last path; undefined for a list of units. */
  readonly paths: readonly [first: BytePath, last: BytePath] | undefined;
}

type Role = 'units' | 'files';

const NO_SUMS: Sums = {
  span: 0,
  units: 0,
  files: 0,
  directories: 0,
  symlinks: 0,
  rawBytes: 0,
  paths: undefined,
};

/** Finds the units that snapshots lack. Visits each list piece once until units may have been removed. */
export class SnapshotWalk {
  readonly #units: WalkedUnits;
  /** Sums of complete pieces, by role, depth and id. */
  readonly #complete = new Map<string, Sums>();
  #losses = 0;
  #missing: Buffer[] = [];
  #missingCount = 0;
  /** Pieces of this walk below which units are missing. */
  #incomplete = new Map<string, Sums>();
  #entries = 0;

  constructor(units: WalkedUnits) {
    this.#units = units;
  }

  /** Reports whether all units below a piece are known to be stored. */
  isComplete(id: Uint8Array, losses: number): boolean {
    if (losses !== this.#losses) return false;
    const name = Buffer.from(id.buffer, id.byteOffset, id.byteLength).toString('latin1');
    for (const role of ['units', 'files'] as const)
      for (let depth = 1; depth <= 6; depth++) if (this.#complete.has(`${role}${depth}${name}`)) return true;
    return false;
  }

  /**
   * Returns the units that a snapshot lacks, and their number. `losses` is a number that changes when units may have
   * been removed. PEER_INVALID if the lists do not add up to the totals of the manifest.
   */
  async missing(manifest: Manifest, losses: number): Promise<{ listed: Buffer[]; count: number }> {
    if (losses !== this.#losses || this.#complete.size > MEMO_PIECES_MAX) this.#complete.clear();
    this.#losses = losses;
    this.#missing = [];
    this.#missingCount = 0;
    this.#incomplete = new Map();
    const sums = manifest.files === undefined ? NO_SUMS : await this.#root(manifest.files, 'files');
    const found = { listed: this.#missing, count: this.#missingCount };
    this.#incomplete = new Map();
    if (found.count === 0) checkTotals(manifest, sums);
    return found;
  }

  async #root({ entries, depth, count }: ListRoot, role: Role): Promise<Sums> {
    if (role === 'files' && depth === 0) throw peerInvalid('a list of files', 'it has no pieces');
    const before = this.#missingCount;
    const sums = await this.#list(entries, depth, role);
    const counted = role === 'files' ? sums.span : sums.units;
    if (this.#missingCount === before && BigInt(counted) !== count)
      throw peerInvalid('a list', `it has ${counted} entries instead of ${count}`);
    return sums;
  }

  async #list(entries: Uint8Array, depth: number, role: Role): Promise<Sums> {
    let sums = NO_SUMS;
    for (const { id, span } of checkOfPeer('a list', () => readNodeRefs(entries))) {
      this.#entries += 1;
      if (this.#entries % TURN_ENTRIES === 0) await new Promise((resolve) => setImmediate(resolve));
      if (depth === 0) {
        if (!this.#units.hasBytes(id)) this.#lack(id);
        sums = added(sums, { ...NO_SUMS, span, units: 1 });
        continue;
      }
      const before = this.#missingCount;
      const below = await this.#piece(id, depth, role);
      if (this.#missingCount === before && below.span !== span)
        throw peerInvalid('a list', `a piece of it covers ${below.span} instead of ${span}`);
      sums = added(sums, below);
    }
    return sums;
  }

  async #piece(id: Buffer, depth: number, role: Role): Promise<Sums> {
    const name = `${role}${depth}${id.toString('latin1')}`;
    const known = this.#complete.get(name) ?? this.#incomplete.get(name);
    if (known !== undefined) {
      if (this.#incomplete.has(name)) this.#missingCount += 1;
      return known;
    }
    const isFileList = role === 'files' && depth === 1;
    const bytes = await this.#units.piece(id, isFileList ? UnitKind_Value.FILES : UnitKind_Value.LIST);
    if (bytes === undefined) {
      this.#lack(id);
      this.#incomplete.set(name, NO_SUMS);
      return NO_SUMS;
    }
    if (bytes.length === 0) throw peerInvalid('a list', 'a piece of it is empty');
    const before = this.#missingCount;
    const sums = isFileList ? await this.#files(bytes) : await this.#list(bytes, depth - 1, role);
    if (this.#missingCount === before) this.#complete.set(name, sums);
    else this.#incomplete.set(name, sums);
    return sums;
  }

  async #files(bytes: Buffer): Promise<Sums> {
    const files = checkOfPeer('a list of files', () => parseFileList(bytes, ''));
    let sums = NO_SUMS;
    for (const file of files) {
      const path = pathFromBytes(file.path);
      const before = this.#missingCount;
      const isRegular = file.type === FileType_Value.REGULAR;
      const content =
        isRegular && file.content !== undefined ? await this.#root(file.content, 'units') : NO_SUMS;
      if (this.#missingCount === before && BigInt(content.span) !== file.size)
        throw peerInvalid('a list of files', 'the units of a file do not add up to its size');
      sums = added(sums, {
        span: 1,
        units: content.units,
        files: isRegular || file.type === FileType_Value.HARD_LINK ? 1 : 0,
        directories: file.type === FileType_Value.DIRECTORY ? 1 : 0,
        symlinks: file.type === FileType_Value.SYMLINK ? 1 : 0,
        rawBytes: Number(file.size),
        paths: [path, path],
      });
    }
    return sums;
  }

  #lack(id: Buffer): void {
    this.#missingCount += 1;
    // A view would hold the whole piece that it lies in.
    if (this.#missing.length < MISSING_LISTED_MAX) this.#missing.push(Buffer.from(id));
  }
}

function added(a: Sums, b: Sums): Sums {
  const sums = {
    span: a.span + b.span,
    units: a.units + b.units,
    files: a.files + b.files,
    directories: a.directories + b.directories,
    symlinks: a.symlinks + b.symlinks,
    rawBytes: a.rawBytes + b.rawBytes,
  };
  if (sums.span > Number.MAX_SAFE_INTEGER || sums.rawBytes > Number.MAX_SAFE_INTEGER)
    throw peerInvalid('a list', 'its spans add up to too much');
  if (a.paths === undefined || b.paths === undefined) return { ...sums, paths: b.paths ?? a.paths };
  if (b.paths[0] <= a.paths[1]) throw peerInvalid('a list of files', 'it is out of order');
  return { ...sums, paths: [a.paths[0], b.paths[1]] };
}

function checkTotals({ totals }: Manifest, sums: Sums): void {
  const { files = 0, directories = 0, symlinks = 0, rawBytes = 0n, units = 0n } = totals ?? {};
  const isSame =
    files === sums.files &&
    directories === sums.directories &&
    symlinks === sums.symlinks &&
    rawBytes === BigInt(sums.rawBytes) &&
    units === BigInt(sums.units);
  if (!isSame) throw peerInvalid('a manifest', 'its totals are not those of its files');
}
