import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';

/**
 * State of a pack. Units of a `lost` pack, which is missing or damaged, are stored again; units of a `condemned` pack,
 * which is about to be removed, can still be read.
 */
export type PackState = 'whole' | 'lost' | 'condemned' | 'lost-condemned';
export type PackEvent = 'lose' | 'recover' | 'condemn' | 'spare' | 'remove';

/** Next state of a pack for each state and event. */
export const PACK_TRANSITIONS: Readonly<Record<PackState, Readonly<Record<PackEvent, PackState>>>> = {
  whole: { lose: 'lost', recover: 'whole', condemn: 'condemned', spare: 'whole', remove: 'whole' },
  lost: { lose: 'lost', recover: 'whole', condemn: 'lost-condemned', spare: 'lost', remove: 'whole' },
  condemned: {
    lose: 'lost-condemned',
    recover: 'condemned',
    condemn: 'condemned',
    spare: 'whole',
    remove: 'whole',
  },
  'lost-condemned': {
    lose: 'lost-condemned',
    recover: 'condemned',
    condemn: 'lost-condemned',
    spare: 'lost',
    remove: 'whole',
  },
};

/**
 * State of a shard, one of the 256 folders of packs. A `written` shard can be stamped at close, so that the next open
 * does not list it; an `unsound` shard holds packs that are missing or cannot be read, and is listed at every open.
 */
export type ShardState = 'clean' | 'written' | 'unsound' | 'unsound-written';
export type ShardEvent = 'write' | 'find-whole' | 'find-broken' | 'stamp';

/** Next state of a shard for each state and event. */
export const SHARD_TRANSITIONS: Readonly<Record<ShardState, Readonly<Record<ShardEvent, ShardState>>>> = {
  clean: { write: 'written', 'find-whole': 'clean', 'find-broken': 'unsound', stamp: 'clean' },
  written: { write: 'written', 'find-whole': 'written', 'find-broken': 'unsound-written', stamp: 'clean' },
  unsound: { write: 'unsound-written', 'find-whole': 'clean', 'find-broken': 'unsound', stamp: 'unsound' },
  'unsound-written': {
    write: 'unsound-written',
    'find-whole': 'written',
    'find-broken': 'unsound-written',
    stamp: 'unsound',
  },
};

/** The health of an open store. Every change of a pack or shard is a transition of the tables above. */
export class StoreHealth {
  /** Findings of opening and checking the store, such as missing packs and damaged copies. */
  readonly findings: Finding[] = [];
  readonly #packs = new Map<number, PackState>();
  readonly #shards = new Map<string, ShardState>();
  #isStale = false;
  #losses = 0;

  /** Applies an event to a pack. */
  pack(pack: number, event: PackEvent): void {
    if (event !== 'recover' && event !== 'spare') this.#losses += 1;
    const state = PACK_TRANSITIONS[this.packState(pack)][event];
    if (state === 'whole') this.#packs.delete(pack);
    else this.#packs.set(pack, state);
  }

  /** Applies an event to a shard. */
  shard(shard: string, event: ShardEvent): void {
    const state = SHARD_TRANSITIONS[this.shardState(shard)][event];
    if (state === 'clean') this.#shards.delete(shard);
    else this.#shards.set(shard, state);
  }

  packState(pack: number): PackState {
    return this.#packs.get(pack) ?? 'whole';
  }

  shardState(shard: string): ShardState {
    return this.#shards.get(shard) ?? 'clean';
  }

  /** Reports whether new snapshots may refer to the units of a pack. */
  isWhole(pack: number): boolean {
    return !this.#packs.has(pack);
  }

  isLost(pack: number): boolean {
    return this.packState(pack).startsWith('lost');
  }

  isUnsound(shard: string): boolean {
    return this.shardState(shard).startsWith('unsound');
  }

  /** Returns the packs that are missing or damaged. */
  lostPacks(): number[] {
    return [...this.#packs.keys()].filter((pack) => this.isLost(pack));
  }

  /** Returns the number of shards that are not sound. */
  get unsoundShards(): number {
    return [...this.#shards.keys()].filter((shard) => this.isUnsound(shard)).length;
  }

  /** Returns the shards that this process wrote to and that can be stamped. */
  shardsToStamp(): string[] {
    return [...this.#shards].flatMap(([shard, state]) => (state === 'written' ? [shard] : []));
  }

  /** Number of times that units may have become unavailable. */
  // What was found complete before the last of them must be looked up again.
  get losses(): number {
    return this.#losses;
  }

  /** Whether the index may lack packs: a change failed after it may have published one. */
  get isStale(): boolean {
    return this.#isStale;
  }

  /** Records that the index must be compared with the packs before the next change. */
  markStale(): void {
    this.#isStale = true;
  }

  /** Records that the index is being compared with the packs. */
  markCurrent(): void {
    this.#isStale = false;
  }

  /** Drops the findings about the packs of a shard, or of all shards. */
  dropPackFindings(shard = ''): void {
    this.filterFindings(({ code, object }) => !(PACK_CODES.has(code) && object.startsWith(shard)));
  }

  /** Drops the findings that `isKept` rejects. */
  filterFindings(isKept: (finding: Finding) => boolean): void {
    this.findings.splice(0, this.findings.length, ...this.findings.filter(isKept));
  }

  /** Resets packs to whole and shards to sound. */
  // For an index that is rebuilt: it numbers the packs again, and reconciling it finds what is wrong.
  reset(): void {
    this.#packs.clear();
    this.#losses += 1;
    for (const shard of [...this.#shards.keys()]) this.shard(shard, 'find-whole');
  }
}

const PACK_CODES: ReadonlySet<string> = new Set(['pack_damaged', 'pack_missing']);
