import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { type QuietRecord, QuietRecordSchema } from '../../../gen/lightkeeper/index/v1/index_pb.ts';
import { type CheckedBatch, type CheckedLevel, writeBatch } from './checked-level.ts';
import { after, key, u32, u64 } from './keys.ts';

/** What the scrub knows of a pack. */
export interface ScrubTime {
  /** Time of its last read, or of when it was first seen, in milliseconds since 1970. */
  readonly sinceMs: number;
  readonly isRead: boolean;
}

/** The part of the index that is not in the packs: what this machine observed of its graphs and their units. */
// After a rebuild of the index it is empty.
export class LocalState {
  readonly #db: CheckedLevel;

  constructor(db: CheckedLevel) {
    this.#db = db;
  }

  /** Returns the change times of files from place `n * TIMES_PER_VALUE` on, encoded as in `change-times.ts`. */
  async changeTimes(graphId: string, n: number): Promise<Buffer | undefined> {
    return await this.#db.get(key('c', graphId, '\0', u32(n)));
  }

  putChangeTimes(batch: CheckedBatch, graphId: string, { n, times }: { n: number; times: Buffer }): void {
    batch.put(key('c', graphId, '\0', u32(n)), times);
  }

  /** Returns when a directory was last found equal to its newest snapshot, in milliseconds since 1970. */
  async confirmedAt(graphId: string): Promise<number | undefined> {
    const value = await this.#db.get(key('k', graphId));
    return value === undefined ? undefined : Number(value.readBigUInt64BE());
  }

  putConfirmedAt(batch: CheckedBatch, graphId: string, atMs: number): void {
    batch.put(key('k', graphId), u64(BigInt(Math.max(0, Math.floor(atMs)))));
  }

  /** Returns the observed pauses between the writes of a graph. */
  async quietRecord(graphId: string): Promise<QuietRecord | undefined> {
    const value = await this.#db.get(key('q', graphId));
    return value === undefined ? undefined : fromBinary(QuietRecordSchema, value);
  }

  putQuietRecord(batch: CheckedBatch, graphId: string, record: QuietRecord): void {
    batch.put(key('q', graphId), Buffer.from(toBinary(QuietRecordSchema, record)));
  }

  /** Yields what followers acknowledged: graph, name of the follower, and the record that was stored for them. */
  async *acknowledgements(): AsyncIterable<{ graphId: string; follower: string; value: Buffer }> {
    for await (const [at, value] of this.#db.iterator({ gte: key('f'), lt: after(key('f')) })) {
      const [graphId = '', follower = ''] = at.subarray(1).toString().split('\0');
      yield { graphId, follower, value };
    }
  }

  /** Records what a follower of a graph acknowledged. */
  putAcknowledgement(batch: CheckedBatch, names: { graphId: string; follower: string }, value: Buffer): void {
    batch.put(key('f', names.graphId, '\0', names.follower), value);
  }

  /** Returns when packs were last read by the scrub, or first seen by it, by their names. */
  async scrubTimes(): Promise<Map<string, ScrubTime>> {
    const found = new Map<string, ScrubTime>();
    const prefix = key('r');
    for await (const [at, value] of this.#db.iterator({ gte: prefix, lt: after(prefix) })) {
      const sinceMs = Number(value.readBigUInt64BE());
      found.set(at.toString('hex', 1), { sinceMs, isRead: value[8] === 1 });
    }
    return found;
  }

  putScrubTime(batch: CheckedBatch, packId: string, { sinceMs, isRead }: ScrubTime): void {
    const value = Buffer.concat([u64(BigInt(Math.max(0, Math.floor(sinceMs)))), Buffer.of(isRead ? 1 : 0)]);
    batch.put(key('r', Buffer.from(packId, 'hex')), value);
  }

  removeScrubTime(batch: CheckedBatch, packId: string): void {
    batch.del(key('r', Buffer.from(packId, 'hex')));
  }

  /** Returns when the scrub last read a pack or began, in milliseconds since 1970; undefined before. */
  async scrubbedAt(): Promise<number | undefined> {
    const value = await this.#db.get(key('m', 'scrubbed'));
    return value === undefined ? undefined : Number(value.readBigUInt64BE());
  }

  putScrubbedAt(batch: CheckedBatch, atMs: number): void {
    batch.put(key('m', 'scrubbed'), u64(BigInt(Math.max(0, Math.floor(atMs)))));
  }

  /** Reports whether units of snapshots were found missing or damaged. */
  async isIncomplete(): Promise<boolean> {
    return (await this.#db.get(key('m', 'distrusted'))) !== undefined;
  }

  /** Records that units are missing. No snapshot counts as complete until its units are looked up again. */
  async markIncomplete(): Promise<void> {
    const batch = this.#db.batch();
    batch.put(key('m', 'distrusted'), Buffer.alloc(0));
    const complete = key('w');
    for await (const at of this.#db.keys({ gte: complete, lt: after(complete) })) batch.del(at);
    await writeBatch('index:distrust', batch, { sync: true });
  }

  /** Records that no units are missing. */
  async markComplete(): Promise<void> {
    const batch = this.#db.batch();
    batch.del(key('m', 'distrusted'));
    await writeBatch('index:trust', batch, { sync: true });
  }

  /** Returns the digest of a graph's snapshot whose units were all looked up since units were found missing. */
  async completeDigest(graphId: string): Promise<Buffer | undefined> {
    return await this.#db.get(key('w', graphId));
  }

  putCompleteDigest(batch: CheckedBatch, graphId: string, digest: Uint8Array): void {
    batch.put(key('w', graphId), Buffer.from(digest));
  }
}
