import { createCipheriv, createHash } from 'node:crypto';
import { mkdirSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** Bytes that no compressor makes smaller, the same for the same seed. */
export function noise(seed: string | number, length: number): Buffer {
  const key = createHash('sha256').update(String(seed)).digest();
  return createCipheriv('aes-128-ctr', key.subarray(0, 16), key.subarray(16)).update(Buffer.alloc(length));
}

/** Writes files, with the folders above them, by their paths. */
export function fill(dir: string, files: Readonly<Record<string, string | Uint8Array>>): void {
  mkdirSync(dir, { recursive: true });
  for (const [path, content] of Object.entries(files)) {
    const place = join(dir, path);
    mkdirSync(dirname(place), { recursive: true });
    writeFileSync(place, content);
  }
}

/** What a small directory of a graph looks like: two files and a folder. */
export function fillGraph(dir: string, version = 1): void {
  fill(dir, {
    'kv_store_notes.json': JSON.stringify({ version, text: 'a'.repeat(2000 + version) }),
    'graph.graphml': `<graphml>${version}</graphml>`,
    'blobs/noise': noise(version, 200_000),
  });
}

/** Thousands of small files in folders of a thousand. */
export function fillMany(dir: string, count: number): void {
  for (let i = 0; i < count; i++) {
    const folder = join(dir, `f${Math.floor(i / 1000)}`);
    if (i % 1000 === 0) mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, `n${i}`), `${i}\n`);
  }
}

/** Sets a file's times; seconds before 1970 are negative. */
export function setTime(path: string, seconds: number): void {
  // As a number, Node takes a time before 1970 for "now".
  utimesSync(path, String(seconds), String(seconds));
}
