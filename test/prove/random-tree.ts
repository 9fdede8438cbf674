import {
  chmodSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { generate } from '../../demo/generate.ts';
import { type Random, random } from '../../demo/random.ts';

/** The bytes of a path in which one character is a byte. */
export function raw(path: string): Buffer {
  return Buffer.from(path, 'latin1');
}

/** Bytes that compress to about a half, of any length. */
export function someBytes(draw: Random, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let i = 0; i < length; i++) bytes[i] = draw(16) === 0 ? draw(256) : 0x20 + draw(48);
  return bytes;
}

/** The version of a directory from which on its graph lacks half of its documents, which raises an alarm. */
export const SHRUNK_VERSION = 2;
const DOCUMENTS = { whole: 4, shrunk: 2 };

/** The files of a small graph by name, with all its documents and with half of them. */
export type Graphs = Readonly<Record<keyof typeof DOCUMENTS, ReadonlyMap<string, Buffer>>>;

async function graphFiles(seed: number, documents: number): Promise<ReadonlyMap<string, Buffer>> {
  const dir = mkdtempSync(join(tmpdir(), 'lightkeeper-graph-'));
  try {
    await generate(dir, { seed, documents, dimension: 8 });
    return new Map(readdirSync(dir).map((name) => [name, readFileSync(join(dir, name))]));
  } finally {
    rmSync(dir, { recursive: true });
  }
}

/** Makes the graphs of the directories of one seed. */
export async function makeGraphs(seed: number): Promise<Graphs> {
  return {
    whole: await graphFiles(seed, DOCUMENTS.whole),
    shrunk: await graphFiles(seed, DOCUMENTS.shrunk),
  };
}

/**
 * Makes a small directory of everything that a snapshot can hold; versions of one seed share most of their bytes. From
 * version to version `turn.bin` is another file, `grow.json` is longer, `new-N` goes and the next one comes; the graph
 * loses documents once.
 */
export function makeTree(
  dir: string,
  seed: number,
  { version, graphs }: { readonly version: number; readonly graphs: Graphs },
): void {
  const draw = random(seed);
  const put = (name: string, bytes: Uint8Array | string, mode = 0o644) => {
    mkdirSync(dirname(`${dir}/${name}`), { recursive: true });
    writeFileSync(raw(`${dir}/${name}`), bytes);
    chmodSync(raw(`${dir}/${name}`), mode);
  };
  mkdirSync(dir, { recursive: true });
  const fixed = someBytes(draw, 48_000);
  const chapters = Array.from({ length: 12 }, () => someBytes(draw, 6000));
  put('fixed.json', fixed, 0o600);
  for (const [name, bytes] of version < SHRUNK_VERSION ? graphs.whole : graphs.shrunk) put(name, bytes);
  put('grow.json', Buffer.concat(chapters.slice(0, 3 + version)));
  const turns = Array.from({ length: 8 }, () => someBytes(draw, 90_000));
  put('turn.bin', turns[version % turns.length] as Buffer, 0o640);
  put('sub/deep/leaf', `leaf ${version >> 1}`);
  put('sub/empty', '');
  put(`sub/new-${version}`, someBytes(draw, 3000));
  writeFileSync(raw(`${dir}/sub/\xff\xfe\n name`), 'no UTF-8, and a line feed');
  mkdirSync(`${dir}/hollow`, { mode: 0o700 });
  linkSync(`${dir}/sub/deep/leaf`, `${dir}/hard`);
  symlinkSync('sub/deep/leaf', `${dir}/soft`);
  lutimesSync(`${dir}/soft`, 1e9, 1e9 + version);
  utimesSync(`${dir}/fixed.json`, 1.1e9, 1.1e9 + 0.123456);
  utimesSync(`${dir}/sub`, 1.2e9, 1.2e9);
}
