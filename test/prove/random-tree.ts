import { chmodSync, linkSync, lutimesSync, mkdirSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Random } from '../../demo/random.ts';

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

/**
 * A small directory with everything that a snapshot keeps; versions of one seed share most of their bytes. From
 * version to version `turn.bin` is another file, `grow.json` is longer, `old-N` goes and `new-N` comes.
 */
export function makeTree(dir: string, draw: Random, version: number): void {
  const put = (name: string, bytes: Uint8Array | string, mode = 0o644) => {
    mkdirSync(dirname(`${dir}/${name}`), { recursive: true });
    writeFileSync(raw(`${dir}/${name}`), bytes);
    chmodSync(raw(`${dir}/${name}`), mode);
  };
  mkdirSync(dir, { recursive: true });
  const fixed = someBytes(draw, 48_000);
  const chapters = Array.from({ length: 12 }, () => someBytes(draw, 6000));
  put('fixed.json', fixed, 0o600);
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
