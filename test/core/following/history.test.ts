import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { LightkeeperError } from '../../../core/errors.ts';
import {
  compareEpochs,
  isNamedDistance,
  KNOWN_DIGESTS_MAX,
  LineWalk,
  ReceivedLog,
} from '../../../core/following/history.ts';
import { hex, sha256 } from '../../../core/unit.ts';
import { type PositionEntry, PositionEntrySchema } from '../../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { checkTranscript } from '../../support/golden.ts';

const NONE: Uint8Array = new Uint8Array();
const digestOf = (name: string) => sha256(Buffer.from(name));

/** Makes the position log of a history as the transcript writes it. */
function logOf(text: string): PositionEntry[] {
  const entries: PositionEntry[] = [];
  let [number, mint] = [1n, 0];
  for (const word of text === '-' ? [] : text.split(' ')) {
    const [, epoch, other, name = ''] = /^(?:(\d+)('?):)?(\w+)$/.exec(word) ?? [];
    if (epoch !== undefined) [number, mint] = [BigInt(epoch), other === "'" ? 1 : 0];
    entries.push(
      create(PositionEntrySchema, {
        graphId: 'g',
        epoch: { number, mintId: new Uint8Array(16).fill(mint) },
        sequence: BigInt(entries.length + 1),
        digest: digestOf(name),
        parentDigest: entries.at(-1)?.digest ?? NONE,
      }),
    );
  }
  return entries;
}

/** Returns what a follower with the log `own` does about a source with the log `source`. */
function decide(own: readonly PositionEntry[], source: readonly PositionEntry[]): string {
  const has = (log: readonly PositionEntry[], digest: Uint8Array) =>
    log.some((entry) => hex(entry.digest) === hex(digest));
  const [ownHead, sourceHead] = [own.at(-1), source.at(-1)];
  const order = compareEpochs(sourceHead?.epoch, ownHead?.epoch);
  if (sourceHead !== undefined && (order === 'older' || order === 'rival'))
    return `refuse: epoch is ${order}`;
  const common = source.findLastIndex(({ digest }) => has(own, digest));
  const log = new ReceivedLog('g', source[common]?.digest ?? NONE);
  for (const entry of source.slice(common + 1)) log.add(entry, has(own, entry.digest));
  const relation = log.relation({
    ownHead: ownHead?.digest,
    sourceHead: sourceHead?.digest ?? NONE,
    hasSourceHead: sourceHead !== undefined && has(own, sourceHead.digest),
  });
  if (relation.kind !== 'forked') return relation.kind;
  if (order !== 'newer') return 'refuse: two lines in one epoch';
  const shared = own.find(({ digest }) => hex(digest) === hex(relation.sharedDigest));
  return `keep what came after ${shared === undefined ? 'nothing' : `point ${shared.sequence}`} as a fork, then follow`;
}

describe('the histories of a follower and its source', () => {
  it('are compared as recorded in golden/histories.txt', () => {
    checkTranscript('histories.txt', (event) => {
      const [, own = '', source = ''] = /^own (.+) \| source (.+)$/.exec(event) ?? [];
      return decide(logOf(own), logOf(source));
    });
  });
});

describe('a received position log', () => {
  const [a, b, c] = logOf('a b 2:c') as [PositionEntry, PositionEntry, PositionEntry];
  const refused = (entries: readonly PositionEntry[], common = NONE) => {
    const log = new ReceivedLog('g', common);
    assert.throws(
      () => {
        for (const entry of entries) log.add(entry, false);
      },
      (error: unknown) => error instanceof LightkeeperError && error.code === 'PEER_INVALID',
    );
  };

  it('must be one chain of the graph, with advancing epochs and sequences', () => {
    refused([a, c]);
    refused([b], a.parentDigest.length === 0 ? c.digest : NONE);
    refused([{ ...a, graphId: 'other' }]);
    refused([a, { ...b, sequence: 1n }]);
    refused([{ ...a, sequence: 0n }]);
    refused([a, b, { ...c, epoch: { ...a.epoch!, number: 0n } }]);
    refused([a, { ...b, epoch: { ...a.epoch!, mintId: new Uint8Array(16).fill(9) } }]);
  });

  it('must end at the head that the source claims', () => {
    const log = new ReceivedLog('g', NONE);
    log.add(a, false);
    const sides = { ownHead: digestOf('mine'), sourceHead: b.digest, hasSourceHead: false };
    assert.throws(() => log.relation(sides), /does not end at the head/);
  });

  it('continues the entry that both sides have', () => {
    const after = (entry: PositionEntry, common: PositionEntry) =>
      new ReceivedLog('g', common.digest, { after: common }).add(entry, false);
    after(c, b);
    assert.throws(() => after({ ...c, epoch: { ...a.epoch!, number: 0n } }, b), /epochs do not advance/);
    assert.throws(() => after({ ...b, sequence: 1n }, a), /sequence does not advance/);
  });

  it('may begin in the middle where its beginning was lost', () => {
    const log = new ReceivedLog('g', NONE);
    log.add(b, false);
    log.add(c, false);
    assert.equal(log.count, 2);
  });
});

describe('the digests that a follower names', () => {
  it('are the newest ones, then ever fewer, and never too many', () => {
    const named = Array.from({ length: 1_000_000 }, (_, i) => i).filter(isNamedDistance);
    assert.deepEqual(named.slice(0, 15), [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 25, 32]);
    assert.ok(named.length < KNOWN_DIGESTS_MAX, String(named.length));
    // So what is sent again is at most about a third of what lies behind.
    for (let i = 20; i + 1 < named.length; i++)
      assert.ok((named[i + 1] as number) / (named[i] as number) < 1.35);
  });
});

describe('a walk along the line of a head', () => {
  it('leaves out what lies on forks', () => {
    const line = logOf('a b c 2:d e');
    const fork = logOf('a b x y').slice(2);
    const newestFirst = [...line, ...fork].sort((one, other) =>
      Number((other.epoch!.number - one.epoch!.number) * 100n + other.sequence - one.sequence),
    );
    const walk = new LineWalk(line.at(-1)!.digest);
    const walked = newestFirst.filter((entry) => walk.add(entry));
    assert.deepEqual(
      walked.map(({ sequence }) => sequence),
      [5n, 4n, 3n, 2n, 1n],
    );
    assert.deepEqual(walked, line.toReversed());
  });
});
