import type { FileHandle } from 'node:fs/promises';

/** What a pack store tells of one pack. */
export interface PackHead {
  readonly size: number;
}

/** A complete pack in a local file, ready to be published. */
export interface SpooledPack {
  readonly path: string;
  readonly size: number;
}

/**
 * Where packs are kept: a folder now, object stores later. Packs are immutable and named by their SHA-256 (64
 * hex digits). One contract suite runs on every implementation.
 */
export interface PackStore {
  /**
   * Makes a pack durable under its name and takes the spooled file away. Answers false if it was there
   * already. When this returns, the pack survives a power loss.
   */
  putIfAbsent(packId: string, spooled: SpooledPack): Promise<boolean>;
  /** Bytes [offset, offset + length) of a pack, all of them. NOT_FOUND, or DAMAGED if it is shorter. */
  get(packId: string, offset: number, length: number): Promise<Buffer>;
  /** Undefined if there is no such pack. */
  head(packId: string): Promise<PackHead | undefined>;
  /** Names and sizes, in order, of one shard ("00" to "ff") or of all. */
  list(shard?: string): AsyncIterable<{ packId: string; size: number }>;
  /** Something that changes with the shard's names; undefined where the store cannot tell cheaply. */
  shardStamp(shard: string): Promise<string | undefined>;
  /** Removes a pack; that it is gone already is not an error. */
  delete(packId: string): Promise<void>;
  /** A new file to write a pack to, on the same filesystem where there is one. */
  spool(): Promise<{ path: string; file: FileHandle }>;
  /** The path of a pack for readers in other threads. */
  localPath(packId: string): string;
  close(): Promise<void>;
}
