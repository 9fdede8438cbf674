import { LightkeeperError } from '../../../core/errors.ts';
import type { StoredSnapshot } from '../../../core/snapshot.ts';
import { hex } from '../../../core/unit.ts';
import { PackKind_Value, UnitKind_Value } from '../../../gen/lightkeeper/store/v1/pack_pb.ts';
import { checkReserve } from '../../../host/disk-reserve.ts';
import { FrameProver } from '../frame-prover.ts';
import type { Store } from '../store.ts';
import { checkFrame, peerInvalid } from './check-frame.ts';
import { newAnnotations, newPositions, publishRecords } from './commit-records.ts';
import { type Cost, commitSnapshot, enterReceived } from './commit-snapshot.ts';
import { ReceivedPacks } from './received-packs.ts';
import {
  positionsUpTo,
  type RecordBytes,
  receiveAnnotations,
  receiveManifest,
  receivePositions,
} from './received-records.ts';
import { SnapshotWalk } from './snapshot-walk.ts';

/** Options of a receiver. */
export interface ReceiverOptions {
  /** Bytes that must stay free on the disk of the store; undefined for the formula, 0 for no check. */
  readonly reserveBytes?: bigint | undefined;
}

/** A frame that was stored. */
export interface StoredFrame {
  readonly kind: UnitKind_Value;
  /** Ids of its units. */
  readonly ids: Buffer[];
  /** Bytes of the frame. */
  readonly bytes: number;
}

/** A snapshot as a peer sent it. */
export interface SentSnapshot extends RecordBytes {
  readonly manifest: Uint8Array;
  /** Milliseconds that it took to receive. */
  readonly durationMs: number;
}

/** Stores frames and snapshots of a peer. Nothing is stored before it is bounded and hashes to its id. */
// Frames are appended without the lock of the store. It is taken to change the index, and for a commit.
export class FrameReceiver {
  readonly #store: Store;
  readonly #packs: ReceivedPacks;
  readonly #prover: FrameProver;
  readonly #walk: SnapshotWalk;
  readonly #reserveBytes: bigint | undefined;
  /** Names of the packs that garbage collection leaves alone for this receiver. */
  readonly #reserved: string[];
  /** The write that the next one waits for. */
  #writing: Promise<unknown> = Promise.resolve();
  #entering: Promise<void> = Promise.resolve();
  #cost: Cost = { storedBytes: 0, newBytes: 0, newUnits: 0 };
  #isClosed = false;

