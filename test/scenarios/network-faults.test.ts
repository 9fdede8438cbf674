import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fillGraph, noise } from '../support/fill.ts';
import { type Machine, machines } from '../support/machines.ts';
import { type Scope, until } from '../support/place.ts';
import type { Running } from '../support/program.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';

/** Content of the directory: more than what may be on its way. */
const NEW_BYTES = 30_000_000;
/** A silent connection is noticed by keep-alive pings within a quarter of a minute. */
const WAIT_MS = 90_000;
/** Memory must not grow with what is lost on the way; how much a stream needs is measured by the bench. */
const RSS_BYTES_MAX = 400e6;

/** A source with one point, and a follower that reaches it through a proxy. */
async function throughProxy(t: Scope, prepare: (proxy: TcpProxy) => void = () => {}) {
  const [a, b] = (await machines(t, 'a', 'b')) as [Machine, Machine];
  fillGraph(a.dir);
  writeFileSync(join(a.dir, 'new'), noise('new', NEW_BYTES));
  const source = await a.guard();
  await until('a first point', async () => (await a.ids()).length === 1);
  const proxy = await TcpProxy.to(a.port, t);
  prepare(proxy);
  const follower = await b.start('--graph', 'g', '--follow', proxy.url);
  return { a, b, source, follower, proxy };
}

async function converged(a: Machine, b: Machine): Promise<void> {
  const isSame = async () => {
    const [ours, theirs] = [await a.ids(), await b.ids()];
    return ours.every((id) => theirs.includes(id));
  };
  await until('the follower has every point', isSame, WAIT_MS);
  await b.verified();
}

/** Fails if an agent has ever held more memory than it may. */
function assertFlat(...agents: Running[]): void {
  for (const { pid } of agents) {
    const [, kB = ''] = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
    assert.ok(Number(kB) * 1024 < RSS_BYTES_MAX, `${kB} kB`);
  }
}

describe('a network between source and follower', { concurrency: 2 }, () => {
  it('that cuts every connection again and again lets them converge', async (t) => {
    const { a, b, source, follower, proxy } = await throughProxy(t);
    for (let cut = 0; cut < 12; cut++) {
      await sleep(150);
      proxy.cut();
    }
    await converged(a, b);
    assertFlat(source, follower);
  });

  it('that swallows what is sent on open connections is noticed, and they converge', async (t) => {
    const { a, b, source, follower, proxy } = await throughProxy(t, (one) => {
      one.onBytes = (bytes) => {
        if (bytes > NEW_BYTES / 3) one.isSwallowing = true;
      };
    });
    await until('the connection is silent', () => proxy.isSwallowing, WAIT_MS);
    await until(
      'the follower has noticed',
      () => /Cannot follow ".*": its agent does not answer/.test(follower.stderr),
      WAIT_MS,
    );
    proxy.onBytes = () => {};
    proxy.isSwallowing = false;
    await converged(a, b);
    assertFlat(source, follower);
  });

  it('with a round trip of a fifth of a second lets them converge', async (t) => {
    const { a, b, source, follower } = await throughProxy(t, (one) => {
      one.delayMs = 100;
    });
    await converged(a, b);
    fillGraph(a.dir, 2);
    await until('a second point', async () => (await a.ids()).length === 2);
    await converged(a, b);
    assertFlat(source, follower);
  });
});
