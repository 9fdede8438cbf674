import type { FileSource } from '../snapshots/graph-files.ts';

/** Two states of one file; undefined for a state in which it does not exist. */
export interface FilePair {
  readonly before: FileSource | undefined;
  readonly after: FileSource | undefined;
}
