import { type BigIntStats, close, constants, fstat, open } from 'node:fs';
import { promisify } from 'node:util';
import { must } from '../../core/assert.ts';
import { LightkeeperError, systemCode } from '../../core/errors.ts';
import { ListBuilder } from '../../core/list.ts';
import type { BytePath } from '../../core/path.ts';
import { UNIT_ID_BYTES } from '../../core/unit.ts';
import type { FileEntry, ListRoot } from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import type { Store } from '../store/store.ts';
import type { Transaction } from '../store/transaction.ts';
import { below } from '../watch/names.ts';
import { type Entry, unreadableFinding } from '../watch/scan.ts';
import {
  allocatePreviousUnits,
  BLOCK_BYTES,
  type BlockRequest,
  type CutBlock,
  type PreviousUnits,
  setPreviousUnit,
} from '../workers/chunker.ts';
import { BATCH_FILES_MAX } from '../workers/cut-task.ts';
import type { SmallFile } from '../workers/small-file.ts';
import type { Slot, WorkerGroup } from '../workers/worker-group.ts';

const openFile = promisify(open);
const closeFile = promisify(close);

// The type of a promisified fstat has no bigint.
function statFile(fd: number): Promise<BigIntStats> {
  return new Promise((resolve, reject) => {
    fstat(fd, { bigint: true }, (error, stats) => (error === null ? resolve(stats) : reject(error)));
  });
}

/** Most units of a file's newest snapshot that its cut may use: 16 GiB of text, 46 MiB of memory. */
const PREVIOUS_UNITS_MAX = 1 << 20;

/** Most new files read at the same time. */
const STREAMS = 3;

/** Age of a change, in nanoseconds, below which a later change may leave the times as they are. */
const RACY_NS = 20_000_000n;

/** A file to read, with its entry in the newest snapshot. */
export interface FileToRead {
  readonly entry: Entry;
  readonly previous: FileEntry | undefined;
}

/** Result of reading files. */
export interface ReadOutcome {
  readonly contents: Map<BytePath, ListRoot>;
  /** Files that were not the same before, during and after their read. */
  readonly changed: Set<BytePath>;
  /** Files that no longer exist or cannot be read. */
  readonly dropped: Set<BytePath>;
  readonly findings: Finding[];
}

/** Reads files, cuts them into units and stores the new ones. */
export class FileReader {
  readonly #store: Store;
  readonly #transaction: Transaction;
  readonly #workers: WorkerGroup;
  readonly #dir: Uint8Array;
  readonly #trusted: boolean;
  readonly #onBytes: (bytes: number) => void;
  readonly #signal: AbortSignal | undefined;
  readonly #writes = new Set<Promise<void>>();
  readonly #streams = Array.from({ length: STREAMS }, (_, i) => i);
  readonly #waiting: ((stream: number) => void)[] = [];
  #failure: { error: unknown } | undefined;

  constructor(parts: {
    store: Store;
    transaction: Transaction;
    workers: WorkerGroup;
    dir: Uint8Array;
    /** Whether all units of the newest snapshot are known to be stored. */
    trusted: boolean;
    onBytes: (bytes: number) => void;
    signal: AbortSignal | undefined;
  }) {
    this.#store = parts.store;
    this.#transaction = parts.transaction;
    this.#workers = parts.workers;
    this.#dir = parts.dir;
    this.#trusted = parts.trusted;
    this.#onBytes = parts.onBytes;
    this.#signal = parts.signal;
  }

