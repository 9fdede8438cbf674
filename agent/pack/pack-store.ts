/** Properties of a pack that are known without reading it. */
export interface PackHead {
  /** Length in bytes. */
  readonly size: number;
}

/** A reference by which any thread can open a pack; see `PackBytes`. */
export type PackReference = { readonly file: string } | { readonly memory: SharedArrayBuffer };

/** A source of the bytes of packs: a pack store, later also a peer. */
export interface FrameSource {
  /** Returns bytes [offset, offset + length) of a pack. NOT_FOUND if it does not exist, DAMAGED if it is shorter. */
  get(packId: string, offset: number, length: number): Promise<Buffer>;
  /** Returns the size of a pack; undefined if it does not exist. */
  head(packId: string): Promise<PackHead | undefined>;
  /** Returns a reference for readers in other threads. Does not check that the pack exists. */
  reference(packId: string): PackReference;
}

/** A pack that is being written, invisible to readers until it is published. */
export interface PackSink {
  /** Appends bytes, which may be reused when this returns. `label` names the effect for tests. */
  append(label: string, bytes: Uint8Array): Promise<void>;
  /**
   * Makes the pack durable under its name. Returns false if it existed. When this returns, the pack survives a power
   * loss.
   */
  publish(label: string, packId: string): Promise<boolean>;
  /** Returns bytes [offset, offset + length) of what was appended. */
  read(offset: number, length: number): Promise<Buffer>;
  /** Leaves the pack as it is, for the next owner of the store. Never rejects. */
  release(): Promise<void>;
  /** Drops the pack. Never rejects. */
  // The next owner of the store removes what cannot be removed now.
  discard(): Promise<void>;
}

/** A store of immutable packs, each named by its SHA-256 (64 hex digits). */
// One contract suite runs on every implementation.
export interface PackStore extends FrameSource {
  /** Begins a new pack. The next owner of the store finishes a `received` one that is not published. */
  create(label: string, options?: { received?: boolean }): Promise<PackSink>;
  /** Lists names and sizes, in order, of one shard ("00" to "ff") or of all. */
  list(shard?: string): AsyncIterable<{ packId: string; size: number }>;
  /** Returns a value that changes when the names in a shard change; undefined if that would be expensive. */
  shardStamp(shard: string): Promise<string | undefined>;
  close(): Promise<void>;
}

/** A pack store from which packs can be removed. */
export interface PrunablePackStore extends PackStore {
  /** Removes packs durably. Ignores packs that do not exist. */
  delete(packIds: readonly string[]): Promise<void>;
  /** Copies a damaged pack to the quarantine and returns the place of the copy. The pack itself stays. */
  // Its rescued units may form a pack of the same name, so `evict` removes it afterwards.
  quarantine(packId: string): Promise<string>;
  /** Removes a damaged pack after `quarantine`. */
  evict(packId: string): Promise<void>;
}
