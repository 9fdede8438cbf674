import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { createClient } from '@connectrpc/connect';
import { encodeFrame, frameCap } from '../../../agent/pack/frame.ts';
import { BULK_CODECS } from '../../../agent/peer/bulk-codec.ts';
import { Followers } from '../../../agent/peer/followers.ts';
import { splitFrame } from '../../../agent/peer/frame-parts.ts';
import { MessageQueue } from '../../../agent/peer/message-queue.ts';
import { PROTOCOL_MAX, PROTOCOL_MIN } from '../../../agent/peer/protocol.ts';
import { peerService } from '../../../agent/peer/server.ts';
import { UnitReception } from '../../../agent/peer/unit-reception.ts';
import { followerSource } from '../../../agent/peer/unit-source.ts';
import type { Store } from '../../../agent/store/store.ts';
import { normalise } from '../../../core/errors.ts';
import { unitId } from '../../../core/unit.ts';
import { UnitKind_Value } from '../../../gen/lightkeeper/store/v1/pack_pb.ts';
import {
  type FollowRequest,
  FollowRequestSchema,
  HelloSchema,
  PeerService,
  UnitsMissingSchema,
} from '../../../gen/lightkeeper/v1/peer_pb.ts';
import { serveGrpc } from '../../../host/grpc/server.ts';
import { dialGrpc } from '../../../host/grpc/transport.ts';
import { noise } from '../../support/fill.ts';
import { withOpen } from '../../support/peer-stores.ts';
import { tempFolder, until } from '../../support/place.ts';

const BYTES = UnitKind_Value.BYTES;

type Reply = (wantId: bigint, ids: Buffer) => FollowRequest['message'][];

/** Serves a store, connects a follower that replies to requests for units, and asks it for these. */
async function ask(
  t: TestContext,
  ids: readonly Buffer[],
  reply: Reply,
): Promise<{ missing: Buffer[]; code: string; stored: boolean[] }> {
  const place = await tempFolder(t);
  return await withOpen(join(place, 'store'), async (store: Store) => {
    const followers = new Followers();
    const reception = new UnitReception(store, { reserveBytes: 0n });
    const service = peerService({
      store,
      agent: 'source',
      followers,
      isGuarded: () => true,
      admission: () => ({ targets: [], hasTls: false }),
      onFrame: reception.receive,
    });
    const { port, close } = await serveGrpc({ host: '127.0.0.1', port: 0, fallback: false }, [service], {});
    const connection = dialGrpc(`http://127.0.0.1:${port}`, { codecs: BULK_CODECS });
    const out = new MessageQueue<FollowRequest>(1 << 20);
    const send = (message: FollowRequest['message']) => out.push(create(FollowRequestSchema, { message }));
    const hello = {
      protocolMin: PROTOCOL_MIN,
      protocolMax: PROTOCOL_MAX,
      graphId: 'g',
      agent: 'b',
      storeId: randomBytes(16),
    };
    await send({ case: 'hello', value: create(HelloSchema, hello) });
    const reading = (async () => {
      for await (const { message } of createClient(PeerService, connection).follow(out)) {
        if (message.case !== 'unitsWanted') continue;
        for (const one of reply(message.value.wantId, Buffer.from(message.value.unitIds))) await send(one);
      }
    })().catch(() => {});
    try {
      await until('the follower is connected', () => followers.list('g')[0]?.requestUnits !== undefined);
      const [follower] = followers.list('g');
      assert.ok(follower !== undefined);
      return await reception.alone(() =>
        reception.during(async (receiver) => {
          let missing: Buffer[] = [];
          let code = '';
          try {
            missing = await followerSource(follower).request(ids);
          } catch (error) {
            code = normalise(error).code;
          }
          await receiver.publishUnits();
          return { missing, code, stored: ids.map((id) => store.locate(id) !== undefined) };
        }),
      );
    } finally {
      out.end();
      await reading;
      connection.close();
      await close(0);
    }
  });
}

/** Returns the messages of a frame with a unit under an id, which need not be its own. */
function frame(wantId: bigint, id: Buffer, bytes: Buffer): FollowRequest['message'][] {
  const out = Buffer.alloc(frameCap(1, bytes.length));
  const { length } = encodeFrame(out, { kind: BYTES, ids: id, lengths: [bytes.length], bytes });
  return [...splitFrame(wantId, out.subarray(0, length))].map((value) => ({ case: 'framePart', value }));
}

describe('a follower that is asked for units', () => {
  const units = [noise('one', 5000), noise('two', 3_000_000)];
  const ids = units.map((unit) => unitId(BYTES, unit));
  const [one, two] = ids as [Buffer, Buffer];
  const [oneBytes, twoBytes] = units as [Buffer, Buffer];

  it('sends them on its stream, and the source stores them', async (t) => {
    const nowhere = unitId(BYTES, Buffer.from('nowhere'));
    const asked = await ask(t, [one, two, nowhere], (wantId) => [
      ...frame(wantId, one, oneBytes),
      ...frame(wantId, two, twoBytes),
      { case: 'unitsMissing', value: create(UnitsMissingSchema, { wantId, unitIds: nowhere }) },
    ]);
    assert.deepEqual(asked, { missing: [nowhere], code: '', stored: [true, true, false] });
  });

  it('is refused when it sends other bytes, a unit that nobody asked for or to no request', async (t) => {
    const replies: Readonly<Record<string, Reply>> = {
      'other bytes': (wantId) => frame(wantId, one, noise('other', 5000)),
      'another unit': (wantId) => frame(wantId, unitId(BYTES, noise('other', 500)), noise('other', 500)),
      'another request': (wantId) => frame(wantId + 1n, one, oneBytes),
    };
    for (const [what, reply] of Object.entries(replies)) {
      const { code, stored } = await ask(t, [one, two], reply);
      assert.equal(code, 'PEER_INVALID', what);
      assert.deepEqual(stored, [false, false], what);
    }
  });

  it('keeps what it sent before it broke a rule', async (t) => {
    const { code, stored } = await ask(t, [one, two], (wantId) => [
      ...frame(wantId, two, twoBytes),
      ...frame(wantId, one, noise('other', 5000)),
    ]);
    assert.equal(code, 'PEER_INVALID');
    assert.deepEqual(stored, [false, true]);
  });
});
