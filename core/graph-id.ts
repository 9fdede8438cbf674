import { LightkeeperError } from './errors.ts';
import { type BytePath, pathBytes, pathFromBytes } from './path.ts';
import { hex, sha256 } from './unit.ts';

/** Most bytes of a graph id. */
const GRAPH_ID_BYTES_MAX = 128;
/** Hex digits of the hash that tells apart names with the same legal characters. */
const HASH_DIGITS = 8;
/** Most characters of a name before that hash. */
const STEM_CHARACTERS_MAX = GRAPH_ID_BYTES_MAX - HASH_DIGITS - 1;
const GRAPH_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/** Reports whether a name is a graph id. */
export function isGraphId(name: string): boolean {
  return GRAPH_ID.test(name);
}

/** Throws INVALID_ARGUMENT for a name that is not a graph id. */
export function checkGraphId(graphId: string): void {
  if (isGraphId(graphId)) return;
  throw new LightkeeperError(
    'INVALID_ARGUMENT',
    `Cannot use "${graphId}" as a graph id: it has other characters`,
    {
      hint: 'use letters, digits, ".", "_" and "-", at most 128, the first a letter or digit',
    },
  );
}

/** Returns the graph id for a name: the name itself if it is one, else its legal characters and a hash. */
// The hash is of the whole name, so that different names have different ids.
export function graphIdOf(name: BytePath): string {
  return isGraphId(name) ? name : hashedId(name);
}

/** Returns the default graph id of a directory, made from the last name of its path. */
export function defaultGraphId(dir: Uint8Array): string {
  const path = pathFromBytes(dir).replace(/\/+$/, '');
  return graphIdOf(path.slice(path.lastIndexOf('/') + 1));
}

/** Returns the graph id of a workspace below the directory of a graph. */
export function workspaceId(graphId: string, workspace: BytePath): string {
  const id = `${graphId}.${graphIdOf(workspace)}`;
  return isGraphId(id) ? id : hashedId(`${graphId}.${workspace}`);
}

function hashedId(name: BytePath): string {
  const legal = name.replace(/[^A-Za-z0-9._-]/g, '').replace(/^[._-]+/, '');
  const stem = legal === '' ? 'graph' : legal.slice(0, STEM_CHARACTERS_MAX);
  return `${stem}-${hex(sha256(pathBytes(name))).slice(0, HASH_DIGITS)}`;
}

/** Reports whether a graph id is that of a workspace below a graph. */
export function isWorkspaceOf(graphId: string, parentId: string): boolean {
  return graphId.startsWith(`${parentId}.`);
}
