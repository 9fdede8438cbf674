import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { encodeFrame, frameCap } from '../../agent/pack/frame.ts';
import { BULK_CODECS } from '../../agent/peer/bulk-codec.ts';
import { splitFrame } from '../../agent/peer/frame-parts.ts';
import { UNIT_ID_BYTES } from '../../core/unit.ts';
import { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import { FetchUnitsResponseSchema, PeerService } from '../../gen/lightkeeper/v1/peer_pb.ts';
import { grpcService, serveGrpc } from '../../host/grpc/server.ts';
import { newAuthority } from '../support/certificates.ts';
import { flipByte, loseData } from '../support/damage.ts';
import { fillGraph, noise } from '../support/fill.ts';
import { type Json, type Machine, machines } from '../support/machines.ts';
import { atEnd, type Scope, until } from '../support/place.ts';
import type { Running } from '../support/program.ts';

const WHOLE = 'damaged snapshots are whole again';
/** Reads every pack within this time. */
const FAST = ['--scrub', '2s'];
const SLOW = ['--scrub', '0'];

const DAMAGES: Readonly<Record<string, (store: string) => void>> = {
  'a flipped byte of a file': (store) => void flipByte(store, UnitKind_Value.BYTES),
  'a flipped byte of a list of files': (store) => void flipByte(store, UnitKind_Value.FILES),
  'a flipped byte of a manifest': (store) => void flipByte(store, UnitKind_Value.MANIFEST),
  'missing packs': loseData,
};

/** A source with two points, and a follower that holds both; neither agent runs. */
async function twoMachines(t: Scope): Promise<[Machine, Machine]> {
  const [a, b] = (await machines(t, 'a', 'b')) as [Machine, Machine];
  fillGraph(a.dir);
  writeFileSync(join(a.dir, 'large'), noise('large', 3_000_000));
  await a.guard(...SLOW);
  await until('a first point', async () => (await a.list()).length === 1);
  fillGraph(a.dir, 2);
  await until('a second point', async () => (await a.list()).length === 2);
  await b.follow(a, ...SLOW);
  await b.caughtUp();
  await until('the follower has graded', async () =>
    (await b.list()).every(({ grade }) => grade === 'VALID'),
  );
  await b.stop();
  await a.stop();
  return [a, b];
}

/** Waits until a follower of a machine is connected; one that was there before is listed meanwhile, too. */
async function isConnected(machine: Machine): Promise<void> {
  const states = async () => ((await machine.graph()).followers as Json[]).map(({ state }) => state);
  await until('the follower is connected', async () =>
    (await states()).some((one) => one !== 'DISCONNECTED'),
  );
}

async function isHealed(agent: Running, machine: Machine): Promise<void> {
  await until('the agent has healed', () => agent.stderr.includes(WHOLE), 60_000);
  await until(
    'all points are usable',
    async () => (await machine.list()).every(({ usable }) => usable),
    60_000,
  );
  await machine.verified();
}

const codes = (result: Json) => (result.findings as Json[]).map(({ code }) => code);

/** Serves FetchUnits with frames that do not hash to what was asked for. Returns the URL. */
async function liar(t: Scope): Promise<string> {
  const handlers = {
    fetchUnits: async function* ({ unitIds }: { unitIds: Uint8Array }) {
      if (unitIds.length === 0) return;
      const bytes = noise('other', 5000);
      const out = Buffer.alloc(frameCap(1, bytes.length));
      const ids = Buffer.from(unitIds.subarray(0, UNIT_ID_BYTES));
      const content = { kind: UnitKind_Value.BYTES, ids, lengths: [bytes.length], bytes };
      const frame = out.subarray(0, encodeFrame(out, content).length);
      for (const value of splitFrame(1n, frame))
        yield create(FetchUnitsResponseSchema, { message: { case: 'framePart', value } });
    },
  };
  const service = grpcService(PeerService, handlers as never, BULK_CODECS);
  const { port, close } = await serveGrpc({ host: '127.0.0.1', port: 0, fallback: false }, [service], {});
  atEnd(t, () => close(0));
  return `http://127.0.0.1:${port}`;
}

describe('healing by itself', { concurrency: 2 }, () => {
  it('replaces flipped bytes of every kind and missing packs at the source from its follower', async (t) => {
    const [a, b] = await twoMachines(t);
    await b.start('--graph', 'g', '--follow', a.url, ...SLOW);
    for (const [what, damage] of Object.entries(DAMAGES)) {
      t.diagnostic(what);
      damage(a.store);
      const agent = await a.guard(...FAST);
      if (what !== 'a flipped byte of a manifest') await isHealed(agent, a);
      else await until('the pack is set aside', () => agent.stderr.includes('pack_quarantined'), 60_000);
      await a.verified();
      await a.stop();
      await a.verified();
    }
  });

  it('replaces a flipped byte and missing packs at the follower from its source', async (t) => {
    const [a, b] = await twoMachines(t);
    await a.guard(...SLOW);
    flipByte(b.store, UnitKind_Value.BYTES);
    await isHealed(await b.follow(a, ...FAST), b);
    await b.stop();
    loseData(b.store);
    await isHealed(await b.follow(a, ...FAST), b);
  });

  it('finds and remembers damage without a peer, and heals when one connects', async (t) => {
    const [a, b] = await twoMachines(t);
    loseData(a.store);
    const agent = await a.guard(...FAST);
    // The directory still holds what the newest point needs, so a capture may store that again.
    const oldest = async () => (await a.list()).at(-1)?.usable;
    await until('the oldest point is damaged', async () => (await oldest()) === false, 60_000);
    assert.match(agent.stderr, /pack_missing/);
    assert.match(agent.stderr, /snapshot_damaged/);
    const [, http] = /http=(\S+)/.exec(agent.stderr) ?? [];
    const metrics = async () => await (await fetch(`http://${http}/metrics`)).text();
    const isCovered = async () => (await metrics()).includes('lightrag_scrub_coverage_ratio 1');
    await until('every pack is read', isCovered, 60_000);
    await a.stop();
    assert.equal(await oldest(), false, 'the damage outlives the agent');
    const again = await a.guard(...SLOW);
    await b.follow(a, ...SLOW);
    await isHealed(again, a);
    assert.match(again.stderr, /from=b/);
  });

  it('begins soon after a read has met damage', async (t) => {
    const [a, b] = await twoMachines(t);
    const agent = await a.guard(...SLOW);
    await b.follow(a, ...SLOW);
    await isConnected(a);
    loseData(a.store);
    await a.json(['restore', 'latest', '--to', join(a.root, 'out')], 1);
    await until('the agent has healed', () => agent.stderr.includes(WHOLE), 60_000);
    await a.json(['restore', 'latest', '--to', join(a.root, 'out2')]);
    await a.verified();
  });
});

describe('repair --from', { concurrency: 2 }, () => {
  it('replaces flipped bytes of every kind and missing packs in a store that no agent has open', async (t) => {
    const [a, b] = await twoMachines(t);
    await b.start('--graph', 'g', '--follow', a.url, ...SLOW);
    for (const [what, damage] of Object.entries(DAMAGES)) {
      t.diagnostic(what);
      damage(a.store);
      const dry = await a.json(['repair', '--from', b.url, '--dry-run'], 3);
      const isManifest = what === 'a flipped byte of a manifest';
      if (!isManifest) assert.equal(codes(dry).includes('would_fetch'), true, String(codes(dry)));
      const result = await a.json(['repair', '--from', b.url]);
      assert.equal(result.unhealed, 0);
      assert.ok(Number(result.healed) > 0);
      assert.equal(codes(result).includes('snapshot_damaged'), false);
      await a.verified();
      assert.deepEqual(
        (await a.list()).map(({ usable }) => usable),
        [true, true],
      );
    }
  });

  it('asks a follower or the source by name where an agent runs', async (t) => {
    const [a, b] = await twoMachines(t);
    await a.guard(...SLOW);
    await b.follow(a, ...SLOW);
    await isConnected(a);
    await a.json(['repair', '--from', 'nobody'], 1);
    loseData(a.store);
    const atSource = await a.json(['repair', '--from', 'b']);
    assert.equal(atSource.unhealed, 0);
    assert.ok(Number(atSource.healed) > 0);
    await a.verified();
    loseData(b.store);
    const atFollower = await b.json(['repair', '--from', 'source']);
    assert.equal(atFollower.unhealed, 0);
    await b.verified();
  });

  it('reports what the peer lacks too, and keeps what it has', async (t) => {
    const [a, b] = await twoMachines(t);
    loseData(b.store);
    await b.start('--graph', 'g', '--follow', a.url, ...SLOW);
    loseData(a.store);
    const result = await a.json(['repair', '--from', b.url], 3);
    assert.ok(Number(result.unhealed) > 0);
    assert.equal(codes(result).includes('not_healed'), true, String(codes(result)));
    assert.equal(codes(result).includes('snapshot_damaged'), true);
    assert.deepEqual(
      (await a.list()).map(({ usable }) => usable),
      [false, false],
    );
  });

  it('asks over TLS as a target of the other agent, and as nobody else', async (t) => {
    const [a, b] = await twoMachines(t);
    const authority = await newAuthority();
    const { cert, key, ca } = await authority.issue('a');
    await a.guard(...SLOW, '--tls-cert', cert, '--tls-key', key, '--tls-ca', ca, '--targets', '[{name: b}]');
    loseData(b.store);
    const asking = async (name: string, code: number) => {
      const own = await authority.issue(name);
      const tls = ['--cert', own.cert, '--key', own.key, '--ca', own.ca];
      return await b.json(['repair', '--from', `https://127.0.0.1:${a.port}`, ...tls], code);
    };
    const { error } = await asking('c', 4);
    assert.equal((error as Json).code, 'REFUSED');
    assert.equal((await asking('b', 0)).unhealed, 0);
    await b.verified();
  });

  it('refuses a peer that sends other bytes, or cannot be reached', async (t) => {
    const [a] = await twoMachines(t);
    loseData(a.store);
    const result = await a.json(['repair', '--from', await liar(t)], 3);
    assert.ok(Number(result.unhealed) > 0);
    const failed = (result.findings as Json[]).find(({ code }) => code === 'peer_failed');
    assert.match(String(failed?.message), /^PEER_INVALID: /);
    await a.json(['repair', '--from', 'http://127.0.0.1:1'], 1);
    await a.json(['repair', '--from', 'b'], 1);
    const { error } = await a.json(['repair', '--from', 'https://127.0.0.1:1'], 2);
    assert.match(String((error as Json).message), /https needs a certificate/);
  });
});
