import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { epochOf } from '../../../core/position.ts';
import { type PositionEntry, PositionEntrySchema } from '../../../gen/lightkeeper/store/v1/manifest_pb.ts';
import type { CheckedBatch, CheckedLevel } from './checked-level.ts';
import { after, key, u64 } from './keys.ts';

/** Which entries of a position log to read, and in which order. */
export interface PositionRange {
  /** Reads only entries that lie after this one. */
  readonly after?: PositionEntry;
  /** Reads the newest entries first. */
  readonly reverse?: boolean;
}

function entryKey(entry: PositionEntry): Buffer {
  const { graphId, sequence, digest } = entry;
  return key('o', graphId, '\0', u64(epochOf(entry).number), u64(sequence), digest);
}

/** The part of the index that holds the positions of every graph, also those of deleted snapshots. */
export class PositionLog {
  readonly #db: CheckedLevel;

  constructor(db: CheckedLevel) {
    this.#db = db;
  }

  put(batch: CheckedBatch, entry: PositionEntry): void {
    const at = entryKey(entry);
    batch.put(at, Buffer.from(toBinary(PositionEntrySchema, entry)));
    batch.put(key('O', entry.digest), at);
  }

  /** Returns the position of the snapshot with this digest; undefined if no log has it. */
  async find(digest: Uint8Array): Promise<PositionEntry | undefined> {
    const at = await this.#db.get(key('O', digest));
    const value = at === undefined ? undefined : await this.#db.get(at);
    return value === undefined ? undefined : fromBinary(PositionEntrySchema, value);
  }

  /** Yields positions of a graph by epoch and sequence, the oldest first. */
  async *entries(graphId: string, range: PositionRange = {}): AsyncGenerator<PositionEntry> {
    const prefix = key('o', graphId, '\0');
    // The first key after that of an entry is that key and a zero byte.
    const gte = range.after === undefined ? prefix : Buffer.concat([entryKey(range.after), Buffer.alloc(1)]);
    for await (const value of this.#db.values({ gte, lt: after(prefix), reverse: range.reverse ?? false }))
      yield fromBinary(PositionEntrySchema, value);
  }

  /** Returns the ids of the graphs that have a position, sorted. */
  async graphs(): Promise<string[]> {
    const found: string[] = [];
    for (let gte = key('o'); ; ) {
      const [at] = await this.#db.keyList({ gte, lt: after(key('o')), limit: 1 });
      if (at === undefined) return found;
      const graphId = at.subarray(1, at.indexOf(0)).toString();
      found.push(graphId);
      gte = after(key('o', graphId, '\0'));
    }
  }
}
