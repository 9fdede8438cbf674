// A process that flushes a directory as LightRAG does, until it is killed: node flusher.ts STYLE DIR PAUSE-MS EVERY-MS.
// Each flush writes one generation into every file, two of them large, with the pause between those two. It says
// "ready" once the first generation is there.
import { createHash } from 'node:crypto';
import { closeSync, openSync, renameSync, writeSync } from 'node:fs';
import { join } from 'node:path';

const LARGE_BYTES = 60_000_000;
const BLOCK_BYTES = 1_000_000;
const SMALL_BYTES = 20_000;
const KV = ['kv_store_full_docs.json', 'kv_store_text_chunks.json'] as const;
const VECTORS = ['vdb_entities.json', 'vdb_relationships.json'] as const;
const GRAPH = 'graph_chunk_entity_relation.graphml';
/** In the order in which they are written, in place the graph last; the pause comes after the first large one. */
const NAMES = { inplace: [...KV, ...VECTORS, GRAPH], rename: [...KV, GRAPH, ...VECTORS] } as const;
const LARGE: ReadonlySet<string> = new Set(VECTORS);

const sleeper = new Int32Array(new SharedArrayBuffer(4));

function pause(ms: number): void {
  if (ms > 0) Atomics.wait(sleeper, 0, 0, ms);
}

/** The block at `index` of a file in a generation: all but a line of it is the same in the next. */
function block(name: string, generation: number, index: number, bytes: number): Buffer {
  const seed = createHash('sha256').update(`${name} ${index}`).digest('hex');
  const body = Buffer.from(seed.repeat(Math.ceil(bytes / seed.length))).subarray(0, bytes);
  Buffer.from(`generation ${String(generation).padStart(9, '0')}\n`).copy(body);
  return body;
}

function sizeOf(name: string): number {
  return LARGE.has(name) ? LARGE_BYTES : SMALL_BYTES;
}

/** The generation of a file, if it is whole: of the right length, with one generation in all of its blocks. */
export function generationOf(name: string, bytes: Buffer): number | 'cut' {
  if (bytes.length !== sizeOf(name)) return 'cut';
  let generation: number | undefined;
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
    const [, digits] = /^generation ([0-9]{9})\n/.exec(bytes.toString('latin1', at, at + 21)) ?? [];
    if (digits === undefined || (generation !== undefined && generation !== Number(digits))) return 'cut';
    generation = Number(digits);
  }
  return generation ?? 'cut';
}

/** The files of one directory. */
export const FLUSHED: readonly string[] = NAMES.rename;

function writeFile(path: string, name: string, generation: number): void {
  const fd = openSync(path, 'w');
  const bytes = sizeOf(name);
  for (let at = 0; at < bytes; at += BLOCK_BYTES) {
    writeSync(fd, block(name, generation, at / BLOCK_BYTES, Math.min(BLOCK_BYTES, bytes - at)));
  }
  closeSync(fd);
}

function flush(style: keyof typeof NAMES, dir: string, pauseMs: number, generation: number): void {
  for (const name of NAMES[style]) {
    const path = join(dir, name);
    if (style === 'inplace') writeFile(path, name, generation);
    else {
      const temporary = `${path}.tmp.${process.pid}.1.${generation}`;
      writeFile(temporary, name, generation);
      renameSync(temporary, path);
    }
    if (name === 'vdb_entities.json') pause(pauseMs);
  }
}

const [, , style, dir, pauseMs, everyMs] = process.argv;
if (style !== undefined && dir !== undefined && (style === 'inplace' || style === 'rename')) {
  for (let generation = 1; ; generation++) {
    const began = performance.now();
    flush(style, dir, generation === 1 ? 0 : Number(pauseMs), generation);
    if (generation === 1) process.stdout.write('ready\n');
    pause(Math.max(0, Number(everyMs) - (performance.now() - began)));
  }
}