  /**
   * Reads the files. With `takeChanged` a file that changes while it is read is stored as it was read; without it the
   * file is left out.
   */
  async read(files: readonly FileToRead[], takeChanged: boolean): Promise<ReadOutcome> {
    const outcome: ReadOutcome = {
      contents: new Map(),
      changed: new Set(),
      dropped: new Set(),
      findings: [],
    };
    await this.#workers.forEach(batchesOf(files), async (batch) => {
      this.#signal?.throwIfAborted();
      if (batch.length === 1 && (must(batch[0], 'a file').entry.size > BLOCK_BYTES || takeChanged)) {
        await this.#readByBlocks(must(batch[0], 'a file'), takeChanged, outcome);
      } else if (takeChanged) {
        for (const file of batch) await this.#readByBlocks(file, true, outcome);
      } else await this.#readSmall(batch, outcome);
      await this.#transaction.flushPieces();
    });
    await Promise.all(this.#writes);
    if (this.#failure !== undefined) throw this.#failure.error;
    await this.#workers.flush();
    return outcome;
  }

  // ----- several small files in one block -----

  async #readSmall(batch: readonly FileToRead[], outcome: ReadOutcome): Promise<void> {
    const slot = await this.#workers.takeSlot();
    try {
      const paths = batch.map(({ entry }) => below(this.#dir, entry.path));
      const { block, files: results } = await slot.run({ op: 'cut-files', slot: slot.number, paths });
      await this.#storeNew(slot, block, 0);
      let unit = 0;
      for (const [i, result] of results.entries()) {
        const { entry } = must(batch[i], 'a file of the batch');
        this.#recordSmall(entry, result, outcome);
        if (result.stable) outcome.contents.set(entry.path, this.#list(block, unit, result.units));
        unit += result.units;
        this.#onBytes(entry.size);
      }
    } finally {
      slot.release();
    }
  }

  #recordSmall(entry: Entry, result: SmallFile, outcome: ReadOutcome): void {
    if (result.error !== undefined) {
      this.#drop(entry, result.error.code, outcome);
      return;
    }
    const same =
      result.size === entry.size && result.mtimeNs === entry.mtimeNs && result.ctimeNs === entry.ctimeNs;
    if (!result.stable || !same || isRacy(result.ctimeNs)) outcome.changed.add(entry.path);
  }

  #drop(entry: Entry, code: string, outcome: ReadOutcome): void {
    outcome.dropped.add(entry.path);
    // It is gone or no longer a file. The next scan finds what it is now.
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP' || code === 'ENXIO') {
      outcome.changed.add(entry.path);
      return;
    }
    outcome.findings.push(unreadableFinding(entry.path, code));
  }

  /** Starts to store the new units of a block. */
  async #storeNew(slot: Slot, block: CutBlock, stream: number): Promise<void> {
    const count = block.lengths.length;
    const unsure: number[] = [];
    for (let i = 0; i < count; i++) if (block.known[i] === 0 || !this.#trusted) unsure.push(i);
    const fresh = new Uint8Array(count);
    if (unsure.length > 0) {
      const ids = Buffer.allocUnsafe(unsure.length * UNIT_ID_BYTES);
      for (const [k, i] of unsure.entries()) {
        ids.set(block.ids.subarray(i * UNIT_ID_BYTES, (i + 1) * UNIT_ID_BYTES), k * UNIT_ID_BYTES);
      }
      const claimed = await this.#transaction.claim(ids);
      for (const [k, i] of unsure.entries()) fresh[i] = claimed[k] as number;
    }
    // A worker runs its tasks in order, so the slot may be taken again before this one is done.
    const write: Promise<void> = slot
      .run({ op: 'append-units', slot: slot.number, fresh, stream })
      .catch((error: unknown) => {
        this.#failure ??= { error };
      })
      .then(() => {
        this.#writes.delete(write);
      });
    this.#writes.add(write);
  }

  #list(block: CutBlock, from: number, count: number): ListRoot {
    const list = new ListBuilder((piece) => this.#transaction.addPiece(UnitKind_Value.LIST, piece));
    addUnits(list, block, from, count);
    return list.finish();
  }

  // ----- one large file, block by block -----

  async #readByBlocks(
    { entry, previous }: FileToRead,
    takeChanged: boolean,
    outcome: ReadOutcome,
  ): Promise<void> {
    let fd: number;
    try {
      const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
      // node:fs takes Buffers as paths; its promisified type is one overload only.
      fd = await openFile(below(this.#dir, entry.path), flags);
    } catch (error) {
      return this.#drop(entry, systemCode(error) ?? 'EIO', outcome);
    }
    try {
      const before = await statFile(fd);
      const same =
        Number(before.size) === entry.size &&
        before.mtimeNs === entry.mtimeNs &&
        before.ctimeNs === entry.ctimeNs;
      if (!before.isFile() || (!same && !takeChanged)) {
        outcome.changed.add(entry.path);
        if (!before.isFile()) outcome.dropped.add(entry.path);
        return;
      }
      const units = await this.#previousUnits(previous);
      const read = (stream: number) =>
        this.#readBlocks(fd, { size: Number(before.size), previous: units, stream });
      const content = await (units === undefined ? this.#withStream(read) : read(0));
      const after = await statFile(fd);
      const stable =
        after.size === before.size && after.mtimeNs === before.mtimeNs && after.ctimeNs === before.ctimeNs;
      if (!same || !stable || isRacy(before.ctimeNs)) outcome.changed.add(entry.path);
      outcome.contents.set(entry.path, content);
    } catch (error) {
      if (systemCode(error) === undefined) throw error;
      this.#drop(entry, systemCode(error) ?? 'EIO', outcome);
    } finally {
      await closeFile(fd);
    }
  }

  /** Reads a new file into frames of its own, in one of a few parallel streams. */
  // A restore reads file by file and would decode a mixed frame many times. One stream would leave workers idle.
  async #withStream<T>(read: (stream: number) => Promise<T>): Promise<T> {
    const stream =
      this.#streams.shift() ?? (await new Promise<number>((resolve) => this.#waiting.push(resolve)));
    try {
      return await read(stream);
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#streams.push(stream);
      else next(stream);
    }
  }

  async #previousUnits(previous: FileEntry | undefined): Promise<PreviousUnits | undefined> {
    const count = Number(previous?.content?.count ?? 0n);
    if (previous === undefined || count < 2 || count > PREVIOUS_UNITS_MAX) return undefined;
    const units = allocatePreviousUnits(count);
    let i = 0;
    try {
      for await (const refs of this.#store.units(previous.content)) {
        for (const { id, span } of refs) {
          if (i < count) setPreviousUnit(units, i, { id, length: span });
          i += 1;
        }
      }
    } catch (error) {
      // The list in the newest snapshot is damaged. The file is cut without it and stored again.
      if (!(error instanceof LightkeeperError) || error.code !== 'DAMAGED') throw error;
      return undefined;
    }
    return i === count ? units : undefined;
  }

  async #readBlocks(
    fd: number,
    { size, previous, stream }: { size: number; previous: PreviousUnits | undefined; stream: number },
  ): Promise<ListRoot> {
    const list = new ListBuilder((piece) => this.#transaction.addPiece(UnitKind_Value.LIST, piece));
    let position = 0;
    let expected = previous === undefined ? -1 : 0;
    let order: Promise<void> = Promise.resolve();
    let failure: { error: unknown } | undefined;
    while (position < size && failure === undefined) {
      this.#signal?.throwIfAborted();
      const slot = await this.#workers.takeSlot();
      const cut = this.#cut(slot, { fd, position, size, previous, expected });
      const done = cut.block.then(async (block) => {
        if (block.failed !== undefined)
          throw Object.assign(new Error('Cannot read a file'), { code: block.failed });
        await this.#storeNew(slot, block, stream);
        return block;
      });
      order = Promise.all([order, done])
        .then(([, block]) => {
          addUnits(list, block, 0, block.lengths.length);
          slot.release();
        })
        .catch((error: unknown) => {
          failure ??= { error };
          slot.release();
        });
      const next = await cut.early.catch(() => undefined);
      if (next === undefined || next.position <= position) break;
      this.#onBytes(next.position - position);
      position = next.position;
      expected = next.expected;
    }
    await order;
    if (failure !== undefined) throw failure.error;
    return list.finish();
  }

  #cut(
    slot: Slot,
    request: BlockRequest,
  ): { block: Promise<CutBlock>; early: Promise<{ position: number; expected: number }> } {
    let block: Promise<CutBlock> = Promise.reject(new Error('not begun'));
    block.catch(() => {});
    const early = new Promise<{ position: number; expected: number }>((resolve, reject) => {
      block = slot.run({ op: 'cut-block', slot: slot.number, ...request }, (position, expected) =>
        resolve({ position, expected }),
      );
      block.catch(reject);
    });
    return { block, early };
  }
}

function addUnits(list: ListBuilder, block: CutBlock, from: number, count: number): void {
  for (let i = from; i < from + count; i++) {
    list.add(block.ids.subarray(i * UNIT_ID_BYTES, (i + 1) * UNIT_ID_BYTES), block.lengths[i] as number);
  }
}

function isRacy(ctimeNs: bigint): boolean {
  const age = BigInt(Date.now()) * 1_000_000n - ctimeNs;
  return age >= 0n && age < RACY_NS;
}

/** Groups small files, as many as fit into one block; large ones are alone. */
function* batchesOf(files: readonly FileToRead[]): Generator<FileToRead[]> {
  let batch: FileToRead[] = [];
  let bytes = 0;
  for (const file of files) {
    const { size } = file.entry;
    if (size > BLOCK_BYTES) {
      yield [file];
      continue;
    }
    if (bytes + size > BLOCK_BYTES || batch.length >= BATCH_FILES_MAX) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push(file);
    bytes += size;
  }
  if (batch.length > 0) yield batch;
}
