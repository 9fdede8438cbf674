import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, it } from 'node:test';
import { hasFields, type Json, listOf, Place, suite, there, type Up } from '../support/cli-place.ts';

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

function ask(
  url: string,
  path: string,
  method = 'GET',
  headers: Record<string, string> = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request(`${url}${path}`, { method, headers, agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => {
        body += text;
      });
      response.once('end', () => {
        resolve({ status: response.statusCode ?? 0, type: response.headers['content-type'] ?? '', body });
      });
    });
    asked.once('error', reject);
    asked.end();
  });
}

/** Waits until the agent has a point. */
async function protectedSince({ running }: Up): Promise<void> {
  await running.says(/protected since .*RPO /);
}

/** A document without what is measured anew by each call. */
function lasting(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(lasting);
  if (typeof value !== 'object' || value === null) return value;
  const { confirmedAt: _, durationMs: __, to: ___, ...rest } = value as Json;
  return Object.fromEntries(Object.entries(rest).map(([name, field]) => [name, lasting(field)]));
}

suite('up', () => {
  it('prints where the snapshots are and since when the directory is protected', async () => {
    const place = new Place();
    place.write('a', 'first');
    const agent = await place.up();
    await protectedSince(agent);
    const { stdout } = agent.running;
    assert.equal(stdout.includes(place.dir) && stdout.includes(place.store), true);
    assert.match(stdout, /as graph "rag"/);
    assert.equal((await place.ids()).length, 1);
    place.write('a', 'second');
    await agent.running.says(/(?:protected since.*){2}/s);
    assert.equal((await place.ids()).length, 2);
    const { code, stderr } = await agent.stop();
    assert.deepEqual([code, stderr], [0, '']);
  });

  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    it(`on ${signal} takes a last snapshot and exits 0`, async () => {
      const place = new Place();
      place.write('a', 'first');
      const agent = await place.up();
      await protectedSince(agent);
      place.write('a', 'last words');
      const { code } = await agent.stop(signal);
      assert.equal(code, 0);
      await place.json(['restore', '--snapshot', 'latest', '--to', place.path('to')]);
      assert.equal(readFileSync(place.path('to/a'), 'utf8'), 'last words');
      assert.deepEqual(readdirSync(place.path('run/lightkeeper')), [], 'its socket is gone');
    });
  }

  it('names the graph by --graph and puts its store into the state folder', async () => {
    const place = new Place();
    const state = place.path('elsewhere');
    const args = ['up', '--dir', place.dir, '--graph', 'main', '--state', state, '--http', '127.0.0.1:0'];
    const running = place.start(args);
    await running.says(/protected since/);
    await running.stop('SIGTERM');
    const { stdout } = await place.run(['list', '--store', join(state, 'store'), '--json']);
    assert.equal((JSON.parse(stdout) as { snapshots: Json[] }).snapshots[0]?.graphId, 'main');
    // Commands of a store take the state folder too, whatever the variables say.
    const env = { LIGHTKEEPER_STATE: place.path('other') };
    for (const words of [
      ['list'],
      ['show', 'latest'],
      ['stats'],
      ['verify'],
      ['restore', 'latest', '--to', place.path('to')],
    ]) {
      const ended = await place.run([...words, '--state', state], env);
      assert.equal(ended.code, 0, `${words.join(' ')}: ${ended.stderr}`);
    }
    const wrong = await place.failsPlainly(['list', '--store', state], 1);
    assert.match(
      wrong,
      /hint: it is a state folder: name it with --state, or .* --store \S+elsewhere\/store/,
    );
  });

  it('refuses what cannot be protected and writes nothing', async () => {
    const place = new Place();
    place.write('file', '');
    const http = ['--http', '127.0.0.1:0'];
    await place.failsPlainly(['up', '--dir', join(place.dir, 'file'), ...http], 2);
    await place.failsPlainly(['up', '--dir', place.dir, '--graph', 'a b', ...http], 2);
    await place.failsPlainly(['up', '--dir', place.dir, '--http', '0.0.0.0:0'], 2);
    assert.equal(there(place.path('state')), false);
  });

  it('waits for a directory that does not exist yet', async () => {
    const place = new Place();
    rmSync(place.dir, { recursive: true });
    const agent = await place.up();
    await agent.running.says(/waiting for .*, which is not there yet/);
    assert.equal((await ask(agent.url, '/readiness')).status, 503);
    mkdirSync(place.dir);
    place.write('a', '1');
    await protectedSince(agent);
    assert.equal((await ask(agent.url, '/readiness')).status, 200);
    assert.equal((await agent.stop()).code, 0);
  });

  it('protects each workspace as its own graph, later ones included', async () => {
    const place = new Place();
    place.write('kv_store_full_docs.json', '{}');
    for (const folder of ['one', 'plain']) mkdirSync(join(place.dir, folder));
    place.write('one/kv_store_full_docs.json', '{"1": {"content": "1"}}');
    place.write('plain/notes', 'no graph');
    const agent = await place.up();
    await agent.running.says(/protecting .* as graph "rag\.one"/);
    mkdirSync(place.path('two'));
    writeFileSync(
      place.path('two/graph_chunk_entity_relation.graphml'),
      '<graphml><graph edgedefault="undirected"/></graphml>',
    );
    renameSync(place.path('two'), join(place.dir, 'two'));
    await agent.running.says(/protecting .* as graph "rag\.two"/);
    await agent.running.says(/rag\.two: snapshot/);
    const files = async (graph: string) => {
      const shown = await place.json(['show', 'latest', '--graph', graph]);
      return listOf(shown, 'files').map(({ path }) => path);
    };
    assert.deepEqual(await files('rag'), ['kv_store_full_docs.json', 'plain', 'plain/notes']);
    assert.deepEqual(await files('rag.one'), ['kv_store_full_docs.json']);
    assert.deepEqual(await files('rag.two'), ['graph_chunk_entity_relation.graphml']);
    assert.equal((await agent.stop()).code, 0);
  });

  it('refuses a port or a store that another process uses', async () => {
    const place = new Place();
    const agent = await place.up();
    const { port } = new URL(agent.url);
    const other = ['up', '--dir', place.dir, '--store', place.path('other'), '--http', `127.0.0.1:${port}`];
    await place.failsPlainly(other, 4);
    const same = ['up', '--dir', place.dir, '--store', place.store, '--http', '127.0.0.1:0'];
    await place.failsPlainly(same, 4);
    assert.equal((await agent.stop()).code, 0);
  });
});

