import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt';
import fc from 'fast-check';
import { LightkeeperError } from '../../core/errors.ts';
import { LIST_DEPTH_MAX, NODE_REF_BYTES } from '../../core/list.ts';
import {
  capturedMs,
  captureTime,
  MANIFEST_FORMAT,
  parseFileList,
  parseManifest,
  SNAPSHOT_ID_DIGITS,
  snapshotIdOf,
} from '../../core/manifest.ts';
import {
  type FileEntry,
  type FileEntrySchema,
  FileListSchema,
  type Manifest,
  ManifestSchema,
} from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { FileType_Value } from '../../gen/lightkeeper/v1/types_pb.ts';

const DIGEST = Uint8Array.from({ length: 32 }, (_, i) => i);

// ----- manifests -----

type ManifestInit = Exclude<MessageInitShape<typeof ManifestSchema>, Manifest>;

const WHOLE = {
  format: MANIFEST_FORMAT,
  graphId: 'main',
  epoch: { number: 1n, mintId: new Uint8Array(16) },
  sequence: 1n,
  capturedAt: timestampFromMs(1_700_000_000_000),
  files: { depth: 0, entries: new Uint8Array(NODE_REF_BYTES), count: 1n },
} satisfies MessageInitShape<typeof ManifestSchema>;

function manifest(change: ManifestInit = {}): Uint8Array {
  return toBinary(ManifestSchema, create(ManifestSchema, { ...WHOLE, ...change }));
}

function without(field: 'capturedAt' | 'files'): Uint8Array {
  const message = create(ManifestSchema, WHOLE);
  delete message[field];
  return toBinary(ManifestSchema, message);
}

function refuses(run: () => unknown, code: string, why?: string): void {
  assert.throws(run, (error) => {
    assert.ok(error instanceof LightkeeperError, String(error));
    assert.equal(error.code, code, why);
    assert.match(error.message, /^Cannot /);
    return true;
  });
}

describe('a manifest', () => {
  it('is read as written', () => {
    const read = parseManifest(manifest({ parentDigest: DIGEST, description: 'x' }));
    assert.equal(read.graphId, 'main');
    assert.deepEqual(read.parentDigest, DIGEST);
    assert.equal(capturedMs(read), 1_700_000_000_000);
  });

  it('of a newer format is refused with a hint', () => {
    assert.throws(() => parseManifest(manifest({ format: MANIFEST_FORMAT + 1 })), {
      code: 'TOO_NEW',
      hint: /newer/,
    });
  });

  it('with an unknown field is read', () => {
    const unknown = Buffer.from([0xfa, 0x3f, 1, 0]);
    assert.equal(parseManifest(Buffer.concat([manifest(), unknown])).graphId, 'main');
  });

  it('with impossible values is refused', () => {
    const wrong: [string, Uint8Array][] = [
      ['empty', new Uint8Array()],
      ['format 0', manifest({ format: 0 })],
      ['no graph', manifest({ graphId: '' })],
      ['a graph id with a slash', manifest({ graphId: '../x' })],
      ['a graph id with a line feed', manifest({ graphId: 'a\n' })],
      ['a short mint id', manifest({ epoch: { number: 1n, mintId: new Uint8Array(15) } })],
      ['no mint id', manifest({ epoch: { number: 1n, mintId: new Uint8Array() } })],
      ['a short parent digest', manifest({ parentDigest: new Uint8Array(31) })],
      ['a long parent digest', manifest({ parentDigest: new Uint8Array(33) })],
      ['no time', without('capturedAt')],
      ['no list of files', without('files')],
      ['half an entry', manifest({ files: { entries: new Uint8Array(NODE_REF_BYTES + 1) } })],
      ['too deep a list', manifest({ files: { depth: LIST_DEPTH_MAX + 1 } })],
    ];
    for (const [why, bytes] of wrong) refuses(() => parseManifest(bytes), 'DAMAGED', why);
  });

  it('from mutated bytes is read or refused', () => {
    const whole = manifest({ parentDigest: DIGEST });
    const cut = fc.nat({ max: whole.length }).map((length) => whole.subarray(0, length));
    const flipped = fc
      .tuple(fc.nat({ max: whole.length - 1 }), fc.integer({ min: 1, max: 255 }))
      .map(([i, x]) => {
        const bytes = Uint8Array.from(whole);
        bytes[i] = (bytes[i] ?? 0) ^ x;
        return bytes;
      });
    const check = (bytes: Uint8Array) => {
      try {
        parseManifest(bytes);
      } catch (error) {
        assert.ok(error instanceof LightkeeperError, String(error));
        assert.equal(['DAMAGED', 'TOO_NEW', 'TOO_OLD'].includes(error.code), true);
      }
    };
    fc.assert(fc.property(fc.oneof(cut, flipped, fc.uint8Array({ maxLength: 200 })), check), {
      numRuns: 2000,
    });
  });
});

