/** What a pack store knows of a pack without reading it. */
export interface PackHead {
  readonly size: number;
}

/** How a thread reads a pack on its own; see `PackBytes`. It can be sent to other threads. */
export type PackReference = { readonly file: string } | { readonly memory: SharedArrayBuffer };

/** Gives the bytes of packs: a pack store, later also a peer. */
export interface FrameSource {
  /** Returns bytes [offset, offset + length) of a pack, all of them. NOT_FOUND, or DAMAGED if it is shorter. */
  get(packId: string, offset: number, length: number): Promise<Buffer>;
  /** Returns the size of a pack; undefined if there is no such pack. */
  head(packId: string): Promise<PackHead | undefined>;
  /** Returns a reference for readers in other threads. Whether the pack exists shows when it is read. */
  reference(packId: string): PackReference;
}

/** A pack that is being written. It has no name yet, and no reader sees it. */
export interface PackSink {
  /** Appends bytes, which may be reused when this returns. `label` names the effect for tests. */
  append(label: string, bytes: Uint8Array): Promise<void>;
  /**
   * Makes the pack durable under its name: when this returns it survives a power loss. Returns false if it was there
   * already.
   */
  publish(label: string, packId: string): Promise<boolean>;
  /** Drops the pack. Never rejects: the next owner of the store removes what cannot be removed now. */
  discard(): Promise<void>;
}

/**
 * Holds packs: a folder now, object stores later. Packs are immutable and named by their SHA-256 (64 hex digits). One
 * contract suite runs on every implementation.
 */
export interface PackStore extends FrameSource {
  /** Begins a new pack. */
  create(label: string): Promise<PackSink>;
  /** Lists names and sizes, in order, of one shard ("00" to "ff") or of all. */
  list(shard?: string): AsyncIterable<{ packId: string; size: number }>;
  /** Returns something that changes with the names in a shard; undefined if the store cannot tell cheaply. */
  shardStamp(shard: string): Promise<string | undefined>;
  close(): Promise<void>;
}

/** A pack store from which packs can be removed. */
export interface PrunablePackStore extends PackStore {
  /** Removes packs. They are gone for good when this returns; a pack that was gone already is no error. */
  delete(packIds: readonly string[]): Promise<void>;
  /**
   * Copies a damaged pack to the quarantine, for people, and returns where it is. The pack stays: what is saved from it
   * may become a pack of the same name. `evict` takes it away afterwards.
   */
  quarantine(packId: string): Promise<string>;
  /** Takes a damaged pack away after `quarantine`. */
  evict(packId: string): Promise<void>;
}
