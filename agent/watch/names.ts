import { sep } from 'node:path';
import { type BytePath, pathBytes } from '../../core/path.ts';

/** Temporary siblings that LightRAG writes and renames, and its lock files: never a part of the graph. */
export const NEVER = /(?:^|\/)(?:[^/]+\.tmp\.[0-9]+\.[0-9]+\.[0-9]+|\.lightrag_[^/]*lock)$/;
export const TEMP = /\.tmp\.[0-9]+\.[0-9]+\.[0-9]+$/;

/** A younger temporary sibling means that a flush is under way. */
export const TEMP_YOUNG_MS = 60000;
export const OWN_FOLDER = '.lightkeeper';

/** In a directory that was there before, this file says that a restore to it has not ended. */
export const INCOMPLETE_MARK = '.lightkeeper-incomplete';

/** Whether a name is a temporary sibling, which a writer will rename or has left behind. */
export function isTemp(path: BytePath): boolean {
  return TEMP.test(path);
}

/** Whether a name is one of LightRAG's temporary or lock files. */
export function isNever(path: BytePath): boolean {
  return NEVER.test(path);
}

/** The absolute bytes of a path below a directory. */
export function below(dir: Uint8Array, path: BytePath): Buffer {
  return path === '' ? Buffer.from(dir) : Buffer.concat([dir, Buffer.from(sep), pathBytes(path)]);
}

/** Times are kept in nanoseconds, in 64 bits: until the year 2262. */
export const TIME_NS_MAX = 2n ** 63n - 1n;
export const TIME_NS_MIN = -(2n ** 63n);

/** The nearest time that can be stored. */
export function keptTime(ns: bigint): bigint {
  return ns > TIME_NS_MAX ? TIME_NS_MAX : ns < TIME_NS_MIN ? TIME_NS_MIN : ns;
}