  private constructor(store: Store, { reserveBytes }: ReceiverOptions) {
    this.#store = store;
    this.#reserveBytes = reserveBytes;
    this.#packs = store.reception.unpark() ?? new ReceivedPacks(store.packs, store.config.storeId);
    this.#reserved = store.reception.takeAdopted();
    this.#prover = new FrameProver(store.workers);
    this.#walk = new SnapshotWalk({
      hasBytes: (id) => store.locate(id)?.kind === UnitKind_Value.BYTES,
      piece: (id, kind) => this.#piece(id, kind),
    });
  }

  /** Opens a receiver, which goes on with what earlier ones left. REFUSED for a store that is open read-only. */
  static async open(store: Store, options: ReceiverOptions = {}): Promise<FrameReceiver> {
    if (store.readOnly) {
      throw new LightkeeperError(
        'REFUSED',
        `Cannot receive into the store "${store.root}": it is open read-only`,
        { hint: 'make the store writable, or name another one' },
      );
    }
    const receiver = new FrameReceiver(store, options);
    await receiver.#checkReserve(0).catch(async (error: unknown) => {
      await receiver.close();
      throw error;
    });
    return receiver;
  }

  /** Reports whether a unit is in a whole pack of the store, or was received. */
  has(id: Uint8Array): boolean {
    return this.#packs.has(id) || this.#store.locate(id) !== undefined;
  }

  /** Reports whether all units below a list piece are known to be stored. */
  isComplete(id: Uint8Array): boolean {
    return this.#walk.isComplete(id, this.#store.health.losses + this.#packs.losses);
  }

  /** Returns a list piece that is stored or was received; undefined if it is neither, or damaged. */
  async piece(id: Uint8Array, kind: UnitKind_Value): Promise<Buffer | undefined> {
    return await this.#serially(() => this.#piece(id, kind));
  }

  async #piece(id: Uint8Array, kind: UnitKind_Value): Promise<Buffer | undefined> {
    try {
      const received = await this.#packs.piece(id, kind);
      if (received !== undefined) return received;
      return this.#store.locate(id) === undefined ? undefined : await this.#store.readUnit(id, kind);
    } catch (error) {
      const isMissing = error instanceof LightkeeperError && ['DAMAGED', 'NOT_FOUND'].includes(error.code);
      if (isMissing) return undefined;
      throw error;
    }
  }

  /**
   * Checks a frame and appends it to a pack. `wanted` reports whether a unit was asked for. Resolves when its bytes
   * have been written. PEER_INVALID if it breaks a rule, has no wanted unit or does not hash to its ids.
   */
  async receive(frame: Buffer, wanted: (id: Buffer) => boolean): Promise<StoredFrame> {
    const { header, packKind, ids } = checkFrame(frame, wanted);
    await proveReceived(this.#prover, frame, header.decodedCap);
    await this.#serially(async () => {
      if (ids.every((id) => this.has(id))) return;
      await this.#checkReserve(frame.length);
      for (const [i, id] of ids.entries()) {
        if (this.has(id)) continue;
        this.#cost.newUnits += 1;
        this.#cost.newBytes += header.unitLengths[i] ?? 0;
      }
      if (await this.#packs.append(packKind, { bytes: frame, header })) await this.#publish(packKind);
    });
    return { kind: header.kind, ids, bytes: frame.length };
  }

  /**
   * Commits a snapshot whose units were all received, with its records as they were sent. NOT_FOUND with the ids of
   * missing units; REFUSED if the snapshot was deleted here; PEER_INVALID if something breaks a rule.
   */
  async commit({ manifest: bytes, durationMs, ...records }: SentSnapshot): Promise<StoredSnapshot> {
    const manifest = receiveManifest(bytes);
    const positions = positionsUpTo(receivePositions(records.positions), manifest);
    const annotations = receiveAnnotations(records.annotations);
    return await this.#store.exclusively(() =>
      this.#serially(async () => {
        await this.#publish(PackKind_Value.DATA);
        await enterReceived(this.#store, this.#packs);
        const snapshot = await commitSnapshot(
          { store: this.#store, packs: this.#packs, walk: this.#walk, cost: this.#cost },
          { manifest, positions, annotations, durationMs },
        );
        this.#cost = { storedBytes: 0, newBytes: 0, newUnits: 0 };
        // Snapshots refer to these packs now.
        this.#freeReserved();
        return snapshot;
      }),
    );
  }

  /** Makes all received units durable and enters them into the index, without a snapshot. */
  // For units that snapshots of this store refer to already.
  async publishUnits(): Promise<void> {
    await this.#store.exclusively(() =>
      this.#serially(async () => {
        await this.#publish(PackKind_Value.DATA);
        await this.#publish(PackKind_Value.META);
        await enterReceived(this.#store, this.#packs);
        this.#cost = { storedBytes: 0, newBytes: 0, newUnits: 0 };
        this.#freeReserved();
      }),
    );
  }

  /** Commits annotations of known snapshots, and positions up to the head, as they were sent. Ignores all others. */
  async commitRecords(records: RecordBytes): Promise<void> {
    const positions = receivePositions(records.positions);
    const annotations = receiveAnnotations(records.annotations);
    const sent = [...records.positions, ...records.annotations];
    await this.#checkReserve(sent.reduce((sum, { length }) => sum + length, 0));
    await this.#store.exclusively(async () => {
      const [fresh, facts] = [
        await newPositions(this.#store, positions),
        await newAnnotations(this.#store, annotations),
      ];
      await publishRecords(this.#store, fresh, facts);
    });
  }

  /** Ends the receiver. What was received and not committed stays for the next one. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    await this.#writing;
    this.#isClosed = true;
    await this.#entering;
    this.#freeReserved();
    this.#store.reception.park(this.#packs);
  }

  #freeReserved(): void {
    for (const packId of this.#reserved.splice(0)) this.#store.reception.free(packId);
  }

  async #checkReserve(bytes: number): Promise<void> {
    const place = this.#store.root;
    await checkReserve({ doing: 'receive a frame', place, bytes, reserveBytes: this.#reserveBytes });
  }

  /** Makes the open pack of a kind durable, and has it entered into the index. */
  async #publish(kind: PackKind_Value): Promise<void> {
    let pack: Awaited<ReturnType<ReceivedPacks['publish']>>;
    try {
      pack = await this.#packs.publish(kind);
    } catch (error) {
      // It may have its name already.
      this.#store.health.markStale();
      throw error;
    }
    if (pack?.published === undefined) return;
    const packId = hex(pack.published.packId);
    this.#store.reception.reserve(packId);
    this.#reserved.push(packId);
    this.#cost.storedBytes += pack.published.size;
    // Not awaited: the holder of the lock may wait for this write.
    this.#entering = Promise.all([
      this.#entering,
      this.#store.exclusively(() => enterReceived(this.#store, this.#packs)),
    ]).then(
      () => {},
      // The next change of the store enters it.
      () => this.#store.health.markStale(),
    );
  }

  /** Runs one write at a time, in the order of the calls. */
  async #serially<T>(run: () => Promise<T>): Promise<T> {
    const before = this.#writing;
    const running = before.then(async () => {
      if (this.#isClosed) throw new LightkeeperError('CANCELLED', 'Cannot receive: the receiver is closed');
      return await run();
    });
    // The next write waits for this one even if it fails; the caller receives the error.
    this.#writing = running.catch(() => {});
    return await running;
  }
}

/** Proves a frame of a peer. PEER_INVALID if a unit in it does not hash to its id. */
export async function proveReceived(prover: FrameProver, frame: Buffer, decodedBytes: number): Promise<void> {
  try {
    await prover.prove(frame, decodedBytes);
  } catch (error) {
    if (!(error instanceof LightkeeperError) || error.code !== 'DAMAGED') throw error;
    throw peerInvalid('a frame', error.message, error);
  }
}
