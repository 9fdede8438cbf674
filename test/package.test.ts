import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import * as zlib from 'node:zlib';
import { fill, fillGraph } from './support/fill.ts';
import { NO_REGISTRY, newerNode, npmInstall } from './support/newer-node.ts';
import { removeAll } from './support/place.ts';

const run = promisify(execFile);
const ROOT = join(import.meta.dirname, '..');

interface PackageFile {
  readonly name: string;
  readonly version: string;
}

function read(...path: string[]): string {
  return readFileSync(join(...path), 'utf8');
}

/** Folders of the packages whose code a file of the bundle contains: esbuild writes their paths above it. */
function bundledIn(text: string): string[] {
  // A package may hold its own version of another one.
  const folder = /^ *\/\/ ((?:node_modules\/(?:@[^/\n]+\/)?[^/\n]+\/)+)/gm;
  return [...text.matchAll(folder)].map(([, path]) => path ?? '');
}

describe('the package', () => {
  let place = '';
  let tarball = '';
  let names: readonly string[] = [];
  let installed = false;

  /** The program, as it is installed. */
  const program = () => join(place, 'app/node_modules/lightkeeper/dist/lightkeeper.js');

  before(async () => {
    place = await mkdtemp(join(tmpdir(), 'lightkeeper-package-'));
    const words = ['pack', '--ignore-scripts', '--json', '--pack-destination', place];
    const { stdout } = await run('npm', words, { cwd: ROOT });
    const [packed] = JSON.parse(stdout) as { filename: string; files: { path: string }[] }[];
    assert.ok(packed);
    tarball = join(place, packed.filename);
    names = packed.files.map(({ path }) => path);
    mkdirSync(join(place, 'app'));
    installed = await npmInstall(join(place, 'app'), [tarball]);
  });
  after(() => removeAll(place));

  test('holds the bundle, its protocol and its documents, and nothing that it was made from', () => {
    const parts =
      /^(?:dist\/[\w-]+\.js|proto\/[\w/]+\.proto|docs\/[\w/-]+\.(?:md|txt)|package\.json|[A-Z_]+(?:\.md)?)$/;
    assert.deepEqual(
      names.filter((name) => !parts.test(name)),
      [],
    );
    for (const name of [
      'dist/lightkeeper.js',
      'dist/worker.js',
      'LICENSE',
      'THIRD_PARTY_NOTICES',
      'README.md',
    ])
      assert.equal(names.includes(name), true, name);
    for (const name of names.filter((one) => one.endsWith('.js')))
      assert.doesNotMatch(read(ROOT, name), /^\/\/# sourceMappingURL=/m, name);
  });

  test('names every package that it contains, with version and licence', () => {
    const scripts = names.filter((name) => name.endsWith('.js'));
    const bundled = [...new Set(scripts.flatMap((name) => bundledIn(read(ROOT, name))))].sort();
    assert.equal(bundled.includes('node_modules/@bufbuild/protobuf/'), true);
    const [, ...notices] = read(ROOT, 'THIRD_PARTY_NOTICES').split(/^-{80}$/m);
    const wanted = bundled.map((folder) => {
      const { name, version } = JSON.parse(read(ROOT, folder, 'package.json')) as PackageFile;
      return `${name} ${version}`;
    });
    assert.deepEqual(notices.map((notice) => notice.trim().split('\n')[0]).sort(), wanted.sort());
    for (const notice of notices) {
      assert.match(notice, /copyright/i);
      assert.match(notice, /permission|Apache License\s+Version 2\.0/i);
    }
  });

  test('installs from the registry, and tells its version', async (t) => {
    if (!installed) {
      t.skip(NO_REGISTRY);
      return;
    }
    const { version } = JSON.parse(read(ROOT, 'package.json')) as PackageFile;
    const { stdout } = await run(process.execPath, [program(), '--version']);
    assert.equal(stdout.trim(), version);
  });

  test('exports no code', async (t) => {
    if (!installed) {
      t.skip(NO_REGISTRY);
      return;
    }
    const resolve = (name: string) =>
      run(process.execPath, ['-p', `require.resolve('${name}')`], { cwd: join(place, 'app') });
    await resolve('lightkeeper/package.json');
    await resolve('lightkeeper/proto/lightkeeper/v1/agent.proto');
    for (const name of ['lightkeeper', 'lightkeeper/dist/worker.js'])
      await assert.rejects(resolve(name), /ERR_PACKAGE_PATH_NOT_EXPORTED/);
  });

  // Without its script zstd-napi is there and not compiled.
  const skip = 'zstdCompressSync' in zlib ? 'this Node has zstd' : false;
  test('says what is lacking where neither a compiler nor Node gave it zstd', { skip }, async (t) => {
    if (!installed) {
      t.skip(NO_REGISTRY);
      return;
    }
    const dir = join(place, 'lacking');
    mkdirSync(dir);
    fill(dir, { 'a.json': '{}' });
    for (const command of ['snapshot', 'up']) {
      const words = [program(), command, '--dir', dir, '--store', join(place, 'never')];
      const failure: unknown = await run(process.execPath, words).catch((error: unknown) => error);
      assert.ok(failure instanceof Error && 'stderr' in failure && 'code' in failure, 'it fails');
      assert.equal(failure.code, 1);
      assert.match(
        String(failure.stderr),
        /^error: Cannot load "zstd-napi": .*\nhint: use Node 22\.15 or newer/,
      );
    }
  });

  test('takes, verifies and restores a snapshot with the zstd of a newer Node', async (t) => {
    const newer = installed ? await newerNode() : undefined;
    if (newer === undefined) {
      t.skip(NO_REGISTRY);
      return;
    }
    const [dir, store, restored] = ['graph', 'store', 'restored'].map((name) => join(place, name)) as [
      string,
      string,
      string,
    ];
    mkdirSync(dir);
    fillGraph(dir);
    const lightkeeper = (...words: string[]) => run(newer, [program(), ...words, '--store', store]);
    await lightkeeper('snapshot', '--dir', dir);
    await lightkeeper('verify', '--level', 'bytes');
    await lightkeeper('restore', '--snapshot', 'latest', '--to', restored);
    await run('diff', ['-r', dir, restored]);
  });
});
