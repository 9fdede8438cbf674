import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { errorLines, oneDocument, Place, suite, there } from '../support/cli-place.ts';
import { BUILT, runToEnd } from '../support/program.ts';

const PACKAGE = JSON.parse(readFileSync(join(import.meta.dirname, '../../package.json'), 'utf8')) as {
  version: string;
  bin: Record<string, string>;
};

/** Every command that the contract names, with arguments as it writes them. */
const CONTRACT = `
up --dir .|demo --keep|agent --config f.yaml|gate --agent http://127.0.0.1:9701|controller
snapshot --dir .|list|show latest|restore --snapshot latest --to x|verify|validate --dir .|diff a b
prune --keep-last 1|repair|delete latest|pin latest|unpin latest|tag latest a=b|findings accept|ack 1
export --document 1|dump latest a|stats|status|graphs|agents|targets list|replicate|checkpoint create|schedule
switchover|failover --dry-run|plan show|pause|resume|drill|operations list|events|audit
keys create|ca init|token create|config check|config schema|version`
  .trim()
  .split(/[|\n]/)
  .map((line) => line.split(' '));

/** What the contract says of this version. */
const WORKS = [
  'up',
  'demo',
  'snapshot',
  'list',
  'show',
  'restore',
  'dump',
  'verify',
  'prune',
  'repair',
  'delete',
  'pin',
];

/** The commands that the help lists. */
const listed = new Place().run(['--help']).then(({ stdout }) => {
  const [, commands = ''] = stdout.split('Commands:');
  return new Set([...commands.matchAll(/^ {2}([a-z]+)/gm)].map(([, word]) => word));
});

suite('the program', () => {
  it('can be executed directly, as npx does', async () => {
    assert.deepEqual(PACKAGE.bin, { lightkeeper: 'dist/lightkeeper.js' });
    const place = new Place();
    const { code, stdout, stderr } = await runToEnd([BUILT, '--version'], { env: place.env });
    assert.deepEqual([code, stderr, stdout], [0, '', `${PACKAGE.version}\n`]);
  });

  it('prints its help without a command', async () => {
    const place = new Place();
    const { code, stdout } = await place.run([]);
    assert.equal(code, 0);
    assert.equal(stdout, (await place.run(['help'])).stdout);
  });

  it('writes nothing when it only prints', async () => {
    const place = new Place();
    await place.run(['--help']);
    await place.run(['list']);
    assert.equal(!there(place.path('state')) && !there(place.store), true);
  });
});

suite('a command of the contract', () => {
  for (const args of CONTRACT) {
    const [word = ''] = args;
    it(`${word} is in --help or is refused as not in this version`, async () => {
      const place = new Place();
      if ((await listed).has(word)) {
        const help = await place.run([word, '--help']);
        assert.deepEqual([help.code, help.stderr], [0, '']);
        assert.match(help.stdout, new RegExp(`^Usage: lightkeeper ${word}\\b`));
        return;
      }
      assert.ok(!WORKS.includes(word), `${word} is in --help`);
      const { code, message } = await place.fails(args, 2);
      assert.equal(code, 'UNIMPLEMENTED');
      assert.match(String(message), /not in this version/);
    });
  }

  it('that is not in this version has no help', async () => {
    const place = new Place();
    const known = await listed;
    const first = CONTRACT.map(([word = '']) => word).find((word) => !known.has(word));
    if (first === undefined) return; // All are built.
    for (const args of [
      [first, '--help'],
      ['help', first],
    ]) {
      const { message } = await place.fails(args, 2);
      assert.match(String(message), /not in this version/);
    }
  });
});

