import { type BigIntStats, statSync } from 'node:fs';
import { basename, isAbsolute, join } from 'node:path';
import type { BytePath } from '../../core/path.ts';
import type { Instance } from '../../gen/lightkeeper/v1/types_pb.ts';
import { workspacesIn } from '../watch/workspaces.ts';

/** The directory of a graph, and the workspace that it is. */
export interface GraphDirectory {
  readonly dir: Uint8Array;
  /** Name of its folder, if it is a workspace below a guarded directory. */
  readonly workspace?: BytePath | undefined;
}

/**
 * Returns the directory that an instance serves, as it names it, if that is known to be another one than that of the
 * graph; undefined if it is the same or cannot be compared.
 */
// In a container the working directory has another path, which may not exist here: then only workspaces tell.
export function otherDirectory(instance: Instance, graph: GraphDirectory): string | undefined {
  const { workingDir, workspace } = instance;
  const folders = workspace === '' ? [''] : workspaceFolders(workspace);
  const served = join(workingDir, folders[0] ?? '');
  const guarded = statOf(Buffer.from(graph.dir));
  if (isAbsolute(workingDir) && statOf(workingDir) !== undefined && guarded !== undefined) {
    const isSame = folders.some((folder) => isSameFolder(statOf(join(workingDir, folder)), guarded));
    return isSame ? undefined : served;
  }
  return isOtherWorkspace(folders, graph) ? served : undefined;
}

/** Returns the folders that a workspace may have: its name, and what newer servers make of it. */
export function workspaceFolders(workspace: string): string[] {
  return [...new Set([workspace, workspace.replace(/[^A-Za-z0-9_]/g, '_')])];
}

function isOtherWorkspace(folders: readonly string[], { dir, workspace }: GraphDirectory): boolean {
  const names = folders.map((folder) => Buffer.from(folder).toString('latin1'));
  if (workspace !== undefined) return !names.includes(workspace);
  if (names.includes('') || folders.includes(basename(Buffer.from(dir).toString()))) return false;
  // It serves a workspace below this directory.
  return workspacesIn(dir).some((found) => names.includes(found));
}

function statOf(path: string | Buffer): BigIntStats | undefined {
  try {
    return statSync(path, { bigint: true });
  } catch {
    // It does not exist here or cannot be accessed.
    return undefined;
  }
}

function isSameFolder(a: BigIntStats | undefined, b: BigIntStats): boolean {
  return a !== undefined && a.ino === b.ino && a.dev === b.dev;
}
