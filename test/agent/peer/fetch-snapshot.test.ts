import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, it } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { create, toBinary } from '@bufbuild/protobuf';
import { fetchSnapshot } from '../../../agent/peer/fetch-snapshot.ts';
import { ListBuilder } from '../../../core/list.ts';
import { unitId } from '../../../core/unit.ts';
import { FileListSchema, ManifestSchema } from '../../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { UnitKind_Value } from '../../../gen/lightkeeper/store/v1/pack_pb.ts';
import { FileType_Value } from '../../../gen/lightkeeper/v1/types_pb.ts';

/** Units of the file, and of one frame. */
const UNITS = 20_000;
const FRAME_UNITS = 300;

/** A snapshot of one file, and a source that sends the frames of its units whole, each once. */
function source() {
  const pieces = new Map<string, Buffer>();
  const keep = (kind: UnitKind_Value) => (piece: Buffer) => {
    const bytes = Buffer.from(piece);
    const id = unitId(kind, bytes);
    pieces.set(id.toString('latin1'), bytes);
    return id;
  };
  const units = Array.from({ length: UNITS }, (_, i) => createHash('sha256').update(`${i}`).digest());
  const places = new Map(units.map((id, i) => [id.toString('latin1'), Math.floor(i / FRAME_UNITS)]));
  const content = new ListBuilder(keep(UnitKind_Value.LIST));
  for (const id of units) content.add(id, 100);
  const file = { path: Buffer.from('a'), type: FileType_Value.REGULAR, size: 100n * BigInt(UNITS) };
  const files = create(FileListSchema, { files: [{ ...file, content: content.finish() }] });
  const list = new ListBuilder(keep(UnitKind_Value.FILES), 1);
  list.add(keep(UnitKind_Value.FILES)(Buffer.from(toBinary(FileListSchema, files))), 1);
  const manifest = create(ManifestSchema, { files: list.finish() });
  return { manifest, pieces, units, places };
}

describe('fetching a snapshot', () => {
  it('asks for no unit that has come with others while it waited to ask', async () => {
    const { manifest, pieces, units, places } = source();
    const held = new Set<string>();
    const sent = new Set<number>();
    const inVain: string[] = [];
    let asked = 0;
    const nameOf = (id: Uint8Array) => Buffer.from(id).toString('latin1');
    const missing = await fetchSnapshot(
      {
        has: (id) => held.has(nameOf(id)),
        piece: (id) => Promise.resolve(pieces.get(nameOf(id))),
        isComplete: () => false,
        request: async (ids) => {
          const names = ids.map(nameOf);
          // As a real source: the rest of a frame that was sent is taken to be on its way.
          inVain.push(...names.filter((name) => held.has(name)));
          // Of those that are open the newest is answered first, so that one that waits sees units come.
          asked += 1;
          for (let turns = 4 - (asked % 4); turns > 0; turns--) await setImmediate();
          for (const name of names) {
            const frame = places.get(name);
            if (frame === undefined) held.add(name);
            else sent.add(frame);
          }
          for (const [name, frame] of places) if (sent.has(frame)) held.add(name);
          return [];
        },
      },
      manifest,
    );
    assert.equal(missing, 0);
    assert.equal(units.filter((id) => !held.has(nameOf(id))).length, 0);
    assert.deepEqual(inVain, []);
  });
});
