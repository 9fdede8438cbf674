import { readdirSync } from 'node:fs';
import { defaultGraphId, workspaceId } from '../../core/graph-id.ts';
import type { BytePath } from '../../core/path.ts';
import { realPathOf } from '../../host/real-path.ts';
import { below } from './names.ts';

/** Pattern of the files that LightRAG writes into a working directory and each workspace below it. */
const LIGHTRAG_FILE = /^(?:kv_store_.+\.json|vdb_.+\.json|graph_.+\.graphml|faiss_index_.+)$/;

/** Most names of a subfolder that are checked. */
// A workspace has about twelve.
const NAMES_MAX = 1000;

/**
 * Lists the workspaces in a directory: its direct subfolders with LightRAG's files. Empty if the directory cannot be
 * read.
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
    // The scan of the directory reports the error.
    return [];
  }
}

function holdsGraph(folder: Buffer): boolean {
  try {
    return readdirSync(folder)
      .slice(0, NAMES_MAX)
      .some((name) => LIGHTRAG_FILE.test(name));
  } catch {
    // It cannot be read or is gone. The scan of the whole directory reports that.
    return false;
  }
}

/** A graph and its directory. */
export interface GraphPlace {
  readonly graphId: string;
  readonly dir: Uint8Array;
}

/** Lists the graph of a directory and each workspace below it, which is the graph `ID.W`. */
export function splitGraph({ graphId, dir }: GraphPlace): GraphPlace[] {
  const id = graphId === '' ? defaultGraphId(realPathOf(dir)) : graphId;
  const workspaces = workspacesIn(dir).map((workspace) => ({
    graphId: workspaceId(id, workspace),
    dir: below(dir, workspace),
  }));
  return [{ graphId: id, dir }, ...workspaces];
}
