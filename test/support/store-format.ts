// What docs/decisions/0001-store-format.md says of the bytes of a store, written down a second time.
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { crc32 } from 'node:zlib';

export const PACK_KINDS = { data: 1, meta: 2 } as const;
const HEADER_CRC_AT = 36;
/** Behind the footer: offset u64, length u32, CRC u32, SHA-256, magic. */
const TRAILER_HASH_FROM_END = 40;

function sha256(bytes: Uint8Array | string): Buffer {
  return createHash('sha256').update(bytes).digest();
}

/** Paths of the packs of a store, in order. */
export function packsOf(store: string, kind?: keyof typeof PACK_KINDS): string[] {
  const all = readdirSync(join(store, 'packs'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.pack'))
    .map((name) => join(store, 'packs', name))
    .sort();
  return kind === undefined ? all : all.filter((path) => readFileSync(path)[10] === PACK_KINDS[kind]);
}

/** Changes the header of a pack and gives it the checksums and the name that then are right. */
export function resealPack(path: string, change: (header: Buffer) => void): string {
  const bytes = readFileSync(path);
  change(bytes.subarray(0, HEADER_CRC_AT));
  bytes.writeUInt32LE(crc32(bytes.subarray(0, HEADER_CRC_AT)), HEADER_CRC_AT);
  const hashAt = bytes.length - TRAILER_HASH_FROM_END;
  sha256(bytes.subarray(0, hashAt)).copy(bytes, hashAt);
  const packId = sha256(bytes).toString('hex');
  const to = join(dirname(dirname(path)), packId.slice(0, 2), `${packId}.pack`);
  mkdirSync(dirname(to), { recursive: true });
  rmSync(path);
  writeFileSync(to, bytes);
  return to;
}

/** Changes what a store says of itself, in both copies, with sums that then are right. */
export function resealConfig(store: string, more: Readonly<Record<string, unknown>>): void {
  for (const name of ['config', 'config.copy']) {
    const path = join(store, name);
    const [line = ''] = readFileSync(path, 'utf8').split('\n');
    const changed = JSON.stringify({ ...(JSON.parse(line) as object), ...more });
    writeFileSync(path, `${changed}\nsha256 ${sha256(changed).toString('hex')}\n`);
  }
}
