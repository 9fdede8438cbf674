import type { Style } from './files.ts';

/** Releases of LightRAG that are imitated, the newest first. */
export const VERSIONS = ['1.5.7', '1.4.9.11'] as const;
export type Version = (typeof VERSIONS)[number];
export const NEWEST: Version = VERSIONS[0];

/** Returns how a version replaces a file. */
export function styleOf(version: Version): Style {
  return version === '1.4.9.11' ? 'in-place' : 'rename';
}
