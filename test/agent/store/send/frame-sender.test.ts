import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { decodeVerified } from '../../../../agent/pack/frame.ts';
import { readPackTable } from '../../../../agent/pack/reader.ts';
import { FrameSender } from '../../../../agent/store/send/frame-sender.ts';
import type { Store } from '../../../../agent/store/store.ts';
import { UNIT_ID_BYTES } from '../../../../core/unit.ts';
import { type FrameInfo, UnitKind_Value } from '../../../../gen/lightkeeper/store/v1/pack_pb.ts';
import { Case } from '../../../support/case.ts';
import { fill, noise } from '../../../support/fill.ts';
import { withOpen } from '../../../support/peer-stores.ts';
import { tempFolder } from '../../../support/place.ts';

async function makeStore(t: TestContext): Promise<Case> {
  const place = await tempFolder(t);
  const subject = new Case(join(place, 'data'), join(place, 'store'));
  fill(subject.dir, { a: noise('a', 600_000), b: 'text '.repeat(50_000) });
  await subject.snapshot();
  return subject;
}

interface PlacedFrame {
  readonly packId: string;
  readonly info: FrameInfo;
  readonly ids: Buffer[];
}

async function framesOf(store: Store): Promise<PlacedFrame[]> {
  const found: PlacedFrame[] = [];
  for await (const { packId, size } of store.packs.list()) {
    for (const info of (await readPackTable(store.packs, packId, size)).frames) {
      const all = Buffer.from(info.unitIds);
      const ids = info.unitLengths.map((_, i) => all.subarray(i * UNIT_ID_BYTES, (i + 1) * UNIT_ID_BYTES));
      found.push({ packId, info, ids });
    }
  }
  return found;
}

const bytesFrame = (frames: readonly PlacedFrame[]) =>
  frames.find(({ info }) => info.kind === UnitKind_Value.BYTES && info.unitLengths.length > 8) as PlacedFrame;

async function collect(sender: FrameSender, ids: readonly Buffer[]) {
  const frames: Buffer[] = [];
  const missing: Buffer[] = [];
  for await (const part of sender.send(ids)) {
    if (part.kind === 'frame') frames.push(part.frame);
    else missing.push(...part.ids);
  }
  return { frames, missing };
}

const idsIn = (frame: Buffer) => Buffer.from(decodeVerified(frame).parsed.header.unitIds);

describe('a sender of frames', () => {
  it('sends a frame as stored when half of it is wanted, and that once', async (t) => {
    await withOpen((await makeStore(t)).store, async (store) => {
      const { packId, info, ids } = bytesFrame(await framesOf(store));
      const sender = new FrameSender(store);
      const half = ids.slice(0, Math.ceil(ids.length / 2));
      const { frames, missing } = await collect(sender, [...half].reverse());
      assert.deepEqual(missing, []);
      assert.deepEqual(frames, [await store.packs.get(packId, info.offset, info.length)]);
      // The rest of it is under way.
      assert.deepEqual(await collect(sender, ids.slice(half.length)), { frames: [], missing: [] });
      // Whoever asks for a unit twice has lost it.
      assert.equal((await collect(sender, half.slice(0, 1))).frames.length, 1);
    });
  });

  it('cuts a frame down when less of it is wanted', async (t) => {
    await withOpen((await makeStore(t)).store, async (store) => {
      const { info, ids } = bytesFrame(await framesOf(store));
      const wanted = [ids[3], ids[1]] as Buffer[];
      const { frames, missing } = await collect(new FrameSender(store), wanted);
      assert.deepEqual(missing, []);
      assert.equal(frames.length, 1);
      const [frame = Buffer.alloc(0)] = frames;
      assert.deepEqual(idsIn(frame), Buffer.concat(wanted));
      assert.equal(frame.length < info.length / 2, true);
    });
  });

  it('names what the store lacks, and sends no records', async (t) => {
    await withOpen((await makeStore(t)).store, async (store) => {
      const frames = await framesOf(store);
      const unknown = Buffer.alloc(UNIT_ID_BYTES, 7);
      const [known] = bytesFrame(frames).ids as [Buffer];
      const records = frames.filter(
        ({ info }) => ![UnitKind_Value.BYTES, UnitKind_Value.LIST, UnitKind_Value.FILES].includes(info.kind),
      );
      assert.equal(records.length > 1, true);
      const ids = [unknown, known, ...records.flatMap((record) => record.ids), unknown];
      const sent = await collect(new FrameSender(store), ids);
      assert.equal(sent.frames.length, 1);
      assert.deepEqual(sent.missing, [unknown, ...records.flatMap((record) => record.ids)]);
    });
  });

  it('sends nothing of a damaged frame or a lost pack, and reports it', async (t) => {
    const subject = await makeStore(t);
    const flip = (packId: string, at: number) => {
      const file = join(subject.store, 'packs', packId.slice(0, 2), `${packId}.pack`);
      const bytes = readFileSync(file);
      bytes[at] = (bytes[at] as number) ^ 1;
      writeFileSync(file, bytes);
    };
    const found = await withOpen(subject.store, async (store) => await framesOf(store));
    const { packId, info, ids } = bytesFrame(found);
    for (const at of [info.offset + 5, info.offset + 40, info.offset + info.length - 1]) {
      flip(packId, at);
      await withOpen(subject.store, async (store) => {
        const reported: string[] = [];
        const sender = new FrameSender(store, { onDamage: (pack) => reported.push(pack) });
        assert.deepEqual(await collect(sender, ids), { frames: [], missing: ids }, `byte ${at}`);
        assert.deepEqual(reported, [packId]);
      });
      flip(packId, at);
    }
    await withOpen(subject.store, async (store) => {
      const number = (await store.index.packNumber(Buffer.from(packId, 'hex'))) ?? -1;
      store.health.pack(number, 'lose');
      assert.deepEqual(await collect(new FrameSender(store), ids), { frames: [], missing: ids });
    });
    assert.deepEqual(readdirSync(join(subject.store, 'tmp')), []);
  });
});