suite('a store that a running agent holds', () => {
  it('gives every command the same result as a free one', async () => {
    const place = new Place();
    place.write('a', 'a');
    mkdirSync(join(place.dir, 'folder'));
    place.write('folder/b', 'b'.repeat(20_000));
    const agent = await place.up();
    await protectedSince(agent);
    const [id = ''] = await place.ids();
    const commands: [string[], number][] = [
      [['list'], 0],
      [['show', id.slice(0, 8)], 0],
      [['show', '00000000'], 1],
      [['snapshot', '--dir', 'rag'], 0],
      [['snapshot', '--dir', 'none'], 1],
      [['stats'], 0],
      [['verify', '--level', 'bytes'], 0],
      [['prune', '--keep-last', '1', '--dry-run'], 0],
      [['prune'], 4],
      [['delete', id], 4],
      [['repair', '--dry-run'], 0],
    ];
    const answers = async (to: string) => {
      const restores: typeof commands = [
        [['restore', '--snapshot', 'latest', '--to', place.path(to)], 0],
        [['restore', '--snapshot', 'latest', '--to', place.dir], 4],
      ];
      const documents: unknown[] = [];
      for (const [args, code] of [...commands, ...restores])
        documents.push(lasting(await place.jsonOfProcess(args, code)));
      return documents;
    };
    const held = await answers('held');
    assert.equal((await agent.stop()).code, 0);
    const free = await answers('free');
    for (const [i, [args]] of commands.entries()) assert.deepEqual(held[i], free[i], args.join(' '));
    assert.deepEqual(held, free);
    for (const to of ['held', 'free'])
      assert.equal(readFileSync(place.path(`${to}/folder/b`), 'utf8'), 'b'.repeat(20_000));
  });

  it('can be changed by commands while the agent runs', async () => {
    const place = new Place();
    place.write('a', '1');
    const agent = await place.up();
    await protectedSince(agent);
    const other = place.path('second graph');
    mkdirSync(other);
    writeFileSync(join(other, 'b'), 'b');
    const taken = await place.json(['snapshot', '--dir', other, '--tag', 'by=hand']);
    const graphId = String(taken.graphId);
    assert.match(graphId, /^secondgraph-[0-9a-f]{8}$/);
    const id = String(taken.snapshotId);
    assert.equal((await place.json(['pin', id])).pinned, true);
    assert.deepEqual((await place.json(['tag', id, 'x=y'])).tags, { by: 'hand', x: 'y' });
    assert.equal((await place.json(['repair'])).unhealed, 0);
    place.write('a', '2');
    // The other graph's snapshot was told of too.
    await agent.running.says(/(?:protected since.*){3}/s);
    const pruned = await place.json(['prune', '--graph', 'rag', '--keep-last', '1']);
    assert.equal(listOf(pruned, 'remove').length, 1);
    assert.equal((await ask(agent.url, '/readiness')).status, 200);
    const graphs = async () => listOf(await place.json(['list']), 'snapshots').map(({ graphId }) => graphId);
    const before = await graphs();
    assert.deepEqual(before.toSorted(), ['rag', graphId]);
    assert.equal((await agent.stop()).code, 0);
    assert.deepEqual(await graphs(), before);
    assert.deepEqual((await place.json(['verify', '--level', 'bytes'])).findings, []);
  });

  it('is served on a socket that only its user can open', async () => {
    const place = new Place();
    const agent = await place.up();
    const folder = place.path('run/lightkeeper');
    const [name = ''] = readdirSync(folder);
    assert.equal(statSync(folder).mode & 0o777, 0o700);
    assert.equal(statSync(join(folder, name)).mode & 0o777, 0o600);
    await agent.stop();
  });

  it('is refused with exit 4 if its agent is unreachable, and free after its death', async () => {
    const place = new Place();
    const agent = await place.up();
    await protectedSince(agent);
    const folder = place.path('run/lightkeeper');
    for (const name of readdirSync(folder)) rmSync(join(folder, name));
    const { code, hint } = await place.fails(['list', '--store', place.store], 4);
    assert.equal(code, 'IN_USE');
    assert.match(String(hint), new RegExp(`\\b${agent.running.child.pid}\\b`));
    await agent.stop('SIGKILL');
    assert.equal((await place.ids()).length, 1);
  });

  it('is refused with exit 4 if its agent does not respond', async () => {
    const place = new Place();
    const agent = await place.up();
    await protectedSince(agent);
    agent.running.child.kill('SIGSTOP');
    const listing = place.start(['list', '--store', place.store, '--json']);
    const timer = setTimeout(() => listing.child.kill('SIGKILL'), 20_000);
    const { code, signal } = await listing.ended;
    clearTimeout(timer);
    agent.running.child.kill('SIGCONT');
    await agent.stop();
    assert.deepEqual([code, signal], [4, null], 'within 20 s');
  });
});