// ----- lists of files -----

type FileInit = Exclude<MessageInitShape<typeof FileEntrySchema>, FileEntry>;

function file(path: string, change: FileInit = {}): FileInit {
  const type = FileType_Value.REGULAR;
  return { path: Buffer.from(path, 'latin1'), type, content: { depth: 0 }, ...change };
}

function fileList(files: readonly FileInit[]): Uint8Array {
  return toBinary(FileListSchema, create(FileListSchema, { files: [...files] }));
}

describe('a list of files', () => {
  it('is read in the order of its paths, whatever their types', () => {
    const files = [
      file('a', { type: FileType_Value.DIRECTORY }),
      file('a/b'),
      file('a\x80'),
      file('b', { type: FileType_Value.SYMLINK, target: Buffer.from('/anywhere') }),
      file('c', { type: FileType_Value.HARD_LINK, target: Buffer.from('a/b') }),
    ];
    const paths = parseFileList(fileList(files), '').map(({ path }) => Buffer.from(path).toString('latin1'));
    assert.deepEqual(paths, ['a', 'a/b', 'a\x80', 'b', 'c']);
    assert.deepEqual(parseFileList(fileList([]), 'z'), []);
  });

  it('that leads out of its folder is refused', () => {
    for (const path of ['', '/a', '../a', 'a/../b', 'a//b', 'a/', 'a\0', 'x'.repeat(256)])
      refuses(() => parseFileList(fileList([file(path)]), ''), 'DAMAGED', path);
    for (const target of ['', '/etc/passwd', '../a', 'a\0']) {
      const link = file('a', { type: FileType_Value.HARD_LINK, target: Buffer.from(target) });
      refuses(() => parseFileList(fileList([link]), ''), 'DAMAGED', target);
    }
  });

  it('that is out of order, or names a path twice, is refused', () => {
    refuses(() => parseFileList(fileList([file('b'), file('a')]), ''), 'DAMAGED');
    refuses(() => parseFileList(fileList([file('a'), file('a')]), ''), 'DAMAGED');
    refuses(() => parseFileList(fileList([file('a')]), 'a'), 'DAMAGED');
    refuses(() => parseFileList(fileList([file('a')]), 'b'), 'DAMAGED');
    assert.equal(parseFileList(fileList([file('b')]), 'a').length, 1);
  });

  it('with a file that has no content is refused', () => {
    const bare = { path: Buffer.from('a') };
    refuses(() => parseFileList(fileList([bare]), ''), 'DAMAGED');
    const half = file('a', { content: { entries: new Uint8Array(39) } });
    refuses(() => parseFileList(fileList([half]), ''), 'DAMAGED');
  });

  it('with an unknown type is refused', () => {
    const odd = file('a', { type: 5 as FileType_Value, target: Buffer.from('../../etc/passwd') });
    refuses(() => parseFileList(fileList([odd]), ''), 'DAMAGED');
  });

  it('that does not parse is refused', () => {
    refuses(() => parseFileList(Buffer.from([0xff, 0xff, 0xff]), ''), 'DAMAGED');
  });
});

// ----- ids and times -----

describe('a snapshot', () => {
  it('has the first 32 hex digits of its digest as id', () => {
    assert.equal(snapshotIdOf(DIGEST), '000102030405060708090a0b0c0d0e0f');
    assert.equal(snapshotIdOf(DIGEST).length, SNAPSHOT_ID_DIGITS);
  });

  it('is never older than its parent', () => {
    const times = fc.nat({ max: 4_000_000_000_000 });
    fc.assert(
      fc.property(times, times, (now, parent) => {
        const captured = timestampMs(captureTime(now, parent));
        assert.equal(captured > parent && captured >= now, true);
        assert.equal(captured === now || captured === parent + 1, true);
      }),
    );
    assert.equal(timestampMs(captureTime(5, undefined)), 5);
  });
});
