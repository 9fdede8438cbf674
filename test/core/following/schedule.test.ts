import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { FetchSchedule } from '../../../core/following/schedule.ts';
import { ListedSnapshotSchema } from '../../../gen/lightkeeper/v1/peer_pb.ts';
import { checkTranscript } from '../../support/golden.ts';

const digestOf = (sequence: number) => new Uint8Array(32).fill(sequence);
const listed = (sequence: number, usable = false) =>
  create(ListedSnapshotSchema, { epoch: 1n, sequence: BigInt(sequence), digest: digestOf(sequence), usable });

describe('the schedule of a follower', () => {
  it('fetches as recorded in golden/fetching.txt', () => {
    const schedule = new FetchSchedule(undefined);
    checkTranscript('fetching.txt', (event) => {
      const [what, ...words] = event.split(' ');
      const [first = ''] = words;
      const digest = digestOf(Number(first));
      if (what === 'list')
        for (const word of words) schedule.list(listed(Number.parseInt(word, 10), word.endsWith('!')), true);
      else if (what === 'fetched') schedule.fetched(digest);
      else if (what === 'failed') schedule.failed(digest);
      else if (what === 'gone') schedule.gone(digest);
      else schedule.retryFailed();
      const next = schedule.next();
      const held = schedule.held === undefined ? 'nothing' : String(schedule.held.sequence);
      const state = `holds ${held}${schedule.isCaughtUp ? ', caught up' : ''}`;
      if (next === undefined) return `${state}; nothing to fetch`;
      return `${state}; fetch ${next.snapshot.sequence}${next.isHistory ? ' of the history' : ''}`;
    });
  });

  it('moves the held position forwards alone', () => {
    const schedule = new FetchSchedule({ epoch: 1n, sequence: 5n, digest: digestOf(5) });
    for (const sequence of [3, 7, 6]) schedule.list(listed(sequence), true);
    assert.deepEqual(
      [7, 3, 6].map((sequence) => schedule.fetched(digestOf(sequence))),
      [true, false, false],
    );
    assert.equal(schedule.held?.sequence, 7n);
    assert.equal(schedule.fetched(digestOf(9)), false, 'it was never listed');
  });

  it('does not fetch what it need not have', () => {
    const schedule = new FetchSchedule(undefined);
    schedule.list(listed(1, true), false);
    assert.equal(schedule.next(), undefined);
    assert.equal(schedule.newest?.sequence, 1n);
  });
});
