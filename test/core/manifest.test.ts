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
  encodeAnnotation,
  MANIFEST_FORMAT,
  parseAnnotation,
  parseFileList,
  parseManifest,
  parsePosition,
  SNAPSHOT_ID_DIGITS,
  snapshotIdOf,
} from '../../core/manifest.ts';
import {
  AnnotationSchema,
  GradedSchema,
  TaggedSchema,
} from '../../gen/lightkeeper/store/v1/annotation_pb.ts';
import {
  type FileEntry,
  type FileEntrySchema,
  FileListSchema,
  type Manifest,
  ManifestSchema,
  PositionEntrySchema,
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

/** The root of a list with one entry, which covers seven. */
const ROOT = { entries: Buffer.alloc(NODE_REF_BYTES), count: 7n };
ROOT.entries[32] = 7;

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
      [
        'a list that counts wrongly',
        manifest({ files: { entries: new Uint8Array(NODE_REF_BYTES), count: 2n } }),
      ],
      ['a list whose spans are not its count', manifest({ files: { ...ROOT, depth: 1, count: 8n } })],
      ['a list of 2^63 names', manifest({ files: { depth: 1, count: 2n ** 63n } })],
      [
        'a long list without pieces',
        manifest({ files: { entries: new Uint8Array(600 * NODE_REF_BYTES), count: 600n } }),
      ],
      ['epoch 0', manifest({ epoch: { number: 0n, mintId: new Uint8Array(16) } })],
      ['an epoch of 2^63', manifest({ epoch: { number: 2n ** 63n, mintId: new Uint8Array(16) } })],
      ['a sequence of 2^63', manifest({ sequence: 2n ** 63n })],
      ['a short store id', manifest({ storeId: new Uint8Array(15) })],
      ['a mode of 010000', manifest({ root: { mode: 0o10000 } })],
      ['a path of the directory itself', manifest({ root: { path: Buffer.from('a') } })],
      ['2^60 bytes', manifest({ totals: { rawBytes: 2n ** 60n } })],
      ['a long directory', manifest({ source: { dir: new Uint8Array(70_000) } })],
      ['17 MiB', manifest({ description: 'x'.repeat(17 << 20) })],
      ['many findings', manifest({ findings: Array.from({ length: 1001 }, () => ({})) })],
      ['many names in its findings', manifest({ findings: [{ keys: Array<string>(100_001).fill('') }] })],
    ];
    for (const [why, bytes] of wrong) refuses(() => parseManifest(bytes), 'DAMAGED', why);
  });

  it('keeps what it knows of a list that is in order', () => {
    const read = parseManifest(manifest({ files: { ...ROOT, depth: 1 }, storeId: new Uint8Array(16) }));
    assert.equal(read.files?.count, 7n);
    assert.equal(parseManifest(manifest({ cutMethod: 77 as never })).cutMethod, 77);
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
  const isFile = (change.type ?? type) === type;
  return { path: Buffer.from(path, 'latin1'), type, ...(isFile ? { content: { depth: 0 } } : {}), ...change };
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

  it('with one of our own names is refused', () => {
    for (const path of ['.lightkeeper', '.lightkeeper/stage/a', '.lightkeeper-incomplete']) {
      refuses(() => parseFileList(fileList([file(path)]), ''), 'DAMAGED', path);
      const link = file('z', { type: FileType_Value.HARD_LINK, target: Buffer.from(path) });
      refuses(() => parseFileList(fileList([link]), ''), 'DAMAGED', path);
    }
    const similar = ['.lightkeeper-notes', '.lightkeeperx', 'a/.lightkeeper'].map((path) => file(path));
    assert.equal(parseFileList(fileList(similar), '').length, 3);
  });

  it('with impossible properties is refused', () => {
    const { DIRECTORY, HARD_LINK, SYMLINK } = FileType_Value;
    const wrong: [string, FileInit][] = [
      ['a mode', file('a', { mode: 0o10000 })],
      ['a size that is not that of its content', file('a', { size: 1n })],
      ['2^63 bytes', file('a', { size: 2n ** 63n })],
      ['a folder with bytes', file('a', { type: DIRECTORY, size: 1n })],
      ['a folder with content', file('a', { type: DIRECTORY, content: { depth: 0 } })],
      ['a folder with a target', file('a', { type: DIRECTORY, target: Buffer.from('b') })],
      ['a file with a target', file('a', { target: Buffer.from('b') })],
      ['a symlink to nothing', file('a', { type: SYMLINK })],
      ['a symlink with a NUL', file('a', { type: SYMLINK, target: Buffer.from('a\0') })],
      ['a long symlink', file('a', { type: SYMLINK, target: new Uint8Array(5000).fill(97) })],
      ['a hard link to a later name', file('b', { type: HARD_LINK, target: Buffer.from('c') })],
      ['a hard link to itself', file('b', { type: HARD_LINK, target: Buffer.from('b') })],
      ['a long path', file(`${'a/'.repeat(2048)}a`)],
      ['a wrong count', file('a', { content: { ...ROOT, count: 2n }, size: 7n })],
    ];
    for (const [why, one] of wrong) refuses(() => parseFileList(fileList([one]), ''), 'DAMAGED', why);
    const right = file('a', { content: { ...ROOT, count: 1n }, size: 7n, mode: 0o7777 });
    assert.equal(parseFileList(fileList([right]), '')[0]?.size, 7n);
  });

  it('with more entries than a piece has, or more bytes, is refused', () => {
    const many = Array.from({ length: 513 }, (_, i) => file(`f${String(i).padStart(4, '0')}`));
    refuses(() => parseFileList(fileList(many), ''), 'DAMAGED');
    refuses(() => parseFileList(new Uint8Array(9 << 20), ''), 'DAMAGED');
  });

  it('that does not parse is refused', () => {
    refuses(() => parseFileList(Buffer.from([0xff, 0xff, 0xff]), ''), 'DAMAGED');
  });
});

