import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ioError, LightkeeperError, systemCode } from '../../core/errors.ts';
import { NEWEST, type Version } from '../version.ts';
import { STATUS } from '../write-order.ts';
import { type Graph, readGraph } from './graph.ts';
import { GRAPH_NAME, Memory, type Store, type Value, VDB_NAMES, type VdbName } from './memory.ts';
import { parseVectors, readVectors, type Vectors } from './vectors.ts';

const DEFAULT_DIMENSION = 1024;

/** Reports whether `dir` is empty or absent. */
export async function isEmpty(dir: string): Promise<boolean> {
  try {
    return (await readdir(dir)).length === 0;
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return true;
    throw ioError('read', dir, error);
  }
}

/**
 * Loads every file of a working directory, as a server does when it starts. Absent files are empty.
 *
 * Throws DAMAGED with the file's name if it cannot be parsed or its vectors are inconsistent.
 */
export async function load(
  dir: string,
  dimension: number | undefined,
  version: Version = NEWEST,
): Promise<Memory> {
  const stores = new Map<string, Store>();
  const vectors = new Map<VdbName, Vectors>();
  let graph: Graph | undefined;
  for (const name of (await readdir(dir)).sort()) {
    const path = join(dir, name);
    const vdb = VDB_NAMES.find((one) => one === name);
    if (vdb !== undefined)
      vectors.set(vdb, await parsed(path, (text) => readVectors(objectOf(text, parseVectors))));
    else if (/^kv_store_.*\.json$/.test(name)) stores.set(name, await parsed(path, readStore));
    else if (name === GRAPH_NAME) graph = await parsed(path, readGraph);
  }
  if (version === '1.4.9.11') refuseNewer(dir, stores.get(STATUS));
  return new Memory(oneDimension(dir, vectors, dimension), stores, vectors, graph);
}

/** Throws DAMAGED if a newer version has written the documents' status. */
// The older one fails at the first field that it does not know.
function refuseNewer(dir: string, statuses: Store | undefined): void {
  const newer = [...(statuses?.values() ?? [])].some((status) => 'content_hash' in status);
  if (!newer) return;
  const state = "DocProcessingStatus.__init__() got an unexpected keyword argument 'content_hash'";
  throw damaged(join(dir, STATUS), state);
}

function oneDimension(
  dir: string,
  vectors: ReadonlyMap<VdbName, Vectors>,
  wanted: number | undefined,
): number {
  const [first, ...rest] = vectors;
  const expected = wanted ?? first?.[1].dimension ?? DEFAULT_DIMENSION;
  for (const [name, { dimension }] of first === undefined ? [] : [first, ...rest]) {
    if (dimension !== expected) {
      throw damaged(join(dir, name), `its vectors have ${dimension} dimensions, not ${expected}`);
    }
  }
  return expected;
}

async function parsed<T>(path: string, parse: (text: string) => T): Promise<T> {
  const bytes = await readFile(path).catch((error: unknown) => {
    throw ioError('load', path, error);
  });
  if (bytes.length === 0) throw damaged(path, 'it is empty');
  try {
    return parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch (error) {
    throw damaged(path, error instanceof Error ? error.message : String(error), error);
  }
}

function readStore(text: string): Store {
  const entries = Object.entries(objectOf(text));
  const bad = entries.find(([, value]) => typeof value !== 'object' || value === null);
  if (bad !== undefined) throw new Error(`the entry "${bad[0]}" is not an object`);
  return new Map(entries as [string, Value][]);
}

function objectOf(text: string, parse: (text: string) => unknown = JSON.parse): object {
  let value: unknown;
  try {
    value = parse(text);
  } catch (error) {
    throw new Error('it is cut or not JSON', { cause: error });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new Error('it is not an object');
  return value;
}

function damaged(path: string, state: string, cause?: unknown): LightkeeperError {
  return new LightkeeperError('DAMAGED', `Cannot load "${path}": ${state}`, {
    hint: 'restore the directory from a snapshot, then start again',
    cause,
  });
}
