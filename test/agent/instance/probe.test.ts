import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { InstanceProbe, type InstanceReport, isIdle } from '../../../agent/instance/probe.ts';
import {
  healthOf,
  IDLE,
  json,
  type LightRagHttp,
  PARTIAL_HEALTH,
  type Reply,
  serveLightRag,
} from '../../support/lightrag-http.ts';
import { type Scope, tempFolder } from '../../support/place.ts';

const text = (body: string, type = 'text/html'): Reply => {
  return (response) => void response.writeHead(200, { 'content-type': type }).end(body);
};
const silent: Reply = () => {};
const broken: Reply = (response) => void response.destroy();
const slow: Reply = (response) => {
  response.writeHead(200, { 'content-type': 'application/json' }).write('{"busy": ');
};
const redirect: Reply = (response) => void response.writeHead(307, { location: '/elsewhere' }).end();

interface Subject {
  readonly dir: string;
  readonly served: LightRagHttp;
  ask(settings?: {
    apiKey?: string;
    workspace?: string;
    url?: string;
    dir?: string;
  }): Promise<InstanceReport>;
}

async function begun(t: Scope): Promise<Subject> {
  const dir = join(await tempFolder(t), 'rag');
  mkdirSync(dir);
  const served = await serveLightRag(t, dir);
  return {
    dir,
    served,
    ask: ({ dir: guarded = dir, ...settings } = {}) => {
      const all = { url: served.url, apiKey: '', allowPartial: false, ...settings };
      return new InstanceProbe(all, Buffer.from(guarded)).report({ timeoutMs: 1500 });
    },
  };
}