suite('the HTTP port of an agent', () => {
  it('serves probes as JSON, with 200 once there is a snapshot', async () => {
    const place = new Place();
    const agent = await place.up();
    await protectedSince(agent);
    for (const path of ['/readiness', '/readyz', '/liveness', '/healthz', '/health', '/version']) {
      const got = await ask(agent.url, path);
      assert.equal(got.status, 200, path);
      assert.match(got.type, /^application\/json/);
      hasFields(JSON.parse(got.body), {});
      assert.deepEqual(await ask(agent.url, path, 'HEAD'), { ...got, body: '' }, path);
    }
    const page = await ask(agent.url, '/');
    assert.match(page.type, /^text\/html/);
    for (const [, path = ''] of page.body.matchAll(/href="([^"]+)"/g))
      assert.ok([200, 503].includes((await ask(agent.url, path)).status), path);
    assert.equal((await ask(agent.url, '/nothing')).status, 404);
    assert.equal((await ask(agent.url, '/health', 'POST')).status, 405);
    await agent.stop();
  });

  it('says what is outside the limits of a graph, as status does with exit 3', async () => {
    const place = new Place();
    place.write('a', 'a');
    const limits = ['--limits-rpo', '10ms', '--limits-lag', '1h', '--disk-reserve', '1000TiB'];
    const agent = place.start(['agent', '--dir', place.dir, '--store', place.store, ...limits]);
    after(() => agent.kill('SIGKILL'));
    const [, address = ''] = await agent.says(/serving .*http=(\S+)/);
    await agent.says(/disk reserve/);
    const exceeded = [{ kind: 'RPO', limitMs: '10', follower: '' }];
    const readiness = await ask(`http://${address}`, '/readiness');
    const { graphs } = JSON.parse(readiness.body) as { graphs: Json[] };
    assert.deepEqual(graphs[0]?.exceededLimits, exceeded);
    const [graph] = listOf(await place.json(['status'], 3), 'graphs');
    assert.deepEqual(graph?.exceededLimits, exceeded);
    const { code, stdout } = await place.run(['status', '--store', place.store]);
    assert.equal(code, 3);
    assert.match(stdout, /OUTSIDE ITS LIMITS: the RPO may be 10 ms, and there is no usable point/);
    await agent.stop();
  });

  it('returns 503 with the reason while capture is impossible, but stays alive', async () => {
    const place = new Place();
    place.write('a', 'a');
    const agent = await place.up('--disk-reserve', '1000TiB');
    await agent.running.says(/disk reserve/);
    for (const path of ['/readiness', '/health']) {
      const { status, body } = await ask(agent.url, path);
      assert.equal(status, 503, path);
      assert.match(body, /disk reserve/);
      assert.equal((await ask(agent.url, path, 'HEAD')).status, 503, path);
    }
    assert.equal((await ask(agent.url, '/liveness')).status, 200);
    const { code, stderr } = await agent.stop();
    assert.equal(code, 0);
    assert.match(stderr, /^(?:error: Cannot [^\n]+\nhint: [^\n]+\n)+$/);
  });

  it('handles OPTIONS like GET, as load balancers probe with it', async () => {
    const place = new Place();
    place.write('a', 'a');
    const agent = await place.up('--disk-reserve', '1000TiB');
    await agent.running.says(/disk reserve/);
    const readiness = (await ask(agent.url, '/readiness', 'OPTIONS')).status;
    const liveness = (await ask(agent.url, '/liveness', 'OPTIONS')).status;
    await agent.stop();
    assert.deepEqual([readiness, liveness], [503, 200]);
  });

  it('refuses requests with a foreign Host header', async () => {
    const place = new Place();
    const agent = await place.up();
    const evil = await ask(agent.url, '/metrics', 'GET', { host: 'evil.example' });
    assert.equal(evil.status, 403);
    assert.equal(evil.body.includes('lightrag_'), false);
    for (const host of ['localhost', '127.0.0.1:9701', '[::1]:1'])
      assert.equal((await ask(agent.url, '/liveness', 'GET', { host })).status, 200, host);
    await agent.stop();
  });

  it('survives malformed requests', async () => {
    const place = new Place();
    const agent = await place.up();
    const { port } = new URL(agent.url);
    const nonsense = [
      'GET // HTTP/1.1\r\nhost: localhost\r\n\r\n',
      'GET http://[ HTTP/1.1\r\nhost: localhost\r\n\r\n',
      'GET /\r\n\r\n',
      '\x00\xff\r\n\r\n',
      'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    ];
    for (const bytes of nonsense) {
      await new Promise<void>((resolve) => {
        const socket = connect(Number(port), '127.0.0.1', () => socket.write(bytes, 'latin1'));
        socket.on('data', () => socket.end());
        socket.on('error', () => {});
        socket.on('close', () => resolve());
      });
      assert.equal((await ask(agent.url, '/liveness')).status, 200, JSON.stringify(bytes));
    }
    assert.equal((await agent.stop()).code, 0);
  });
});

// ----- metrics -----

interface Family {
  readonly type: string;
  readonly help: string;
  readonly samples: { name: string; labels: Record<string, string>; value: number }[];
}

const SAMPLE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/;

/** Reads the text format of Prometheus; fails for what does not belong to it. */
function families(text: string): Map<string, Family> {
  const found = new Map<string, Family>();
  let help: string[] = [];
  let current: Family | undefined;
  assert.equal(text.endsWith('\n'), true);
  for (const line of text.split('\n').filter((one) => one !== '')) {
    const [, about, name = '', rest = ''] = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line) ?? [];
    if (about === 'HELP') help = [name, rest];
    else if (about === 'TYPE') {
      assert.ok(!found.has(name) && help[0] === name, line);
      current = { type: rest, help: help[1] ?? '', samples: [] };
      found.set(name, current);
    } else {
      const [, sample = '', labels = '', value = ''] = SAMPLE.exec(line) ?? [];
      assert.ok(sample !== '' && current !== undefined, line);
      const pairs = [...labels.matchAll(/([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g)];
      assert.equal(pairs.map(([whole]) => whole).join(','), labels, line);
      assert.ok(!Number.isNaN(Number(value.replace('+Inf', 'Infinity'))), line);
      const labelled = Object.fromEntries(pairs.map(([, key = '', content = '']) => [key, content]));
      current.samples.push({ name: sample, labels: labelled, value: Number(value) });
    }
  }
  return found;
}

suite('the metrics of an agent', () => {
  it('are in the Prometheus format and count what was done', async () => {
    const place = new Place();
    place.write('a', 'a'.repeat(1000));
    const agent = await place.up('--graph', 'main');
    await protectedSince(agent);
    const { status, type, body } = await ask(agent.url, '/metrics');
    assert.equal(status, 200);
    assert.match(type, /^text\/plain; version=0\.0\.4/);
    const found = families(body);
    const value = (name: string, labels: Record<string, string> = {}) =>
      found
        .get(name.replace(/_(?:count|sum)$/, ''))
        ?.samples.find(
          (one) =>
            one.name === name && Object.entries(labels).every(([key, wanted]) => one.labels[key] === wanted),
        )?.value;
    const main = { graph_id: 'main' };
    const taken = found.get('lightrag_backup_snapshots_total')?.samples ?? [];
    assert.deepEqual(
      taken.map(({ labels, value: count }) => [Object.keys(labels).sort(), labels.graph_id, count]),
      [[['grade', 'graph_id'], 'main', 1]],
    );
    assert.equal(value('lightrag_backup_size_bytes', main), 1000);
    assert.equal((value('lightrag_backup_stored_bytes', main) ?? 0) > 0, true);
    assert.equal(value('lightrag_backup_duration_seconds_count', main), 1);
    assert.equal(value('lightrag_agent_role', main), 2);
    assert.equal(value('lightrag_agent_epoch', main), 1);
    const at = value('lightrag_backup_last_valid_timestamp_seconds', main) ?? 0;
    assert.equal(Math.abs(at - Date.now() / 1000) < 60, true);
    const stats = await place.json(['stats']);
    assert.equal(value('lightrag_store_packs'), stats.packs);
    assert.equal(value('lightrag_store_units'), Number(stats.units));
    assert.equal(value('lightrag_store_dedup_ratio'), stats.dedupRatio);
    assert.equal(
      found.has('lightrag_backup_errors_total') && found.has('lightrag_backup_torn_retries_total'),
      true,
    );
    await agent.stop();
  });

  it('follow the rules of promtool', async () => {
    const place = new Place();
    const agent = await place.up();
    await protectedSince(agent);
    const { body } = await ask(agent.url, '/metrics');
    await agent.stop();
    const problems: string[] = [];
    for (const [name, { type, help, samples }] of families(body)) {
      if (/^(?:nodejs|process)_/.test(name)) continue;
      if (!/^lightrag_[a-z][a-z0-9_]*$/.test(name)) problems.push(`${name}: name`);
      if (help === '') problems.push(`${name}: no help`);
      if ((type === 'counter') !== name.endsWith('_total')) problems.push(`${name}: a ${type} by that name`);
      if (type !== 'histogram' && /_(?:bucket|count|sum)$/.test(name)) problems.push(`${name}: suffix`);
      if (/_(?:gauge|counter|histogram|milliseconds|ms|kb|mb)(?:_|$)/.test(name))
        problems.push(`${name}: words`);
      if (samples.some(({ value }) => Number.isNaN(value))) problems.push(`${name}: value`);
    }
    assert.deepEqual(problems, []);
  });

  it('count failures by reason', async () => {
    const place = new Place();
    place.write('a', 'a');
    const agent = await place.up('--disk-reserve', '1000TiB');
    await agent.running.says(/disk reserve/);
    const { body } = await ask(agent.url, '/metrics');
    await agent.stop();
    const errors = families(body).get('lightrag_backup_errors_total')?.samples ?? [];
    assert.equal(errors.length, 1);
    assert.deepEqual(Object.keys(errors[0]?.labels ?? {}).sort(), ['graph_id', 'reason']);
    assert.equal((errors[0]?.value ?? 0) >= 1, true);
  });
});
