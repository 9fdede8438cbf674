import { readdirSync } from 'node:fs';
import { basename } from 'node:path';
import { graphIdOf } from '../../core/manifest.ts';
import type { BytePath } from '../../core/path.ts';
import { below } from './names.ts';

/** Names of the files that LightRAG keeps in a working directory, and in each workspace below it. */
const LIGHTRAG_FILE = /^(?:kv_store_.+\.json|vdb_.+\.json|graph_.+\.graphml)$/;

/** Names of a subfolder that are looked at: a workspace has about twelve. */
const NAMES_LOOKED_AT = 1000;

/**
 * The direct subfolders of a directory that hold LightRAG's files: workspaces, each a graph of its own. Empty
 * where the directory cannot be read.
 */
export function workspacesIn(dir: Uint8Array): BytePath[] {
  return foldersIn(dir).filter((folder) => holdsGraph(below(dir, folder)));
}

function foldersIn(dir: Uint8Array): BytePath[] {
  try {
    return readdirSync(Buffer.from(dir), { withFileTypes: true, encoding: 'buffer' })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => name.toString('latin1'))
      .filter((name) => !name.startsWith('.'))
      .sort();
  } catch {
    // What is wrong with the directory the scan will say.
    return [];
  }
}

function holdsGraph(folder: Buffer): boolean {
  try {
    return readdirSync(folder)
      .slice(0, NAMES_LOOKED_AT)
      .some((name) => LIGHTRAG_FILE.test(name));
  } catch {
    // Not to be read, or gone: the scan of the whole directory says so.
    return false;
  }
}

/** A graph and its directory. */
export interface GraphPlace {
  readonly graphId: string;
  readonly dir: Uint8Array;
}

/** A graph, and each workspace below it as a graph of its own: `ID.W`. */
export function splitGraph({ graphId, dir }: GraphPlace): GraphPlace[] {
  const id = graphId === '' ? graphIdOf(basename(Buffer.from(dir).toString())) : graphId;
  const workspaces = workspacesIn(dir).map((workspace) => ({
    graphId: workspaceId(id, workspace),
    dir: below(dir, workspace),
  }));
  return [{ graphId: id, dir }, ...workspaces];
}

/** The graph id of a workspace. */
export function workspaceId(graphId: string, workspace: BytePath): string {
  return graphIdOf(`${graphId}.${Buffer.from(workspace, 'latin1').toString()}`);
}