describe('a report of an instance', { concurrency: 4 }, () => {
  it('names version, models and whether it is idle', async (t) => {
    const { served, dir, ask } = await begun(t);
    const idle = await ask();
    assert.ok(idle.kind === 'own');
    const { version, workingDir, embeddingModel, embeddingDimension } = idle.instance;
    assert.deepEqual(
      [version, workingDir, embeddingModel, embeddingDimension],
      ['1.5.7', dir, 'bge-m3', 1024],
    );
    assert.equal(idle.isIdle, true);
    served.status = json({ ...IDLE, busy: true });
    const busy = await ask();
    assert.ok(busy.kind === 'own' && !busy.isIdle);
  });

  it('comes from below a path of the URL', async (t) => {
    const { dir, ask } = await begun(t);
    const behind = await serveLightRag(t, dir, '/team/rag');
    for (const url of [behind.url, `${behind.url}/`]) assert.equal((await ask({ url })).kind, 'own');
    assert.deepEqual([...new Set(behind.requests)].sort(), [
      '/team/rag/documents/pipeline_status',
      '/team/rag/health',
    ]);
  });

  it('needs a key where either call is refused or the health is partial', async (t) => {
    const { served, ask } = await begun(t);
    for (const status of [401, 403]) {
      served.health = json(PARTIAL_HEALTH);
      served.status = json({ detail: 'API Key required' }, status);
      assert.equal((await ask()).kind, 'key-needed', `the pipeline status is ${status}`);
      served.health = json({ detail: 'API Key required' }, status);
      assert.equal((await ask()).kind, 'key-needed', `both are ${status}`);
      served.status = json(IDLE);
      assert.equal((await ask()).kind, 'key-needed', `the health is ${status}`);
    }
    served.health = json(PARTIAL_HEALTH);
    assert.equal((await ask()).kind, 'key-needed', 'the health names no directory');
  });

  it('is given with the key', async (t) => {
    const { served, dir, ask } = await begun(t);
    const guarded = (reply: Reply): Reply => {
      return (response, request) =>
        request.headers['x-api-key'] === 'right'
          ? reply(response, request)
          : json({}, 403)(response, request);
    };
    served.health = guarded(json(healthOf(dir)));
    served.status = guarded(json(IDLE));
    assert.equal((await ask({ apiKey: 'right' })).kind, 'own');
    assert.equal((await ask({ apiKey: 'wrong' })).kind, 'key-needed');
  });

  it('is unusable from any other program', async (t) => {
    const { served, dir, ask } = await begun(t);
    const replies: Readonly<Record<string, Reply>> = {
      'a web page': text('<html>It works!</html>'),
      'cut JSON': text('{"status": "heal', 'application/json'),
      'a list': json([healthOf(dir)]),
      'a health of another program': json({ status: 'healthy' }),
      nothing: text(''),
      'HTTP 404': json({}, 404),
      'HTTP 500': json({}, 500),
      'HTTP 503': json({}, 503),
      'a redirect': redirect,
      'five megabytes': text(`{"a": "${'x'.repeat(5_000_000)}"}`, 'application/json'),
    };
    for (const [what, reply] of Object.entries(replies)) {
      served.health = reply;
      served.status = json(IDLE);
      assert.equal((await ask()).kind, 'unusable', `the health is ${what}`);
      served.health = json(healthOf(dir));
      served.status = reply;
      assert.equal((await ask()).kind, 'unusable', `the pipeline status is ${what}`);
    }
  });

  it('is missing from a silent server, and says whether it was late', async (t) => {
    const { served, dir, ask } = await begun(t);
    for (const [reply, isLate] of [
      [silent, true],
      [slow, true],
      [broken, false],
    ] as const) {
      served.health = reply;
      served.status = json(IDLE);
      const health = await ask();
      assert.ok(health.kind === 'no-response' && health.isLate === isLate, JSON.stringify(health));
      served.health = json(healthOf(dir));
      served.status = reply;
      const status = await ask();
      assert.ok(status.kind === 'no-response' && status.isLate === isLate, JSON.stringify(status));
    }
    await served.close();
    const refused = await ask();
    assert.ok(refused.kind === 'no-response' && !refused.isLate);
    assert.match(refused.why, /refuses connections/);
  });

  it('is elsewhere where the paths exist and differ', async (t) => {
    const { served, dir, ask } = await begun(t);
    const other = join(dir, '..', 'other');
    mkdirSync(other);
    served.health = json(healthOf(other));
    const report = await ask();
    assert.ok(report.kind === 'elsewhere');
    assert.deepEqual([report.dir, report.instance.version], [other, '1.5.7']);
    // A key would not change that.
    served.status = json({}, 403);
    assert.equal((await ask()).kind, 'elsewhere');
  });

  it('cannot compare the path of a container', async (t) => {
    const { served, ask } = await begun(t);
    for (const path of ['/app/data/rag_storage', './rag_storage']) {
      served.health = json(healthOf(path));
      assert.equal((await ask()).kind, 'own', path);
    }
  });

  it('tells workspaces apart, by paths and in a container', async (t) => {
    const { served, dir, ask } = await begun(t);
    for (const workspace of ['one', 'two', 'a_b']) {
      mkdirSync(join(dir, workspace));
      writeFileSync(join(dir, workspace, 'kv_store_full_docs.json'), '{}');
    }
    const workspaceGraph = (workspace: string) => ({ workspace, dir: join(dir, workspace) });
    for (const path of [dir, '/app/data/rag_storage']) {
      served.health = json(healthOf(path, { workspace: 'one' }));
      assert.equal((await ask()).kind, 'elsewhere', 'the top of the directory');
      assert.equal((await ask(workspaceGraph('one'))).kind, 'own');
      assert.equal((await ask({ dir: join(dir, 'one') })).kind, 'own');
      assert.equal((await ask(workspaceGraph('two'))).kind, 'elsewhere');
      served.health = json(healthOf(path));
      assert.equal((await ask()).kind, 'own');
      assert.equal((await ask(workspaceGraph('one'))).kind, 'elsewhere', 'the instance serves the top');
      // Newer servers replace other characters in the name of the folder.
      served.health = json(healthOf(path, { workspace: 'a-b' }));
      assert.equal((await ask(workspaceGraph('a_b'))).kind, 'own');
    }
  });
});

describe('a pipeline status', () => {
  it('is idle if nothing is under way or pending', () => {
    assert.equal(isIdle({ busy: false }), true);
    assert.equal(isIdle(IDLE), true);
    assert.equal(isIdle({ busy: false, request_pending: false, pending_enqueues: null }), true);
    for (const flag of ['busy', 'request_pending', 'scanning', 'destructive_busy'])
      assert.equal(isIdle({ ...IDLE, [flag]: true }), false, flag);
    assert.equal(isIdle({ ...IDLE, pending_enqueues: 1 }), false);
  });

  it('is idle although a flag of data that is not on disk stays set', () => {
    for (const flags of [[true], true, [false, true]])
      assert.equal(
        isIdle({ ...IDLE, update_status: { text_chunks: flags, 'space:full_docs': flags } }),
        true,
      );
  });

  it('is unknown without a flag that says whether it is busy', () => {
    for (const status of [{}, { busy: 'no' }, { detail: 'Not Found' }])
      assert.equal(isIdle(status), undefined);
  });
});
