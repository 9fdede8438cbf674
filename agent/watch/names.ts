import { sep } from 'node:path';
import { type BytePath, pathBytes } from '../../core/path.ts';

/** Pattern of the temporary files that LightRAG renames, and of its lock files. They are no part of the graph. */
const TRANSIENT = /(?:^|\/)(?:[^/]+\.tmp\.[0-9]+\.[0-9]+\.[0-9]+|\.lightrag_[^/]*lock)$/;
const TEMPORARY = /\.tmp\.[0-9]+\.[0-9]+\.[0-9]+$/;

/** Age in milliseconds below which a temporary file means that a flush is under way. */
export const FLUSH_AGE_MAX_MS = 60_000;

export { INCOMPLETE_MARK, OWN_FOLDER } from '../../core/path.ts';

/** Reports whether a name is one of LightRAG's temporary files. */
export function isTemporary(path: BytePath): boolean {
  return TEMPORARY.test(path);
}

/** Reports whether a name is one of LightRAG's temporary or lock files. */
export function isTransient(path: BytePath): boolean {
  return TRANSIENT.test(path);
}

/** Returns the absolute path of a name below a directory. */
export function below(dir: Uint8Array, path: BytePath): Buffer {
  return path === '' ? Buffer.from(dir) : Buffer.concat([dir, Buffer.from(sep), pathBytes(path)]);
}

/** Range of stored times: nanoseconds in 64 bits, from 1677 to 2262. */
const TIME_NS_MAX = 2n ** 63n - 1n;
const TIME_NS_MIN = -(2n ** 63n);

/** Returns the nearest time that can be stored. */
export function storableTime(ns: bigint): bigint {
  return ns > TIME_NS_MAX ? TIME_NS_MAX : ns < TIME_NS_MIN ? TIME_NS_MIN : ns;
}
