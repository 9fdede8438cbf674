import { LightkeeperError } from '../errors.ts';

/** Longer strings are not held: of those only their length is known, and their bytes pass by in pieces. */
export const HELD_BYTES_MAX = 64 * 1024;

/** What is wrong with the layout of a file. */
export type Flaw = 'empty' | 'cut' | 'malformed';

/** A file that is not in its layout: DAMAGED, with the kind of flaw and the place. */
export class LayoutError extends LightkeeperError {
  readonly flaw: Flaw;
  /** Where, in bytes from the start of the file. */
  readonly at: number;

  constructor(flaw: Flaw, at: number, state: string) {
    super('DAMAGED', `Cannot read the file at byte ${at}: ${state}`);
    this.flaw = flaw;
    this.at = at;
  }
}

/** What is said of a record whose name is too long to be held. */
export function longName(): LayoutError {
  return new LayoutError('malformed', 0, 'a record has a name of more than 64 KiB');
}

/** Reads a file that comes in chunks; the chunks are not kept. */
export interface ChunkReader {
  /** Throws `LayoutError`. */
  feed(chunk: Buffer): void;
  /** The file has ended. Throws `LayoutError` if it ended too early. */
  end(): void;
}
