import assert from 'node:assert/strict';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { briefly, Case } from '../support/case.ts';
import { fill, fillGraph } from '../support/fill.ts';
import { tempFolder } from '../support/place.ts';
import { assertRefused, lightkeeper, runToEnd } from '../support/program.ts';
import { assertSameTree, readTree } from '../support/tree.ts';

/** Names that tools trip over, one character a byte. */
const ODD_NAMES: readonly string[] = [
  '\xff\xfe',
  'caf\xe9',
  '\xc0\xaf',
  '\xed\xa0\x80',
  '\xf4\x90\x80\x80',
  'cut short \xe4\xb8',
  'new\nline',
  '\n',
  'tab\tbell\x07escape\x1b[31mred',
  '\x7f\x01',
  'back\\slash',
  '\\xff',
  '\\',
  'trailing space ',
  ' ',
  '-rf',
  '--json',
  '...',
  '~',
  '$(id)',
  '* ? [a-z] {b}',
  '"quotes" \'and\' `more`',
  'n'.repeat(255),
  '\xe6'.repeat(255),
  'Readme',
  'README',
  'README.',
  bytesOf('é'.normalize('NFC')),
  bytesOf('é'.normalize('NFD')),
  bytesOf('\u2028separator'),
  bytesOf('\u202eright to left'),
  bytesOf('知识图谱.json'),
  '__proto__',
  'constructor',
  'con.tmp.1.2',
  '.lightkeeperx',
  'config.copy',
];

/** Names that no snapshot has: what LightRAG has half written, its locks, and what is our own. */
const LEFT_OUT: readonly string[] = ['x.json.tmp.1.22.333', '.lightrag_main_lock'];

function bytesOf(text: string): string {
  return Buffer.from(text).toString('latin1');
}

function below(dir: string, name: string): Buffer {
  return Buffer.concat([Buffer.from(`${dir}/`), Buffer.from(name, 'latin1')]);
}

async function oddCase(t: TestContext): Promise<{ place: string; subject: Case }> {
  const place = await tempFolder(t);
  const subject = new Case(join(place, 'data'), join(place, 'store'));
  mkdirSync(join(subject.dir, 'folders'), { recursive: true });
  for (const [i, name] of ODD_NAMES.entries()) {
    writeFileSync(below(subject.dir, name), `file ${i}`);
    const folder = below(`${subject.dir}/folders`, name);
    mkdirSync(folder);
    writeFileSync(Buffer.concat([folder, Buffer.from('/inner')]), `inner ${i}`);
    symlinkSync(Buffer.from(name, 'latin1'), below(subject.dir, `link-${i}`));
  }
  return { place, subject };
}

/** Makes folders in folders, each with a file, deeper than any path can name. */
async function makeDeep(dir: string, levels: number): Promise<void> {
  const script = `
    const fs = require('node:fs');
    for (let i = 0; i < ${levels}; i++) {
      const name = String(i).padStart(200, '0');
      fs.mkdirSync(name);
      process.chdir(name);
      fs.writeFileSync('file', String(i));
    }`;
  mkdirSync(dir);
  const { code, stderr } = await runToEnd([process.execPath, '-e', script], { cwd: dir });
  assert.equal(code, 0, stderr);
}

