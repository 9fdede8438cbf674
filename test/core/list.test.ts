import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  filesPieceEnds,
  LIST_DEPTH_MAX,
  ListBuilder,
  NODE_REF_BYTES,
  type NodeRef,
  readNodeRefs,
  writeNodeRef,
} from '../../core/list.ts';
import { hex, unitId } from '../../core/unit.ts';
import type { ListRoot } from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';

/** Where the pieces of lists are kept, by unit id. */
class Pieces {
  readonly byId = new Map<string, Buffer>();

  readonly keep = (piece: Buffer): Buffer => {
    const id = unitId(UnitKind_Value.LIST, piece);
    this.byId.set(hex(id), piece);
    return id;
  };

  get(id: Uint8Array): Buffer {
    const piece = this.byId.get(hex(id));
    assert.ok(piece, 'a piece that a list refers to is kept');
    return piece;
  }

  build(refs: readonly NodeRef[]): ListRoot {
    const list = new ListBuilder(this.keep);
    for (const { id, span } of refs) list.add(id, span);
    return list.finish();
  }

  /** The entries at depth 0, in order; spans of pieces are checked on the way. */
  read({ entries, depth }: Pick<ListRoot, 'entries' | 'depth'>): NodeRef[] {
    if (depth === 0) return readNodeRefs(entries);
    return readNodeRefs(entries).flatMap(({ id, span }) => {
      const below = this.read({ entries: this.get(id), depth: depth - 1 });
      assert.equal(
        below.reduce((sum, ref) => sum + ref.span, 0),
        span,
      );
      return below;
    });
  }
}

/** The entry that any seed makes: an id like a hash, and the length of a unit. */
function ref(seed: number): NodeRef {
  const id = createHash('sha256').update(`entry ${seed}`).digest();
  return { id, span: 4096 + (seed % 60_000) };
}

function refs(count: number, first = 0): NodeRef[] {
  return Array.from({ length: count }, (_, i) => ref(first + i));
}

function bytesOf(list: readonly NodeRef[]): Buffer {
  const bytes = Buffer.alloc(list.length * NODE_REF_BYTES);
  for (const [i, { id, span }] of list.entries()) writeNodeRef(bytes, i * NODE_REF_BYTES, id, span);
  return bytes;
}

/** The root as decisions/0001 words it, made from the whole list at once. */
function worded(pieces: Pieces, list: readonly NodeRef[]): { depth: number; entries: Buffer } {
  let level = [...list];
  let depth = 0;
  for (; level.length > 8; depth++) {
    const above: NodeRef[] = [];
    let piece: NodeRef[] = [];
    for (const [i, entry] of level.entries()) {
      piece.push(entry);
      const zeroBits = ((entry.id[0] ?? 0) & 0x7f) === 0;
      const ends = (piece.length >= 32 && zeroBits) || piece.length === 512 || i === level.length - 1;
      if (!ends) continue;
      above.push({ id: pieces.keep(bytesOf(piece)), span: piece.reduce((sum, { span }) => sum + span, 0) });
      piece = [];
    }
    level = above;
  }
  return { depth, entries: bytesOf(level) };
}

const EDGES = [0, 1, 7, 8, 9, 31, 32, 33, 511, 512, 513, 1000, 4096, 20_000];