suite('wrong usage', () => {
  const wrong: [string, string[]][] = [
    ['an unknown command', ['frobnicate']],
    ['an unknown command that help is asked of', ['help', 'frobnicate']],
    ['an unknown flag before a command', ['--frobnicate', 'list']],
    ['an unknown flag', ['list', '--frobnicate']],
    ['an argument too many', ['list', 'x']],
    ['an argument too few', ['show']],
    ['a flag without its value', ['list', '--store']],
    ['no directory', ['snapshot']],
    ['an empty directory name', ['snapshot', '--dir', '']],
    ['a tag without a value', ['snapshot', '--dir', '.', '--tag', 'release']],
    ['a tag without a key', ['snapshot', '--dir', '.', '--tag', '=1']],
    ['a time that is none', ['snapshot', '--dir', '.', '--settle-timeout', 'soon']],
    ['a time beyond all waiting', ['snapshot', '--dir', '.', '--settle-timeout', '100d']],
    ['a size that is none', ['snapshot', '--dir', '.', '--disk-reserve', 'much']],
    ['a size beyond all disks', ['snapshot', '--dir', '.', '--disk-reserve', `${'9'.repeat(400)}GiB`]],
    ['no snapshot to restore', ['restore', '--to', 'x']],
    ['nowhere to restore to', ['restore', '--snapshot', 'latest']],
    ['two places to restore to', ['restore', '--snapshot', 'latest', '--to', 'x', '--in-place', 'x']],
    ['a part in place', ['restore', '--snapshot', 'latest', '--in-place', 'x', '--path', 'a']],
    ['evidence without --in-place', ['restore', '--snapshot', 'latest', '--to', 'x', '--instance-stopped']],
    [
      'two kinds of evidence',
      [
        'restore',
        '--snapshot',
        'latest',
        '--in-place',
        'x',
        '--instance-stopped',
        '--instance-url',
        'http://x',
      ],
    ],
    ['a count that is none', ['prune', '--keep-last', 'many']],
    ['a negative count', ['prune', '--keep-last', '-1']],
    ['a level that is none', ['verify', '--level', 'deep']],
  ];
  for (const [what, args] of wrong) {
    it(`exits 2 for ${what} and writes nothing`, async () => {
      const place = new Place();
      await place.fails(args, 2);
      assert.equal(!there(place.path('state')) && !there(place.path('x')), true);
    });
  }

  it('prints nothing on standard output without --json', async () => {
    const place = new Place();
    place.write('foreign', '');
    const plain: [number, string[]][] = [
      [2, ['frobnicate']],
      [2, ['validate2', '--dir', '.']],
      [2, ['list', '--frobnicate']],
      [1, ['list', '--store', place.store]],
      [4, ['snapshot', '--dir', place.root, '--store', place.dir]],
      [2, ['up', '--dir', '.', '--http', 'here']],
      [2, ['up']],
    ];
    for (const [code, args] of plain) await place.failsPlainly(args, code);
  });

  it('exits 2 for an invalid graph id', async () => {
    const place = new Place();
    for (const graph of ['a b', 'a\nb', '../x', 'x'.repeat(129)])
      await place.fails(['snapshot', '--dir', place.dir, `--graph=${graph}`, '--store', place.store], 2);
  });

  it('exits 2 for a directory that is a file', async () => {
    const place = new Place();
    place.write('file', '');
    await place.fails(['snapshot', '--dir', join(place.dir, 'file'), '--store', place.store], 2);
  });
});

suite('a failing command', () => {
  it('exits 1 for a missing store, directory or snapshot', async () => {
    const place = new Place();
    for (const command of ['list', 'repair']) await place.fails([command, '--store', place.store], 1);
    await place.fails(['snapshot', '--dir', place.path('none'), '--store', place.path('other')], 1);
    await place.snapshot({ a: 'a' });
    const { message } = await place.fails(['show', '0000000000', '--store', place.store], 1);
    assert.equal(message, 'Cannot find the snapshot "0000000000": there is none');
    await place.fails(['show', 'latest', '--graph', 'other', '--store', place.store], 1);
  });

  it('exits 4 for a store path with foreign files and leaves them alone', async () => {
    const place = new Place();
    place.write('a', 'a');
    await place.fails(['snapshot', '--dir', place.root, '--store', place.dir], 4);
    assert.equal(readFileSync(join(place.dir, 'a'), 'utf8'), 'a');
  });

  it('exits 4 if it would use the disk reserve', async () => {
    const place = new Place();
    place.write('a', 'a');
    const reserve = ['--disk-reserve', '1000TiB'];
    const { message } = await place.fails(
      ['snapshot', '--dir', place.dir, '--store', place.store, ...reserve],
      4,
    );
    assert.match(String(message), /disk reserve/);
    await place.snapshot();
    const restore = ['restore', '--snapshot', 'latest', '--to', place.path('to'), '--store', place.store];
    await place.fails([...restore, ...reserve], 4);
    assert.equal(there(place.path('to')), false);
  });

  it('prints a name with control characters on one line', async () => {
    const place = new Place();
    const { stderr } = await place.run(['snapshot', '--dir', 'a\n\x1b[2Jb', '--store', place.store]);
    errorLines({ code: 1, stdout: '', stderr }, 'a name');
    assert.equal(stderr.includes('\x1b'), false);
  });
});

suite('an interrupted command', () => {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    it(`exits 130 on ${signal} and leaves a store that works`, async () => {
      const place = new Place();
      place.write('a', 'a');
      const waiting = ['--quiet', '1h', '--settle-timeout', '1h', '--store', place.store];
      const running = place.start(['snapshot', '--dir', place.dir, ...waiting, '--json']);
      const holder = join(place.store, 'owner', 'holder.json');
      await running.until('the store is taken', () => there(holder));
      const { error } = { error: await place.fails(['list', '--store', place.store], 4) };
      assert.equal(error.code, 'IN_USE');
      const outcome = await running.stop(signal);
      assert.deepEqual([outcome.code, outcome.signal], [130, null]);
      errorLines(outcome, signal);
      assert.equal('error' in oneDocument(outcome), true);
      assert.deepEqual(await place.ids(), []);
      await place.snapshot();
      assert.equal((await place.ids()).length, 1);
    });
  }
});