describe('file names', { concurrency: 2 }, () => {
  it('of any bytes are captured and restored', async (t) => {
    const { place, subject } = await oddCase(t);
    for (const name of LEFT_OUT) writeFileSync(below(`${subject.dir}/folders`, name), 'not kept');
    fill(subject.dir, { 'folders/.lightkeeper/kept': 'only the one at the top is ours' });
    const wanted = readTree(subject.dir);
    for (const name of LEFT_OUT) assert.ok(wanted.delete(`folders/${name}`));
    fill(subject.dir, { '.lightkeeper/stage/x': 'ours' });
    // A temporary sibling would be taken for a flush under way, for a minute.
    const { snapshotId, findings, cutMethod } = await subject.snapshot({ flags: ['--quiet', '0'] });
    assert.deepEqual(findings, []);
    assert.equal(cutMethod, 'SETTLED');
    await subject.restore(snapshotId, join(place, 'absent'));
    assertSameTree(wanted, join(place, 'absent'));
    mkdirSync(join(place, 'empty'));
    await subject.restore(snapshotId, join(place, 'empty'));
    assertSameTree(wanted, join(place, 'empty'));
    assert.equal((await subject.snapshot({ flags: ['--quiet', '0'] })).unchanged, true);
    await subject.assertSound();
  });

  it('are printed safely for a terminal and completely in JSON', async (t) => {
    const { subject } = await oddCase(t);
    await subject.snapshot();
    const { files } = await subject.show('latest');
    assert.equal(new Set(files.map(({ path }) => path)).size, files.length);
    const bytes = files.map(({ path, pathBytes }) =>
      Buffer.from(pathBytes ?? path.replaceAll('\\x5c', '\\'), pathBytes === undefined ? 'utf8' : 'base64'),
    );
    const top = bytes.map((path) => path.toString('latin1')).filter((path) => ODD_NAMES.includes(path));
    assert.deepEqual(top.sort(), [...ODD_NAMES].sort());
    assert.ok(files.some(({ path }) => path === 'caf\\xe9'));
    assert.ok(files.some(({ path }) => path === '\\x5cxff'));
    const { stdout } = await subject.run(['show', 'latest']);
    assert.doesNotMatch(stdout, /[\x00-\x09\x0b-\x1f\x7f-\x9f]/);
    assert.equal(stdout.split('\n').filter((line) => line.includes('new\\x0aline')).length, 4);
  });

  it('are selected by --path as they are printed', async (t) => {
    const { place, subject } = await oddCase(t);
    await subject.snapshot();
    const wanted = readTree(subject.dir);
    for (const [shown, name] of [
      ['caf\\xe9', 'caf\xe9'],
      ['\\x5cxff', '\\xff'],
      ['new\nline', 'new\nline'],
      ['知识*.json', bytesOf('知识图谱.json')],
      ['README', 'README'],
    ] as const) {
      const to = join(place, `part-${Buffer.from(name, 'latin1').toString('hex')}`);
      await subject.restore('latest', to, { flags: ['--path', shown] });
      const there = [...readTree(to).keys()];
      assert.deepEqual(there.sort(), ['folders', `folders/${name}`, `folders/${name}/inner`, name].sort());
      assert.equal(readTree(to).get(name)?.content, wanted.get(name)?.content, shown);
    }
  });

  it('of Lightkeeper itself at the top are excluded, an unfinished restore with a warning', async (t) => {
    const place = await tempFolder(t);
    const subject = new Case(join(place, 'data'), join(place, 'store'));
    fillGraph(subject.dir);
    const wanted = readTree(subject.dir);
    const mark = '.lightkeeper-incomplete';
    fill(subject.dir, { [mark]: 'A restore …', '.lightkeeper/journal': 'ours' });
    const { snapshotId, findings } = await subject.snapshot();
    assert.deepEqual(briefly(findings), [`restore_incomplete ${mark}`]);
    mkdirSync(join(place, 'there'));
    await subject.restore(snapshotId, join(place, 'there'));
    assertSameTree(wanted, join(place, 'there'));
  });

  it('beyond PATH_MAX are listed and the rest is captured', async (t) => {
    const place = await tempFolder(t);
    const subject = new Case(join(place, 'data'), join(place, 'stor'));
    await makeDeep(subject.dir, 25);
    fill(subject.dir, { beside: 'kept' });
    const { findings, snapshotId } = await subject.snapshot();
    assert.ok(findings.length >= 1);
    for (const { code, object, hint } of findings) {
      assert.equal(code, 'path_too_long', object);
      assert.match(hint, /short/);
      assert.ok(object.length > 3000);
    }
    await subject.restore(snapshotId, join(place, 'back'));
    assertSameTree(readTree(subject.dir), join(place, 'back'));
    assert.ok(readTree(join(place, 'back')).size > 38);
    // A longer target is one in which even the part that was kept cannot be named.
    const long = join(place, 'l'.repeat(200));
    mkdirSync(long);
    const words = ['restore', '--snapshot', 'latest', '--disk-reserve', '0', '--to', join(long, 'x')];
    assertRefused(await subject.run(words), { code: 1, error: /ENAMETOOLONG/, hint: /shorter path/ });
    assert.deepEqual(readTree(long).size, 0);
    await subject.assertSound();
  });

  it('of the directory itself may be any and are printed right in errors', async (t) => {
    const place = await tempFolder(t);
    const subject = new Case(join(place, '知识 图\n谱'), join(place, 'store é'));
    fillGraph(subject.dir);
    const { graphId } = await subject.snapshot();
    assert.match(graphId, /^[A-Za-z0-9]/);
    const back = join(place, 'zurück \\ \x1b');
    await subject.restore('latest', back);
    assertSameTree(readTree(subject.dir), back);
    const missing = new Case(join(place, '不在'), subject.store);
    const ended = await lightkeeper(['snapshot', '--dir', missing.dir, '--store', missing.store]);
    assertRefused(ended, { code: 1, error: /"[^"]*\/不在": it is not there/, hint: /--dir/ });
  });
});