// ----- positions and annotations -----

describe('a position', () => {
  const whole = {
    graphId: 'main',
    epoch: WHOLE.epoch,
    sequence: 1n,
    digest: DIGEST,
    storeId: new Uint8Array(16),
  };
  const position = (change: MessageInitShape<typeof PositionEntrySchema> = {}) =>
    toBinary(PositionEntrySchema, create(PositionEntrySchema, { ...whole, ...change } as typeof whole));

  it('is read as written, and refused with impossible values', () => {
    assert.deepEqual(parsePosition(position()).digest, DIGEST);
    const wrong: [string, Uint8Array][] = [
      ['a graph', position({ graphId: '..' })],
      ['a digest', position({ digest: new Uint8Array(31) })],
      ['a parent', position({ parentDigest: new Uint8Array(31) })],
      ['a store', position({ storeId: new Uint8Array(17) })],
      ['a sequence', position({ sequence: 2n ** 63n })],
      ['an epoch', position({ epoch: { number: 0n, mintId: new Uint8Array(16) } })],
      ['its length', Buffer.concat([position(), Buffer.from([0xfa, 0x3f, 0xff, 0x3f]), Buffer.alloc(8191)])],
    ];
    for (const [why, bytes] of wrong) refuses(() => parsePosition(bytes), 'DAMAGED', why);
  });
});

describe('an annotation', () => {
  const annotation = (change: MessageInitShape<typeof AnnotationSchema> = {}) =>
    create(AnnotationSchema, {
      storeId: new Uint8Array(16),
      counter: 1n,
      digest: DIGEST,
      ...change,
    } as object);
  const bytesOf = (change: MessageInitShape<typeof AnnotationSchema>) =>
    toBinary(AnnotationSchema, annotation(change));
  const graded = (value: MessageInitShape<typeof GradedSchema>) =>
    bytesOf({ fact: { case: 'graded', value: create(GradedSchema, value) } });

  it('is read as written, and refused with impossible values', () => {
    assert.equal(parseAnnotation(bytesOf({})).counter, 1n);
    const wrong: [string, Uint8Array][] = [
      ['a store', bytesOf({ storeId: new Uint8Array(15) })],
      ['a digest', bytesOf({ digest: new Uint8Array(33) })],
      ['a counter', bytesOf({ counter: 2n ** 63n })],
      ['findings', graded({ findings: Array.from({ length: 1001 }, () => ({})) })],
      ['sightings', graded({ sightings: Array.from({ length: 1001 }, () => ({})) })],
      ['its length', graded({ summary: 'x'.repeat(5 << 20) })],
    ];
    for (const [why, bytes] of wrong) refuses(() => parseAnnotation(bytes), 'DAMAGED', why);
  });

  it('that is too long to be read is not written', () => {
    const tags = (length: number) =>
      annotation({
        fact: { case: 'tagged', value: create(TaggedSchema, { tags: { a: 'x'.repeat(length) } }) },
      });
    assert.equal(parseAnnotation(encodeAnnotation(tags(1000))).fact.case, 'tagged');
    refuses(() => encodeAnnotation(tags(5 << 20)), 'INVALID_ARGUMENT');
  });

  it('with the most that a grade has is read', () => {
    const hashes = new Uint8Array(8000);
    const findings = Array.from({ length: 200 }, () => ({
      message: 'm'.repeat(500),
      keys: Array<string>(20).fill('k'.repeat(200)),
    }));
    const sightings = Array.from({ length: 200 }, () => ({ hashes }));
    const read = parseAnnotation(graded({ findings, sightings }));
    assert.equal(read.fact.case === 'graded' && read.fact.value.sightings.length, 200);
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
