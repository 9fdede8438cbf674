import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createRequire } from 'node:module';
import { describe, test } from 'node:test';
import { promisify } from 'node:util';
import type * as Binding from 'zstd-napi/binding.js';
import {
  compressedCap,
  compressInto,
  decompressInto,
  dropContexts,
  loadNapiZstd,
  loadNodeZstd,
  type Zstd,
} from '../../../agent/pack/zstd.ts';
import { LightkeeperError } from '../../../core/errors.ts';
import { NO_REGISTRY, newerNode } from '../../support/newer-node.ts';

function napiZstd(): Zstd | undefined {
  try {
    return loadNapiZstd();
  } catch {
    return undefined; // An optional dependency.
  }
}

const napi = napiZstd();
const node = loadNodeZstd();
const implementations = Object.entries({ 'zstd-napi': napi, 'node:zlib': node }).flatMap(([name, zstd]) =>
  zstd === undefined ? [] : [{ name, zstd }],
);
const LACKING = {
  napi: napi === undefined ? 'zstd-napi is not compiled' : false,
};

/** Bytes that compress to about half, the same at each call. */
function sample(length: number): Buffer {
  const hashes: string[] = [];
  for (let i = 0; i * 64 < length; i++) hashes.push(createHash('sha256').update(`${i}`).digest('hex'));
  return Buffer.from(hashes.join('').slice(0, length));
}

function compressed(zstd: Zstd, bytes: Uint8Array, level: number): Buffer {
  const out = Buffer.alloc(compressedCap(bytes.length));
  return out.subarray(0, zstd.compress(out, bytes, { level }));
}

const CAP = 1 << 20;
const BOMB_BYTES = 64 << 20;
const GROWTH_BYTES_MAX = 16 << 20;

for (const { name, zstd } of implementations) {
  describe(`zstd by ${name}`, () => {
    const bytes = sample(100_000);
    const frame = compressed(zstd, bytes, 7);
    const fails = (out: Buffer, stored: Uint8Array) => {
      let length: number;
      try {
        length = zstd.decompress(out, stored);
      } catch {
        return true; // It may also return another length, which decompressInto refuses.
      }
      return length !== out.length;
    };

    test('decompresses what it compressed, of any length and level', () => {
      for (const length of [0, 1, 63, 64, 1000, 131_072, 1_500_000]) {
        for (const level of [1, 7]) {
          const raw = sample(length);
          const out = Buffer.alloc(length);
          assert.equal(zstd.decompress(out, compressed(zstd, raw, level)), length);
          assert.equal(out.equals(raw), true, `${length} bytes at level ${level}`);
        }
      }
    });

    test('still works after its contexts were dropped', () => {
      zstd.dropContexts();
      const out = Buffer.alloc(bytes.length);
      assert.equal(zstd.decompress(out, compressed(zstd, bytes, 1)), bytes.length);
    });

    test('reads and writes memory that threads share', () => {
      const shared = (length: number) => new Uint8Array(new SharedArrayBuffer(length));
      const raw = shared(bytes.length);
      raw.set(bytes);
      const stored = shared(compressedCap(raw.length));
      const length = zstd.compress(stored, raw, { level: 1 });
      const out = shared(raw.length);
      assert.equal(zstd.decompress(out, stored.subarray(0, length)), raw.length);
      assert.equal(bytes.equals(out), true);
    });

    test('refuses a frame that is cut, continued, changed or of another length', () => {
      const out = Buffer.alloc(bytes.length);
      for (const cut of [0, 1, 5, 20, frame.length - 1])
        assert.equal(fails(out, frame.subarray(0, cut)), true);
      assert.equal(fails(out, Buffer.concat([frame, Buffer.from('more')])), true);
      assert.equal(fails(out, Buffer.concat([Buffer.from('more'), frame])), true);
      assert.equal(fails(Buffer.alloc(bytes.length - 1), frame), true);
      assert.equal(fails(Buffer.alloc(bytes.length + 1), frame), true);
      assert.equal(fails(out, frame), false);
    });

    test('allocates no more than the caller expects, whatever a frame holds', () => {
      const bomb = compressed(zstd, Buffer.alloc(BOMB_BYTES), 1);
      const out = Buffer.alloc(CAP);
      fails(out, frame);
      const before = process.memoryUsage();
      assert.equal(fails(out, bomb), true);
      const after = process.memoryUsage();
      assert.ok(after.rss - before.rss < GROWTH_BYTES_MAX, `${after.rss - before.rss} bytes more`);
      assert.ok(after.arrayBuffers - before.arrayBuffers < 2 * CAP + 1024);
    });
  });
}

describe('two implementations of zstd', () => {
  // Where this Node has only one of them, the last test of this file runs the file under a newer Node.
  if (napi !== undefined && node !== undefined) {
    const [one, other] = [napi, node];
    test('read each other, and agree on the length', () => {
      for (const length of [0, 1, 1000, 131_072, 4 << 20]) {
        const raw = sample(length);
        for (const level of [1, 7]) {
          const pairs: readonly (readonly [Zstd, Zstd])[] = [
            [one, other],
            [other, one],
          ];
          for (const [from, to] of pairs) {
            const out = Buffer.alloc(length);
            assert.equal(to.decompress(out, compressed(from, raw, level)), length);
            assert.equal(out.equals(raw), true, `${length} bytes at level ${level}`);
          }
        }
      }
    });
  }

  test('need no more room than zstd itself says', { skip: LACKING.napi }, () => {
    const binding = createRequire(import.meta.url)('zstd-napi/binding.js') as typeof Binding;
    for (const length of [0, 1, 4095, 131_071, 131_072, 131_073, 4 << 20, 64 << 20])
      assert.equal(compressedCap(length), binding.compressBound(length), `${length}`);
  });

  // This test file again, in a Node that has both; there, this test is not registered.
  if (node === undefined) {
    test('agree in a newer Node', { skip: LACKING.napi }, async (t) => {
      const newer = await newerNode();
      if (newer === undefined) {
        t.skip(NO_REGISTRY);
        return;
      }
      const { NODE_TEST_CONTEXT: _, ...env } = process.env;
      const words = ['--import', 'tsx', '--test', '--test-reporter', 'tap', import.meta.filename];
      const { stdout } = await promisify(execFile)(newer, words, { env });
      assert.match(stdout, /^# fail 0$/m);
      assert.match(stdout, /ok \d+ - read each other, and agree on the length$/m);
    });
  }
});

describe('what the store compresses with', () => {
  test('calls any other length damage', () => {
    const bytes = sample(5000);
    const out = Buffer.alloc(compressedCap(bytes.length));
    const frame = out.subarray(0, compressInto(out, bytes, { bulk: true }));
    const back = Buffer.alloc(bytes.length);
    decompressInto(back, frame);
    assert.equal(back.equals(bytes), true);
    dropContexts();
    const isDamage = (error: unknown) => error instanceof LightkeeperError && error.code === 'DAMAGED';
    assert.throws(() => decompressInto(Buffer.alloc(4999), frame), isDamage);
    assert.throws(() => decompressInto(Buffer.alloc(5001), frame), isDamage);
    assert.throws(() => decompressInto(back, frame.subarray(1)), isDamage);
  });
});