describe('a list of units', () => {
  it('returns its entries at every length', () => {
    const check = (count: number, first: number) => {
      const pieces = new Pieces();
      const list = refs(count, first);
      const root = pieces.build(list);
      assert.equal(root.count, BigInt(count));
      assert.deepEqual(bytesOf(pieces.read(root)), bytesOf(list));
    };
    for (const count of EDGES) check(count, 0);
    const counts = fc.oneof(fc.integer({ min: 0, max: 600 }), fc.integer({ min: 0, max: 20_000 }));
    fc.assert(fc.property(counts, fc.nat(), check), { numRuns: 25 });
  });

  it('has the pieces and the root of the store format', () => {
    const check = (list: readonly NodeRef[]) => {
      const built = new Pieces();
      const root = built.build(list);
      const wanted = new Pieces();
      const { depth, entries } = worded(wanted, list);
      assert.equal(root.depth, depth);
      assert.deepEqual(Buffer.from(root.entries), entries);
      assert.deepEqual(new Set(built.byId.keys()), new Set(wanted.byId.keys()));
    };
    for (const count of EDGES) check(refs(count));
    // Entries whose ids end a piece, and such as never do.
    const ids = fc.uint8Array({ minLength: 32, maxLength: 32 });
    const firsts = fc.oneof(fc.constantFrom(0, 0x80, 1), fc.integer({ min: 0, max: 255 }));
    const entry = fc
      .tuple(ids, firsts, fc.nat())
      .map(([id, first, span]) => ({ id: Buffer.from([first, ...id.subarray(1)]), span }));
    fc.assert(fc.property(fc.array(entry, { maxLength: 700, size: 'max' }), check), { numRuns: 30 });
    const same = ref(1);
    check(Array.from({ length: 2000 }, () => ({ id: Buffer.alloc(32, 1), span: same.span })));
    check(Array.from({ length: 2000 }, () => ({ id: Buffer.alloc(32), span: same.span })));
  });

  it('of up to eight entries needs no piece', () => {
    for (const count of [0, 1, 8]) {
      const pieces = new Pieces();
      const root = pieces.build(refs(count));
      assert.equal(root.depth, 0);
      assert.equal(pieces.byId.size, 0);
      assert.deepEqual(Buffer.from(root.entries), bytesOf(refs(count)));
    }
  });

  it('needs a few new pieces for one changed, added or removed entry', () => {
    const before = new Pieces();
    const list = refs(20_000);
    const root = before.build(list);
    for (const [name, changed] of [
      ['changed', list.with(10_000, ref(-1))],
      ['added', list.toSpliced(10_000, 0, ref(-1))],
      ['removed', list.toSpliced(10_000, 1)],
    ] as const) {
      const after = new Pieces();
      assert.equal(after.build(changed).depth, root.depth);
      const made = [...after.byId.keys()].filter((id) => !before.byId.has(id));
      assert.ok(made.length <= 3 * root.depth, `${name}: ${made.length} pieces`);
      const bytes = made.reduce((sum, id) => sum + (after.byId.get(id)?.length ?? 0), 0);
      assert.ok(bytes < 0.05 * list.length * NODE_REF_BYTES, `${name}: ${bytes} bytes`);
    }
  });

  it('needs a few new pieces for appended entries', () => {
    const before = new Pieces();
    const list = refs(20_000);
    const root = before.build(list);
    const after = new Pieces();
    after.build([...list, ref(-1)]);
    const made = [...after.byId.keys()].filter((id) => !before.byId.has(id));
    assert.ok(made.length <= 2 * root.depth, `${made.length} pieces`);
  });

  it('built on existing pieces starts at depth 1 and counts their entries', () => {
    const pieces = new Pieces();
    const list = new ListBuilder(pieces.keep, 1);
    for (const { id } of refs(100)) list.add(id, 128, 128);
    const root = list.finish();
    assert.equal(root.count, 12_800n);
    assert.deepEqual(
      pieces.read({ ...root, depth: root.depth - 1 }).map(({ id }) => hex(id)),
      refs(100).map(({ id }) => hex(id)),
    );
    assert.equal(new ListBuilder(pieces.keep, 1).finish().depth, 1);
  });

  it('that is too deep is not written', () => {
    const list = new ListBuilder(new Pieces().keep, LIST_DEPTH_MAX);
    assert.throws(() => list.finish(), { code: 'INTERNAL' });
  });
});

describe('a node reference', () => {
  it('holds spans beyond 32 bits', () => {
    const spans = fc.nat({ max: Number.MAX_SAFE_INTEGER });
    fc.assert(
      fc.property(spans, (span) => {
        assert.equal(readNodeRefs(bytesOf([{ id: Buffer.alloc(32, 7), span }]))[0]?.span, span);
      }),
    );
  });

  it('is refused with missing bytes or an impossible span', () => {
    const whole = bytesOf(refs(2));
    for (const length of [1, 39, 41, 79])
      assert.throws(() => readNodeRefs(whole.subarray(0, length)), { code: 'DAMAGED' });
    whole.writeBigUInt64LE(2n ** 53n, 32);
    assert.throws(() => readNodeRefs(whole), { code: 'DAMAGED' });
    whole.writeBigUInt64LE(2n ** 53n - 1n, 32);
    assert.equal(readNodeRefs(whole)[0]?.span, Number.MAX_SAFE_INTEGER);
    assert.deepEqual(readNodeRefs(new Uint8Array()), []);
  });

  it('can be read from the middle of a buffer', () => {
    const room = Buffer.concat([Buffer.alloc(3), bytesOf(refs(1))]);
    assert.deepEqual(readNodeRefs(new Uint8Array(room.buffer, room.byteOffset + 3, NODE_REF_BYTES)), refs(1));
  });
});

describe('a piece of the list of files', () => {
  it('ends by the hash of its last path, so that a changed file moves no boundary', () => {
    const names = Array.from({ length: 3000 }, (_, i) => Buffer.from(`kv_store_${i}.json`));
    const ends = names.filter((name) => filesPieceEnds(32, name));
    const worded = names.filter((name) => {
      const [first = 0] = createHash('sha256').update(name).digest();
      return (first & 0x7f) === 0;
    });
    assert.deepEqual(ends, worded);
    assert.equal(ends.length > 5, true);
    assert.equal(
      names.every((name) => filesPieceEnds(512, name) && !filesPieceEnds(31, name)),
      true,
    );
  });
});
