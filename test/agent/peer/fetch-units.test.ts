import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { encodeFrame, frameCap } from '../../../agent/pack/frame.ts';
import { BULK_CODECS } from '../../../agent/peer/bulk-codec.ts';
import { dialledSource } from '../../../agent/peer/fetch-units.ts';
import { Followers } from '../../../agent/peer/followers.ts';
import { splitFrame } from '../../../agent/peer/frame-parts.ts';
import { peerService } from '../../../agent/peer/server.ts';
import { UnitReception } from '../../../agent/peer/unit-reception.ts';
import { encodeProvenFrame } from '../../../agent/store/meta-writer.ts';
import { FrameSender } from '../../../agent/store/send/frame-sender.ts';
import type { Store } from '../../../agent/store/store.ts';
import { normalise } from '../../../core/errors.ts';
import { unitId } from '../../../core/unit.ts';
import { UnitKind_Value } from '../../../gen/lightkeeper/store/v1/pack_pb.ts';
import {
  type FetchUnitsResponse,
  FetchUnitsResponseSchema,
  PeerService,
  UnitsMissingSchema,
} from '../../../gen/lightkeeper/v1/peer_pb.ts';
import { type GrpcService, grpcService, serveGrpc } from '../../../host/grpc/server.ts';
import { Case } from '../../support/case.ts';
import { fillGraph, noise } from '../../support/fill.ts';
import { snapshotsOf, withOpen } from '../../support/peer-stores.ts';
import { atEnd, tempFolder } from '../../support/place.ts';

const BYTES = UnitKind_Value.BYTES;

/** Serves a service, and returns its URL. */
async function served(t: TestContext, service: GrpcService): Promise<string> {
  const { port, close } = await serveGrpc({ host: '127.0.0.1', port: 0, fallback: false }, [service], {});
  atEnd(t, () => close(0));
  return `http://127.0.0.1:${port}`;
}

/** Returns a service of which FetchUnits replies what `reply` yields. */
function peerThat(reply: (ids: Buffer) => Iterable<FetchUnitsResponse>): GrpcService {
  const handlers = {
    fetchUnits: async function* ({ unitIds }: { unitIds: Uint8Array }) {
      yield* reply(Buffer.from(unitIds));
    },
  };
  return grpcService(PeerService, handlers as never, BULK_CODECS);
}

function parts(frame: Buffer): FetchUnitsResponse[] {
  return [...splitFrame(1n, frame)].map((value) =>
    create(FetchUnitsResponseSchema, { message: { case: 'framePart', value } }),
  );
}

/** Asks a peer for units, and stores what it sends in a new store. */
async function asking<T>(
  t: TestContext,
  url: string,
  run: (request: (ids: readonly Buffer[]) => Promise<Buffer[]>, store: Store) => Promise<T>,
): Promise<T> {
  const place = await tempFolder(t);
  return await withOpen(join(place, 'asker'), async (store) => {
    const reception = new UnitReception(store, { reserveBytes: 0n });
    const { receive } = reception;
    const source = dialledSource(url, { dial: {}, graphId: 'data', agent: 'asker', receive });
    try {
      return await reception.during(async (receiver) => {
        const done = await run(source.request, store);
        await receiver.publishUnits();
        return done;
      });
    } finally {
      source.close();
    }
  });
}

describe('fetching units from a peer', () => {
  it('stores those that it has, and names the others', async (t) => {
    const place = await tempFolder(t);
    const source = new Case(join(place, 'data'), join(place, 'source'));
    fillGraph(source.dir);
    await source.snapshot();
    await withOpen(source.store, async (store) => {
      const [snapshot] = await snapshotsOf(store);
      assert.ok(snapshot?.manifest.files !== undefined);
      const lists = Buffer.from(snapshot.manifest.files.entries).subarray(0, 32);
      const ids = [lists];
      for await (const file of store.files(snapshot.manifest.files))
        for await (const refs of store.units(file.content))
          ids.push(...refs.map(({ id }) => Buffer.from(id)));
      const nowhere = unitId(BYTES, Buffer.from('nowhere'));
      const service = peerService({
        store,
        agent: 'source',
        followers: new Followers(),
        isGuarded: () => true,
        admission: () => ({ targets: [], hasTls: false }),
        onFrame: () => Promise.resolve([]),
      });
      await asking(t, await served(t, service), async (request, own) => {
        assert.deepEqual(await request([...ids, nowhere]), [nowhere]);
        assert.deepEqual(await request([]), []);
        assert.equal(own.locate(nowhere), undefined);
      });
    });
  });

  it('makes what arrived readable once it is published', async (t) => {
    const unit = noise('unit', 5000);
    const id = unitId(BYTES, unit);
    const frame = Buffer.from(encodeProvenFrame(BYTES, [unit], { ids: [id] }).bytes);
    const place = await tempFolder(t);
    await withOpen(join(place, 'store'), async (store) => {
      const reception = new UnitReception(store, { reserveBytes: 0n });
      assert.deepEqual(await reception.receive(frame, () => true), [], 'nothing waits for it');
      await reception.during(async (receiver) => {
        assert.deepEqual(await reception.receive(frame, () => true), [id]);
        assert.equal(store.locate(id), undefined);
        await receiver.publishUnits();
        assert.deepEqual(await store.readUnit(id, BYTES), unit);
      });
      const sent: string[] = [];
      for await (const part of new FrameSender(store).send([id])) sent.push(part.kind);
      assert.deepEqual(sent, ['frame']);
    });
  });

  it('refuses other bytes, frames that nobody asked for, too many frames and foreign ids', async (t) => {
    const unit = noise('unit', 5000);
    const id = unitId(BYTES, unit);
    const other = noise('other', 5000);
    const frameOf = (bytes: Buffer, ids: Buffer[]) => {
      const out = Buffer.alloc(frameCap(1, bytes.length));
      const content = { kind: BYTES, ids: Buffer.concat(ids), lengths: [bytes.length], bytes };
      return out.subarray(0, encodeFrame(out, content).length);
    };
    const missing = (unitIds: Uint8Array) =>
      create(FetchUnitsResponseSchema, {
        message: { case: 'unitsMissing', value: create(UnitsMissingSchema, { wantId: 1n, unitIds }) },
      });
    const replies: Readonly<Record<string, () => FetchUnitsResponse[]>> = {
      'other bytes': () => parts(frameOf(other, [id])),
      'another unit': () => parts(frameOf(other, [unitId(BYTES, other)])),
      'the same frame again': () => [...parts(frameOf(unit, [id])), ...parts(frameOf(unit, [id]))],
      'ids that are cut': () => [missing(id.subarray(1))],
      'ids that were not asked for': () => [missing(unitId(BYTES, other))],
    };
    for (const [what, reply] of Object.entries(replies)) {
      const url = await served(t, peerThat(reply));
      await asking(t, url, async (request, store) => {
        const error = await request([id]).then(() => undefined, normalise);
        assert.equal(error?.code, 'PEER_INVALID', `${what}: ${error?.message}`);
        assert.equal(store.locate(unitId(BYTES, other)), undefined, what);
      });
    }
  });
});
