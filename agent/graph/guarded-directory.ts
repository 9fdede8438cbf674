import type { BytePath } from '../../core/path.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { isSameDirectory } from '../../host/real-path.ts';
import type { AgentSettings, GraphSettings } from '../config/settings.ts';
import type { InstanceWatch } from '../instance/instance-watch.ts';

/** A directory that an agent guards. */
export interface GuardedDirectory {
  readonly settings: GraphSettings;
  /** Settings of its agent that concern every graph. */
  readonly common: Pick<AgentSettings, 'reserveBytes'>;
  /** Returns the direct subfolders that are guarded as graphs of their own. */
  readonly workspaces: () => ReadonlySet<BytePath>;
  /** Watch of its instance; undefined without one. */
  readonly watch: InstanceWatch | undefined;
  /** Present problems of how it is guarded. */
  readonly findings: readonly Finding[];
}

/** Returns the guards of a directory, whatever path names it. */
export function guardsOf(guarded: readonly GuardedDirectory[], dir: Uint8Array): GuardedDirectory[] {
  return guarded.filter(({ settings }) => isSameDirectory(settings.dir, dir));
}
