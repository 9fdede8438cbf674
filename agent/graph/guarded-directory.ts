import { realpathSync } from 'node:fs';
import { systemCode } from '../../core/errors.ts';
import type { BytePath } from '../../core/path.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import type { GraphSettings } from '../config/settings.ts';
import type { InstanceWatch } from '../instance/instance-watch.ts';

/** A directory that an agent guards. */
export interface GuardedDirectory {
  readonly settings: GraphSettings;
  /** Returns the direct subfolders that are guarded as graphs of their own. */
  readonly workspaces: () => ReadonlySet<BytePath>;
  /** Watch of its instance; undefined without one. */
  readonly watch: InstanceWatch | undefined;
  /** Present problems of how it is guarded. */
  readonly findings: readonly Finding[];
}

/** Returns the guards of a directory, compared by real path. */
export function guardsOf(guarded: readonly GuardedDirectory[], dir: Uint8Array): GuardedDirectory[] {
  const real = realPath(dir);
  if (real === undefined) return [];
  return guarded.filter(({ settings }) => realPath(settings.dir)?.equals(real) === true);
}

function realPath(dir: Uint8Array): Buffer | undefined {
  try {
    // Without `native`, Node takes the bytes for UTF-8.
    return realpathSync.native(Buffer.from(dir), { encoding: 'buffer' });
  } catch (error) {
    // A directory that does not exist has no guard.
    if (systemCode(error) !== undefined) return undefined;
    throw error;
  }
}
