import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { create } from '@bufbuild/protobuf';
import type { Client } from '@connectrpc/connect';
import { followOnce } from '../../../agent/peer/follow-session.ts';
import { Followers } from '../../../agent/peer/followers.ts';
import { MessageQueue } from '../../../agent/peer/message-queue.ts';
import { serveFollower } from '../../../agent/peer/source-session.ts';
import { FrameReceiver } from '../../../agent/store/receive/frame-receiver.ts';
import type { Store } from '../../../agent/store/store.ts';
import {
  type FollowRequest,
  type FollowResponse,
  FollowResponseSchema,
  type PeerService,
  UnitsMissingSchema,
} from '../../../gen/lightkeeper/v1/peer_pb.ts';
import { Case } from '../../support/case.ts';
import { fillGraph } from '../../support/fill.ts';
import { withOpen } from '../../support/peer-stores.ts';
import { tempFolder } from '../../support/place.ts';

/** Serves a store; the first request for units is answered as if the source had lost them. */
function lackingAtFirst(source: Store, ended: AbortSignal): Client<typeof PeerService> {
  let hasLacked = false;
  const follow = (requests: AsyncIterable<FollowRequest>) => {
    const responses = new MessageQueue<FollowResponse>(1 << 30);
    const passed = (async function* () {
      for await (const request of requests) {
        const { message } = request;
        if (hasLacked || message.case !== 'unitsWanted') yield request;
        else {
          hasLacked = true;
          const { wantId, unitIds } = message.value;
          const value = create(UnitsMissingSchema, { wantId, unitIds });
          await responses.push(create(FollowResponseSchema, { message: { case: 'unitsMissing', value } }));
        }
      }
    })();
    const parts = {
      store: source,
      agent: 'source',
      followers: new Followers(),
      admit: ({ agent }: { readonly agent: string }) => ({ name: agent, target: undefined }),
      isGuarded: () => false,
      address: '127.0.0.1',
      onFrame: () => Promise.resolve([]),
    };
    void (async () => {
      for await (const response of serveFollower(passed, parts, ended)) await responses.push(response);
    })()
      .catch(() => {})
      .finally(() => responses.end());
    return responses;
  };
  return { follow } as unknown as Client<typeof PeerService>;
}

describe('a stream of a follower', () => {
  it('fetches a snapshot again of which the source lacked units for a while', async (t) => {
    const place = await tempFolder(t);
    const subject = new Case(join(place, 'g'), join(place, 'source'));
    mkdirSync(subject.dir);
    fillGraph(subject.dir);
    const { snapshotId } = await subject.snapshot();
    const events: string[] = [];
    await withOpen(subject.store, (source) =>
      withOpen(join(place, 'follower'), async (store) => {
        const receiver = await FrameReceiver.open(store, { reserveBytes: 0n });
        const ended = new AbortController();
        const following = followOnce(
          lackingAtFirst(source, ended.signal),
          {
            store,
            graphId: 'g',
            agent: 'follower',
            receiver,
            retained: (listed) =>
              Promise.resolve(new Set(listed.map(({ digest }) => Buffer.from(digest).toString('hex')))),
            keepFork: () => Promise.resolve(),
            onEvent: (event) => {
              if (event.type === 'incomplete') events.push('incomplete');
              if (event.type !== 'committed') return;
              events.push(Buffer.from(event.snapshot.digest).toString('hex').slice(0, 32));
              ended.abort();
            },
            retryMs: 50,
          },
          ended.signal,
        );
        await assert.rejects(following, { name: 'AbortError' });
        await receiver.close();
      }),
    );
    assert.deepEqual(events, ['incomplete', snapshotId]);
  });
});
