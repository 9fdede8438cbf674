import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { cp, readdir, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { LightkeeperError } from '../../../core/errors.ts';
import { generate, VERSIONS } from '../../../demo/generate.ts';
import { parseOptions } from '../../../demo/instance/options.ts';
import { check } from '../../support/independent-check.ts';
import { tempFolder, until } from '../../support/place.ts';
import { assertRefused, type Ended, outcomeText, runToEnd } from '../../support/program.ts';
import { INSTANCE, type StandIn, startStandIn } from '../../support/standin.ts';

const QUIET = ['--ingest-every', '0', '--query-every', '0', '--pause', '0'];
const SMALL = ['--documents', '6', '--dimension', '8', '--seed', '11'];
const CACHE = 'kv_store_llm_response_cache.json';
const GRAPH = 'graph_chunk_entity_relation.graphml';
const WHOLE = { errors: [], warnings: [] };
const ENDS_WITHIN_MS = 10_000;

/** Starts a small one. */
function startInstance(t: TestContext, dir: string, ...flags: string[]): Promise<StandIn> {
  return startStandIn(t, dir, [...QUIET, ...SMALL, ...flags]);
}

async function contents(dir: string): Promise<Map<string, string>> {
  const names = (await readdir(dir)).filter((name) => !name.includes('.tmp.')).sort();
  return new Map(await Promise.all(names.map(async (name) => [name, await text(dir, name)] as const)));
}

const text = (dir: string, name: string): Promise<string> => readFile(join(dir, name), 'utf8');

async function statuses(dir: string): Promise<string[]> {
  const store = JSON.parse(await text(dir, 'kv_store_doc_status.json')) as Record<string, { status: string }>;
  return Object.values(store).map(({ status }) => status);
}

/** An entity of the graph, as the first `<node>` names it. */
async function anEntity(dir: string): Promise<string> {
  return /<node id="([^"&]+)"/.exec(await text(dir, GRAPH))?.[1] ?? '';
}

function tryToStart(dir: string, ...flags: string[]): Promise<Ended> {
  const args = ['--dir', dir, ...QUIET, ...flags];
  return runToEnd([process.execPath, INSTANCE, ...args], { timeoutMs: ENDS_WITHIN_MS });
}

