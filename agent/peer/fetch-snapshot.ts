import { readNodeRefs } from '../../core/list.ts';
import { parseFileList } from '../../core/manifest.ts';
import { pathFromBytes } from '../../core/path.ts';
import type { ListRoot, Manifest } from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import { checkOfPeer, peerInvalid } from '../store/receive/check-frame.ts';

/** Most units of one request for list pieces, and for file bytes. */
const BATCH_PIECES = 512;
const BATCH_UNITS = 1024;
/** Original bytes that one request asks for, about. */
const BATCH_BYTES = 8 << 20;
/** Most requests for file bytes that are open at once. */
const OPEN_REQUESTS = 4;
/** Most list pieces of one snapshot. */
// Memory holds the name of each: about 50 MB in all. A snapshot of a terabyte has half as many.
const PIECES_MAX = 300_000;

/** What fetching a snapshot needs of the store and of the stream. */
export interface FetchParts {
  /** Whether a unit is stored or was received. */
  readonly has: (id: Uint8Array) => boolean;
  /** Returns a list piece that is stored or was received. */
  readonly piece: (id: Uint8Array, kind: UnitKind_Value) => Promise<Buffer | undefined>;
  /** Asks the source for units. Resolves with those that it lacks. */
  readonly request: (ids: readonly Buffer[]) => Promise<Buffer[]>;
  /** Whether everything below a piece is known to be stored. */
  readonly isComplete: (id: Buffer) => boolean;
}

/** A list piece to be read. */
interface Piece {
  /** Its id in latin1. */
  readonly name: string;
  readonly depth: number;
  /** Whether it belongs to the list of files. */
  readonly isFiles: boolean;
}

/** Fetches every unit of a snapshot that the store lacks. Returns the number of units that the source lacks too. */
export async function fetchSnapshot(parts: FetchParts, manifest: Manifest): Promise<number> {
  return await new SnapshotFetch(parts).run(manifest.files);
}

class SnapshotFetch {
  readonly #parts: FetchParts;
  /** Pieces that were seen: list, depth, and id in latin1. */
  readonly #seen = new Set<string>();
  readonly #running = new Set<Promise<void>>();
  #batch: Buffer[] = [];
  #batchNames = new Set<string>();
  #batchBytes = 0;
  #missing = 0;
  #failure: { readonly error: unknown } | undefined;

  constructor(parts: FetchParts) {
    this.#parts = parts;
  }

  /** Walks the lists level by level, so that a level costs few round trips. */
  async run(root: ListRoot | undefined): Promise<number> {
    let level: Piece[] = [];
    await this.#addList(root, true, level);
    while (level.length > 0) {
      const next: Piece[] = [];
      for (let at = 0; at < level.length; at += BATCH_PIECES) {
        const batch = level.slice(at, at + BATCH_PIECES);
        await this.#requestPieces(batch);
        for (const piece of batch) await this.#readPiece(piece, next);
      }
      level = next;
    }
    await this.#flush();
    while (this.#running.size > 0) await Promise.all(this.#running);
    if (this.#failure !== undefined) throw this.#failure.error;
    return this.#missing;
  }

  async #requestPieces(pieces: readonly Piece[]): Promise<void> {
    const lacking: Buffer[] = [];
    for (const { name } of pieces) {
      const id = Buffer.from(name, 'latin1');
      if (!this.#parts.has(id)) lacking.push(id);
    }
    this.#missing += (await this.#parts.request(lacking)).length;
  }

  async #readPiece({ name, depth, isFiles }: Piece, next: Piece[]): Promise<void> {
    const id = Buffer.from(name, 'latin1');
    const isFileList = isFiles && depth === 1;
    const kind = isFileList ? UnitKind_Value.FILES : UnitKind_Value.LIST;
    const bytes = await this.#parts.piece(id, kind);
    // The source lacks it, which was counted.
    if (bytes === undefined) return;
    if (!isFileList) {
      await this.#addEntries({ entries: bytes, depth: depth - 1, isFiles }, next);
      return;
    }
    let last = '';
    for (const file of checkOfPeer('a list of files', () => parseFileList(bytes, last))) {
      last = pathFromBytes(file.path);
      await this.#addList(file.content, false, next);
    }
  }

  async #addList(root: ListRoot | undefined, isFiles: boolean, next: Piece[]): Promise<void> {
    if (root !== undefined) await this.#addEntries({ ...root, isFiles }, next);
  }

  async #addEntries(
    { entries, depth, isFiles }: { entries: Uint8Array; depth: number; isFiles: boolean },
    next: Piece[],
  ): Promise<void> {
    for (const { id, span } of checkOfPeer('a list', () => readNodeRefs(entries))) {
      if (depth === 0) await this.#addUnit(id, span);
      else if (!this.#parts.isComplete(id))
        this.#addPiece({ name: id.toString('latin1'), depth, isFiles }, next);
    }
  }

  #addPiece(piece: Piece, next: Piece[]): void {
    const place = `${piece.isFiles ? 'f' : 'u'}${piece.depth}${piece.name}`;
    if (this.#seen.has(place)) return;
    if (this.#seen.size >= PIECES_MAX)
      throw peerInvalid('a snapshot', `it has more than ${PIECES_MAX} list pieces`);
    this.#seen.add(place);
    next.push(piece);
  }

  async #addUnit(id: Buffer, span: number): Promise<void> {
    const name = id.toString('latin1');
    if (this.#batchNames.has(name) || this.#parts.has(id)) return;
    this.#batch.push(Buffer.from(id));
    this.#batchNames.add(name);
    this.#batchBytes += span;
    if (this.#batch.length >= BATCH_UNITS || this.#batchBytes >= BATCH_BYTES) await this.#flush();
  }

  /** Asks for the units gathered so far, once few enough requests are open. */
  async #flush(): Promise<void> {
    while (this.#running.size >= OPEN_REQUESTS && this.#failure === undefined)
      await Promise.race(this.#running);
    if (this.#failure !== undefined) throw this.#failure.error;
    // A source that has sent the frame of a unit whole does not send it again: what has come with other units meanwhile
    // would be waited for in vain.
    const ids = this.#batch.filter((id) => !this.#parts.has(id));
    this.#batch = [];
    this.#batchNames = new Set();
    this.#batchBytes = 0;
    if (ids.length === 0) return;
    const running: Promise<void> = this.#parts
      .request(ids)
      .then((missing) => {
        this.#missing += missing.length;
      })
      .catch((error: unknown) => {
        this.#failure ??= { error };
      })
      .finally(() => this.#running.delete(running));
    this.#running.add(running);
  }
}
