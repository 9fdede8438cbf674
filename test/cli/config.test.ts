import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { it } from 'node:test';
import { errorLines, type Json, listOf, oneDocument, Place, suite, there } from '../support/cli-place.ts';

/** A place with a file of settings, which lies beside the directory. */
function placeWith(lines: string): Place {
  const place = new Place();
  place.write('a', 'a');
  writeFileSync(place.path('config.yaml'), lines);
  return place;
}

const GOOD = 'store: store\nhttp: 127.0.0.1:0\ngraphs:\n  - id: main\n    dir: rag\n    quiet: 100ms\n';
const WRONG = 'http: here\ngraphs:\n  - dri: rag\n    quiet: -1\n';
const CHECK = ['config', 'check', '--config', 'config.yaml'];

suite('config check', () => {
  it('prints the effective settings and the origin of each', async () => {
    const place = placeWith(GOOD);
    const { code, stdout, stderr } = await place.run([...CHECK, '--min-interval', '2s'], {
      LIGHTKEEPER_DISK_RESERVE: '2GiB',
      LIGHTRAG_RECOVERY_ENABLED: 'true',
    });
    assert.deepEqual([code, stderr], [0, '']);
    for (const line of [
      /^state +\S+\/state +\(environment LIGHTKEEPER_STATE\)$/m,
      /^store +\S+\/store +\(config\.yaml:1\)$/m,
      /^disk_reserve +2GiB +\(environment LIGHTKEEPER_DISK_RESERVE\)$/m,
      /^graphs\[0\]\.dir +\S+\/rag +\(config\.yaml:5\)$/m,
      /^graphs\[0\]\.min_interval +2s +\(flag --min-interval\)$/m,
      /^graphs\[0\]\.split +true +\(default\)$/m,
      /^warning: LIGHTRAG_RECOVERY_ENABLED is not used: not in this version$/m,
    ])
      assert.match(stdout, line);
    assert.equal(there(place.store), false);
  });

  it('prints one document with --json, and the same problems', async () => {
    const place = placeWith(GOOD);
    const good = oneDocument(await place.run([...CHECK, '--json']));
    assert.deepEqual(Object.keys(good), ['settings', 'warnings', 'problems']);
    assert.deepEqual([good.warnings, good.problems], [[], []]);
    for (const row of listOf(good, 'settings'))
      assert.deepEqual(Object.keys(row), ['key', 'value', 'origin']);
    const quiet = listOf(good, 'settings').find(({ key }) => key === 'graphs[0].quiet');
    assert.deepEqual(quiet, { key: 'graphs[0].quiet', value: '100ms', origin: 'config.yaml:6' });

    writeFileSync(place.path('config.yaml'), WRONG);
    const outcome = await place.run([...CHECK, '--json']);
    assert.equal(outcome.code, 2);
    const { problems } = oneDocument(outcome) as { problems: string[] };
    assert.deepEqual(
      problems.map((problem) => problem.split(': ').slice(0, 2).join(' ')),
      ['config.yaml:1 http', 'config.yaml:3 graphs[0].dri', 'config.yaml:4 graphs[0].quiet'],
    );
    for (const problem of problems) assert.ok(outcome.stderr.includes(`\n  ${problem}\n`), outcome.stderr);
  });

  it('exits 2 and lists all problems at once, as the agent does', async () => {
    const place = placeWith(WRONG);
    const check = await place.run(CHECK);
    const agent = await place.run(['agent', '--config', 'config.yaml']);
    assert.deepEqual([check.code, agent.code, agent.stdout], [2, 2, '']);
    assert.equal(check.stderr, agent.stderr);
    assert.match(check.stderr, /^error: Cannot use the settings: 3 problems\n {2}config\.yaml:1: http: .+\n/);
    assert.match(check.stderr, /\n {2}config\.yaml:3: graphs\[0\]\.dri: unknown key; did you mean "dir"\?\n/);
    assert.match(check.stderr, /\nhint: .+\n$/);
    assert.equal(there(place.path('state')), false);
  });

  it('prints a single problem on one line', async () => {
    const place = placeWith('graphs: [{dir: rag}]\nprofile: fast\n');
    errorLines(await place.run(CHECK), 'one problem');
    const told = await place.failsPlainly(['agent', '--config', 'config.yaml'], 2);
    assert.match(told, /^error: Cannot use the settings: config\.yaml:2: profile: not in this version\n/);
    for (const args of [['agent', '--config', 'none.yaml'], ['agent'], ['config'], ['config', 'look']])
      await place.failsPlainly(args, 2);
  });

  it('never prints a secret', async () => {
    const place = placeWith(`${GOOD}    instance_url: http://127.0.0.1:1\n    api_key_file: key\n`);
    writeFileSync(place.path('key'), 'SECRET-FILE\n');
    const env = { LIGHTRAG_API_KEY: 'SECRET-VARIABLE' };
    const ofFile = await place.run(CHECK, env);
    assert.match(ofFile.stdout, /^graphs\[0\]\.api_key +set +\(config\.yaml:8\)$/m);
    writeFileSync(place.path('key'), 'SECRET FILE\nof two lines');
    const wrong = await place.run([...CHECK, '--json'], env);
    assert.equal(wrong.code, 2);
    const variable = await place.run(['config', 'check', '--dir', 'rag', '--instance-url', 'http://h'], env);
    assert.match(variable.stdout, /^graphs\[0\]\.api_key +set +\(environment LIGHTRAG_API_KEY\)$/m);
    for (const { stdout, stderr } of [ofFile, wrong, variable])
      assert.equal(`${stdout}${stderr}`.includes('SECRET'), false);
  });
});

suite('config schema', () => {
  it('prints one JSON Schema of the settings file', async () => {
    const outcome = await new Place().run(['config', 'schema']);
    assert.deepEqual([outcome.code, outcome.stderr], [0, '']);
    const { $schema, properties } = oneDocument(outcome);
    assert.equal($schema, 'https://json-schema.org/draft/2020-12/schema');
    assert.ok(Object.hasOwn(properties as Json, 'graphs'));
  });
});

suite('agent', () => {
  it('protects the graph of a settings file until it is stopped', async () => {
    const place = placeWith(GOOD);
    const running = place.start(['agent', '--config', 'config.yaml', '--disk-reserve', '0']);
    await running.says(/ info {2}snapshot taken graph=main .* rpoMs=\d/);
    const { code, signal, stdout } = await running.stop('SIGTERM');
    assert.deepEqual([code, signal, stdout], [0, null, '']);
    const { snapshots } = (await place.json(['list'])) as { snapshots: Json[] };
    assert.deepEqual(
      snapshots.map(({ graphId }) => graphId),
      ['main'],
    );
  });

  it('takes all settings from flags and variables', async () => {
    const place = placeWith('');
    const env = { WORKING_DIR: place.root, WORKSPACE: 'rag', LIGHTKEEPER_HTTP: '127.0.0.1:0' };
    const running = place.start(['agent', '--store', place.store, '--disk-reserve', '0'], env);
    await running.says(/ snapshot taken .* rpoMs=\d/);
    assert.equal((await running.stop('SIGINT')).code, 0);
    assert.equal((await place.ids()).length, 1);
  });

  it('refuses to supervise an instance in this version', async () => {
    const place = placeWith(GOOD);
    const outcome = await place.run([
      'agent',
      '--config',
      'config.yaml',
      '--',
      'lightrag-server',
      '--port',
      '1',
    ]);
    assert.equal(outcome.code, 2);
    assert.match(
      outcome.stderr,
      /^error: Cannot supervise "lightrag-server --port 1": not in this version\n/,
    );
  });
});