describe('the stand-in instance', () => {
  it('deletes documents without a trace', async (t) => {
    const dir = join(await tempFolder(t), 'rag');
    const { ask, stop } = await startInstance(t, dir);
    const ids = async () =>
      ((await ask('GET /documents')).body.documents as { id: string }[]).map(({ id }) => id);
    const before = await ids();
    for (const id of [before[0], before[4]]) {
      assert.equal((await ask(`DELETE /documents?id=${id}`)).status, 200);
      assert.deepEqual(await check(dir), WHOLE);
      for (const [name, content] of await contents(dir))
        if (name !== CACHE) assert.equal(content.includes(String(id)), false, name);
    }
    assert.deepEqual(await ids(), before.toSpliced(4, 1).slice(1));
    assert.equal((await ask('DELETE /documents?id=none')).status, 404);
    assert.equal((await ask('POST /documents')).status, 200);
    assert.deepEqual(await check(dir), WHOLE);
    assert.equal((await stop()).code, 0);
  });

  for (const style of ['inplace', 'rename'] as const) {
    for (const version of VERSIONS) {
      it(`ingests, asks and leaves a whole directory (${style}, ${version})`, async (t) => {
        const dir = join(await tempFolder(t), 'rag');
        const flags = ['--style', style, '--core-version', version];
        const { ask, digest, stop } = await startInstance(t, dir, ...flags);
        const { body } = await ask('GET /documents');
        assert.equal((body.documents as unknown[]).length, 6);
        for (let i = 0; i < 3; i++) assert.equal((await ask('POST /documents')).status, 200);
        const cached = (await text(dir, CACHE)).length;
        const entity = encodeURIComponent(await anEntity(dir));
        assert.equal((await ask(`GET /query?entity=${entity}`)).status, 200);
        assert.ok((await text(dir, CACHE)).length > cached);
        assert.deepEqual(await check(dir), WHOLE);
        assert.deepEqual(await statuses(dir), Array(9).fill('processed'));
        const known = await digest();
        assert.equal((await stop()).code, 0);
        assert.deepEqual(await check(dir), WHOLE);
        assert.equal((await readdir(dir)).length, 12);
        const again = await startInstance(t, dir, ...flags);
        assert.equal(await again.digest(), known);
      });
    }
  }

  it('writes in the style of its version, and as --api says in short', async (t) => {
    const dir = join(await tempFolder(t), 'rag');
    const options = (...flags: string[]) => parseOptions(['--dir', dir, ...flags]);
    const chosen = (...flags: string[]) => [options(...flags)?.version, options(...flags)?.style];
    assert.deepEqual(chosen(), ['1.5.7', 'rename']);
    assert.deepEqual(chosen('--core-version', '1.4.9.11'), ['1.4.9.11', 'in-place']);
    assert.deepEqual(chosen('--api', 'old'), ['1.4.9.11', 'in-place']);
    assert.deepEqual(chosen('--api', 'new', '--style', 'inplace'), ['1.5.7', 'in-place']);
    assert.throws(() => options('--api', 'old', '--core-version', '1.5.7'), /Cannot use "old" as --api/);
  });

  it('does not start as a version older than that which wrote the directory', async (t) => {
    const dir = join(await tempFolder(t), 'rag');
    await generate(dir, { seed: 11, documents: 3, dimension: 8 });
    assertRefused(await tryToStart(dir, '--core-version', '1.4.9.11'), {
      code: 1,
      error: /Cannot load ".*kv_store_doc_status.json": .*'content_hash'/,
      hint: /restore/,
    });
    const old = join(await tempFolder(t), 'rag');
    await generate(old, { seed: 11, documents: 3, dimension: 8, version: '1.4.9.11' });
    const { ask, stop } = await startInstance(t, old);
    assert.equal((await ask('POST /documents')).status, 200);
    assert.deepEqual(await check(old), WHOLE);
    assert.equal((await stop()).code, 0);
  });

  it('serves health and pipeline status as LightRAG does', async (t) => {
    const dir = join(await tempFolder(t), 'rag');
    const old = await startInstance(t, dir, '--api', 'old', '--storage', 'postgres', '--workspace', 'one');
    const { body } = await old.ask('GET /health');
    assert.equal(body.status, 'healthy');
    assert.equal(body.working_directory, dir);
    assert.equal(body.pipeline_busy, false);
    const configuration = body.configuration as Record<string, unknown>;
    assert.deepEqual([configuration.kv_storage, configuration.workspace], ['PGKVStorage', 'one']);
    assert.equal((await readdir(join(dir, 'one'))).length, 12);
    const before = (await old.ask('GET /documents/pipeline_status')).body;
    const { core_version } = (await old.ask('GET /health')).body;
    assert.equal(core_version, 'v1.4.9.11');
    assert.ok(!('pending_enqueues' in before));
    assert.equal(before.request_pending, false);
    await old.stop();
    const now = await startInstance(t, dir, '--workspace', 'one');
    assert.equal((await now.ask('GET /health')).body.core_version, '1.5.7');
    const after = (await now.ask('GET /documents/pipeline_status')).body;
    const { scanning, destructive_busy, pending_enqueues, busy, recovery_required } = after;
    assert.deepEqual([scanning, destructive_busy, busy, recovery_required], [false, false, false, false]);
    assert.equal(pending_enqueues, 0);
    assert.ok(!('request_pending' in after));
    assert.deepEqual((after.update_status as Record<string, boolean[]>)['one:full_docs'], [false]);
    assert.equal((await now.ask('GET /nothing')).status, 404);
    assert.equal((await now.ask('POST /health')).status, 405);
    assert.equal((await now.ask('GET /query?entity=nobody')).status, 404);
  });

  it('is busy during an ingest and reports what is not on disk', async (t) => {
    const dir = join(await tempFolder(t), 'rag');
    const { ask } = await startInstance(t, dir, '--pause', '120ms');
    const status = async () => (await ask('GET /documents/pipeline_status')).body;
    const graph = await text(dir, GRAPH);
    const ingests = [ask('POST /documents'), ask('POST /documents')];
    await until('the flush', async () => {
      const { update_status } = await status();
      return (update_status as Record<string, boolean[]>).relation_chunks?.[0] === true;
    });
    const during = await status();
    const flags = during.update_status as Record<string, boolean[]>;
    assert.equal(during.busy, true);
    assert.equal(during.pending_enqueues, 1);
    assert.deepEqual(flags.relation_chunks, [true]);
    assert.deepEqual(flags.chunk_entity_relation, [false]);
    assert.equal(await text(dir, GRAPH), graph);
    await Promise.all(ingests);
    const after = await status();
    assert.equal(after.busy, false);
    assert.ok(!Object.values(after.update_status as Record<string, boolean[]>).some(([flag]) => flag));
    assert.deepEqual(await check(dir), WHOLE);
  });

  it('leaves the flag of a failed document until the next good one', async (t) => {
    for (const version of VERSIONS) {
      const dir = join(await tempFolder(t), 'rag');
      const { ask, digest, stop } = await startInstance(t, dir, '--core-version', version);
      const flag = async () => {
        const { busy, update_status } = (await ask('GET /documents/pipeline_status')).body;
        const flags = update_status as Record<string, boolean[]>;
        const stuck = Object.keys(flags).filter((name) => flags[name]?.includes(true));
        return [busy, ...stuck];
      };
      const before = await contents(dir);
      await ask('POST /documents?fail=1');
      assert.deepEqual(await statuses(dir), [...Array(6).fill('processed'), 'failed']);
      const changed = [...(await contents(dir))].filter(([name, text]) => before.get(name) !== text);
      assert.deepEqual(
        changed.map(([name]) => name),
        ['kv_store_doc_status.json', 'kv_store_full_docs.json'],
      );
      assert.deepEqual(await flag(), [false, 'text_chunks']);
      await ask('POST /documents');
      assert.deepEqual(await flag(), [false]);
      assert.deepEqual((await statuses(dir)).slice(6), ['failed', 'processed']);
      await ask('POST /documents/reprocess_failed');
      assert.deepEqual(await statuses(dir), Array(8).fill('processed'));
      assert.deepEqual(await check(dir), WHOLE);
      const known = await digest();
      assert.equal((await stop()).code, 0);
      const again = await startInstance(t, dir, '--core-version', version);
      assert.equal(await again.digest(), known);
    }
  });

  it('saves at a stop what its version saves after a failed document', async (t) => {
    for (const [version, saved] of [
      ['1.5.7', ['vdb_chunks.json']],
      ['1.4.9.11', []],
    ] as const) {
      const dir = join(await tempFolder(t), 'rag');
      const { ask, stop } = await startInstance(t, dir, '--core-version', version);
      await ask('POST /documents?fail=1');
      const before = await contents(dir);
      assert.equal((await stop()).code, 0);
      const changed = [...(await contents(dir))].filter(([name, text]) => before.get(name) !== text);
      assert.deepEqual(
        changed.map(([name]) => name),
        saved,
      );
    }
  });

  it('clears all but the cache', async (t) => {
    for (const version of VERSIONS) {
      const dir = join(await tempFolder(t), 'rag');
      const { ask } = await startInstance(t, dir, '--core-version', version, '--pause', '80ms');
      const cache = await text(dir, CACHE);
      const cleared = ask('DELETE /documents');
      await until(
        'the first empty file',
        async () => (await text(dir, 'kv_store_text_chunks.json')) === '{}',
      );
      assert.equal((await readdir(dir)).filter((name) => /^vdb|graphml$/.test(name)).length, 0);
      assert.notEqual(await text(dir, 'kv_store_doc_status.json'), '{}');
      const { busy, destructive_busy } = (await ask('GET /documents/pipeline_status')).body;
      assert.deepEqual([busy, destructive_busy], [true, version === '1.5.7' ? true : undefined]);
      assert.equal((await cleared).status, 200);
      for (const [name, content] of await contents(dir)) {
        assert.equal(content, name === CACHE ? cache : '{}', name);
      }
      await ask('POST /documents');
      assert.deepEqual(await check(dir), WHOLE);
    }
  });

  it('works by itself until it is paused', async (t) => {
    const dir = join(await tempFolder(t), 'rag');
    const { ask } = await startInstance(t, dir, '--ingest-every', '30ms', '--query-every', '10ms');
    await until('two documents', async () => (await statuses(dir)).length >= 8);
    await ask('POST /pause');
    const paused = await contents(dir);
    await new Promise((resolve) => setTimeout(resolve, 150));
    assert.deepEqual(await contents(dir), paused);
    assert.deepEqual(await check(dir), WHOLE);
    await ask('POST /resume');
    await until('another document', async () => (await contents(dir)).get(GRAPH) !== paused.get(GRAPH));
  });

  it('leaves a cut file when killed, and does not start with it', async (t) => {
    const dir = join(await tempFolder(t), 'rag');
    const old = ['--core-version', '1.4.9.11'];
    const { running, ask } = await startInstance(t, dir, ...old, '--piece-pause', '40ms');
    const whole = (await stat(join(dir, CACHE))).size;
    const lost = ask('POST /documents').catch(() => {});
    await until('a cut cache', async () => {
      const { size } = await stat(join(dir, CACHE));
      return size > 0 && size < whole;
    });
    running.kill('SIGKILL');
    await Promise.all([lost, running.ended]);
    assertRefused(await tryToStart(dir), {
      code: 1,
      error: new RegExp(`Cannot load ".*${CACHE}": it is cut`),
      hint: /restore the directory/,
    });
  });

  it('resumes the document during which it was killed', async (t) => {
    const dir = join(await tempFolder(t), 'rag');
    const first = await startInstance(t, dir, '--pause', '100ms');
    const lost = first.ask('POST /documents').catch(() => {});
    await until('processing', async () => (await statuses(dir)).at(-1) === 'processing');
    first.running.kill('SIGKILL');
    await Promise.all([lost, first.running.ended]);
    const { ask } = await startInstance(t, dir);
    await ask('POST /documents');
    assert.deepEqual(await statuses(dir), Array(7).fill('processed'));
    assert.deepEqual(await check(dir), WHOLE);
  });

  it('names the broken file', async (t) => {
    const place = await tempFolder(t);
    const good = join(place, 'good');
    await generate(good, { seed: 11, documents: 3, dimension: 8 });
    const other = join(place, 'other');
    await generate(other, { seed: 11, documents: 3, dimension: 4 });
    const cases: [name: string, state: RegExp, damage: (path: string) => Promise<void>][] = [
      ['kv_store_full_docs.json', /it is empty/, (path) => truncate(path, 0)],
      ['kv_store_of_mine.json', /it is cut or not JSON/, (path) => writeFile(path, '{"a":')],
      [
        'vdb_chunks.json',
        /it is cut or not JSON/,
        async (path) => truncate(path, (await stat(path)).size - 9),
      ],
      [
        'vdb_entities.json',
        /its matrix has 0 bytes/,
        async (path) => {
          const rows = await readFile(path, 'utf8');
          await writeFile(path, rows.replace(/"matrix": ".*"/, '"matrix": ""'));
        },
      ],
      [
        'vdb_relationships.json',
        /dimensions, not 8/,
        (path) => cp(join(other, 'vdb_relationships.json'), path),
      ],
      [GRAPH, /it is cut/, async (path) => truncate(path, (await stat(path)).size - 20)],
      [GRAPH, /it is empty/, (path) => truncate(path, 0)],
    ];
    for (const [index, [name, state, damage]] of cases.entries()) {
      const dir = join(place, `bad-${index}`);
      await cp(good, dir, { recursive: true });
      await damage(join(dir, name));
      const error = new RegExp(`Cannot load ".*${name}": .*${state.source}`);
      assertRefused(await tryToStart(dir, '--dimension', '8'), { code: 1, error, hint: /restore/ });
    }
  });

  it('has the same digest on a copy and another one on a mixture of two states', async (t) => {
    const place = await tempFolder(t);
    const dir = join(place, 'rag');
    const { ask, digest } = await startInstance(t, dir);
    const old = join(place, 'old');
    await cp(dir, old, { recursive: true });
    for (let i = 0; i < 4; i++) await ask('POST /documents');
    const last = [...(await text(dir, GRAPH)).matchAll(/<node id="([^"&]+)"/g)].at(-1)?.[1] ?? '';
    const query = `GET /query?cache=0&entity=${encodeURIComponent(last)}`;
    const copy = join(place, 'copy');
    await cp(dir, copy, { recursive: true });
    const right = await startInstance(t, copy);
    assert.equal(await right.digest(), await digest());
    assert.deepEqual(await right.ask(query), await ask(query));
    await right.ask('POST /documents');
    await ask('POST /documents');
    assert.equal(await right.digest(), await digest());
    await cp(join(old, 'vdb_entities.json'), join(copy, 'vdb_entities.json'));
    await right.running.stop('SIGKILL');
    const mixed = await startInstance(t, copy);
    assert.notEqual(await mixed.digest(), await digest());
    const { body } = await mixed.ask(query);
    assert.equal(body.content, null);
    assert.notEqual(body.description, null);
  });

  it('overwrites a restore made while it runs', async (t) => {
    const place = await tempFolder(t);
    const dir = join(place, 'rag');
    const { ask, digest, stop } = await startInstance(t, dir);
    const point = join(place, 'point');
    await cp(dir, point, { recursive: true });
    await ask('POST /documents');
    await cp(point, dir, { recursive: true });
    assert.equal((await statuses(dir)).length, 6);
    await ask('POST /documents');
    assert.equal((await statuses(dir)).length, 8);
    assert.deepEqual(await check(dir), WHOLE);
    const known = await digest();
    // Nothing is left to be saved, so that a stop writes nothing.
    const before = await contents(dir);
    await stop();
    assert.deepEqual(await contents(dir), before);
    const again = await startInstance(t, dir);
    assert.equal(await again.digest(), known);
  });

  it('ends an ingest on SIGTERM and saves the vectors that it has buffered (1.5.7)', async (t) => {
    const dir = join(await tempFolder(t), 'rag');
    const { ask, stop } = await startInstance(t, dir, '--pause', '60ms');
    const before = await contents(dir);
    const ingest = ask('POST /documents').catch(() => ({ status: 0 }));
    const pairs = 'kv_store_full_relations.json';
    await until('the merge', async () => (await text(dir, pairs)) !== before.get(pairs));
    assert.equal((await stop()).code, 0);
    assert.notEqual((await ingest).status, 200);
    const after = await contents(dir);
    const same = ['kv_store_text_chunks.json', 'kv_store_entity_chunks.json', GRAPH];
    for (const name of same) assert.equal(after.get(name), before.get(name), name);
    for (const name of [CACHE, 'vdb_chunks.json', 'vdb_entities.json', 'vdb_relationships.json']) {
      assert.notEqual(after.get(name), before.get(name), name);
    }
    assert.deepEqual(await statuses(dir), [...Array(6).fill('processed'), 'processing']);
    const again = await startInstance(t, dir);
    await again.ask('POST /documents');
    assert.deepEqual(await check(dir), WHOLE);
  });

  it('finishes its flush on SIGTERM and refuses connections meanwhile (1.4.9.11)', async (t) => {
    const dir = join(await tempFolder(t), 'rag');
    const old = ['--core-version', '1.4.9.11'];
    const { running, ask, stop } = await startInstance(t, dir, ...old, '--pause', '150ms');
    const ingest = ask('POST /documents');
    await until('processing', async () => (await statuses(dir).catch(() => [])).at(-1) === 'processing');
    const ended = stop();
    await assert.rejects(until('refused', async () => (await ask('GET /health')).status === 0));
    assert.equal(running.hasEnded, false);
    assert.equal((await ingest).status, 200);
    assert.equal((await ended).code, 0);
    assert.deepEqual(await check(dir), WHOLE);
    assert.deepEqual(await statuses(dir), Array(7).fill('processed'));
  });

  it('requires the API key for all but health', async (t) => {
    const dir = join(await tempFolder(t), 'rag');
    const { ask } = await startInstance(t, dir, '--api-key', 'sesame');
    const health = (await ask('GET /health')).body;
    assert.deepEqual(
      [health.status, health.auth_mode, 'working_directory' in health],
      ['healthy', 'enabled', false],
    );
    assert.equal((await ask('GET /health', { 'X-API-Key': 'sesame' })).body.working_directory, dir);
    for (const route of ['GET /documents/pipeline_status', 'GET /documents', 'POST /pause', 'GET /digest']) {
      assert.deepEqual(await ask(route), { status: 403, body: { detail: 'API Key required' } }, route);
      const wrong = { status: 403, body: { detail: 'Invalid API Key' } };
      assert.deepEqual(await ask(route, { 'X-API-Key': 'Sesame' }), wrong, route);
      assert.equal((await ask(route, { 'X-API-Key': 'sesame' })).status, 200, route);
    }
  });

  it('refuses flags that it cannot use', async (t) => {
    const dir = join(await tempFolder(t), 'rag');
    const wrong = [
      ['--style', 'copy'],
      ['--core-version', '1.0'],
      ['--embedding', '1x'],
      ['--pause', '3x'],
      ['--port', '70000'],
      ['--documents', '-1'],
      ['--dimension', '0'],
      ['--workspace', '../up'],
      ['--nothing'],
      ['stray'],
      ['--dir', ''],
    ];
    for (const flags of wrong) {
      assert.throws(
        () => parseOptions(['--dir', dir, ...flags]),
        (error) =>
          error instanceof LightkeeperError && error.code === 'INVALID_ARGUMENT' && error.hint !== '',
        flags.join(' '),
      );
    }
    const error = /Cannot use "copy" as --style/;
    assertRefused(await tryToStart(dir, '--style', 'copy'), { code: 2, error, hint: /inplace, rename/ });
    const help = await tryToStart(dir, '--help');
    assert.equal(help.code, 0, outcomeText(help));
    assert.match(help.stdout, /--ingest-every/);
    assert.equal(existsSync(dir), false);
  });
});
