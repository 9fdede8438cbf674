import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { linkSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { Place, suite } from '../support/cli-place.ts';
import { noise } from '../support/fill.ts';
import { BUILT, runToEnd } from '../support/program.ts';

/** Bytes of no text, longer than one part of the reply and than a pipe holds. */
const LONG = noise('dump', 1_500_000);

async function hashOfDump(place: Place, ...words: string[]): Promise<string> {
  const command = `node ${BUILT} dump ${words.join(' ')} --store ${place.store} | sha256sum; exit \${PIPESTATUS[0]}`;
  const ended = await runToEnd(['bash', '-c', command], { env: place.env, cwd: place.root });
  assert.equal(ended.code, 0, ended.stderr);
  return ended.stdout.slice(0, 64);
}

function sha256(bytes: string | Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

suite('dump', () => {
  it('writes the bytes of one file, from a free store and through an agent', async () => {
    const place = new Place();
    mkdirSync(join(place.dir, 'sub'));
    writeFileSync(Buffer.from(join(place.dir, 'sub/\xff'), 'latin1'), 'odd name');
    await place.snapshot({ long: LONG, empty: '' });
    const all = async () => [
      await hashOfDump(place, 'latest', 'long'),
      await hashOfDump(place, 'latest-valid', 'empty'),
      await hashOfDump(place, 'latest', "'sub/\\xff'"),
    ];
    const wanted = [sha256(LONG), sha256(''), sha256('odd name')];
    assert.deepEqual(await all(), wanted);
    const agent = await place.up();
    assert.deepEqual(await all(), wanted);
    assert.equal((await agent.stop()).code, 0);
  });

  it('follows a hard link and refuses what is no file', async () => {
    const place = new Place();
    place.write('a', 'content');
    linkSync(join(place.dir, 'a'), join(place.dir, 'b'));
    symlinkSync('a', join(place.dir, 'c'));
    mkdirSync(join(place.dir, 'd'));
    await place.snapshot();
    assert.equal(await hashOfDump(place, 'latest', 'b'), sha256('content'));
    const store = ['--store', place.store];
    for (const name of ['c', 'd'])
      assert.match(await place.failsPlainly(['dump', 'latest', name, ...store], 2), /it is not a file/);
    assert.match(await place.failsPlainly(['dump', 'latest', 'e', ...store], 1), /there is no such name/);
  });

  it('ends with 1 at a wrong byte', async () => {
    const place = new Place();
    await place.snapshot({ a: 'x'.repeat(10_000) });
    place.damage();
    const ended = await place.run(['dump', 'latest', 'a', '--store', place.store]);
    assert.equal(ended.code, 1, ended.stderr);
    assert.match(ended.stderr, /^error: Cannot /);
  });
});
