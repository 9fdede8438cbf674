import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { Case } from '../support/case.ts';
import { fill } from '../support/fill.ts';
import {
  healthOf,
  IDLE,
  json,
  type LightRagHttp,
  PARTIAL_HEALTH,
  type Reply,
  serveLightRag,
} from '../support/lightrag-http.ts';
import { type Scope, tempFolder, until } from '../support/place.ts';
import { Agent } from '../support/program.ts';

/** Time within which the log must say what the agent hears of its instance. */
const SAID_WITHIN_MS = 10_000;

interface Subject {
  readonly subject: Case;
  readonly served: LightRagHttp;
  start(words?: readonly string[], command?: 'up' | 'agent'): Agent;
}

async function begun(t: Scope): Promise<Subject> {
  const place = await tempFolder(t);
  const subject = new Case(join(place, 'rag'), join(place, 'store'));
  fill(subject.dir, { 'kv_store_full_docs.json': '{}' });
  const served = await serveLightRag(t, subject.dir);
  const start: Subject['start'] = (words = [], command = 'up') => {
    const places = ['--dir', subject.dir, '--store', subject.store, '--disk-reserve', '0'];
    return new Agent(t, [...places, '--instance-url', served.url, ...words], { command });
  };
  return { subject, served, start };
}

/** Returns the lines of an agent that are about its instance, without times. */
function linesOf(agent: Agent): string[] {
  return agent.text.split('\n').filter((line) => /(?:instance|server) at http/.test(line));
}

async function said(agent: Agent, n: number): Promise<string> {
  await until(`line ${n} about the instance`, () => linesOf(agent).length >= n, SAID_WITHIN_MS);
  return linesOf(agent)[n - 1] ?? assert.fail(agent.text);
}

async function cutOf(subject: Case): Promise<{ cutMethod: string; atRest: boolean; codes: string[] }> {
  const { snapshot } = await subject.show('latest');
  const { cutMethod, atRest } = snapshot as unknown as { cutMethod: string; atRest: boolean };
  return { cutMethod, atRest, codes: snapshot.findings.map(({ code, severity }) => `${severity} ${code}`) };
}

describe('the log of an agent', { concurrency: 2 }, () => {
  it('says that the instance is well, and every change, each once', async (t) => {
    const { subject, served, start } = await begun(t);
    const agent = start();
    assert.match(await said(agent, 1), /is LightRAG 1\.5\.7 and serves \S+rag$/);
    served.health = json({ ...healthOf(subject.dir), core_version: '1.6.0' });
    assert.match(await said(agent, 2), /is LightRAG 1\.6\.0 and serves/);
    served.status = json({ detail: 'API Key required' }, 403);
    assert.match(await said(agent, 3), /warning: .* needs another API key: .*HTTP 403/);
    await served.close();
    assert.match(await said(agent, 4), /warning: .* does not respond: it refuses connections/);
    await new Promise((resolve) => setTimeout(resolve, 6000));
    assert.equal(linesOf(agent).length, 4, agent.text);
    assert.equal((await agent.stop()).code, 0);
  });

  for (const [what, change, line, code] of [
    [
      'is silent',
      (served: LightRagHttp) => (served.health = () => {}),
      /does not respond/,
      'instance_silent',
    ],
    [
      'sends a web page',
      (served: LightRagHttp) => (served.health = (response) => void response.end('<html>')),
      /not respond as LightRAG/,
      'instance_unusable',
    ],
    [
      'needs a key',
      (served: LightRagHttp) => {
        served.health = json(PARTIAL_HEALTH);
        served.status = json({}, 401);
      },
      /needs another API key/,
      'instance_locked',
    ],
    [
      'serves another directory',
      (served: LightRagHttp) => (served.health = json(healthOf('/tmp'))),
      /serves another directory, \/tmp/,
      'other_directory',
    ],
  ] as const) {
    it(`says within ten seconds that the instance ${what}, and points do not wait for it`, async (t) => {
      const { subject, served, start } = await begun(t);
      change(served);
      served.status = what === 'serves another directory' ? json(IDLE) : served.status;
      const agent = start(['--log-format', 'json'], 'agent');
      const found = JSON.parse(await said(agent, 1)) as { level: string; hint: string; graph: string };
      assert.match(JSON.stringify(found), line);
      assert.deepEqual([found.level, found.graph, found.hint === ''], ['warn', 'rag', false]);
      await until('the first point', () => agent.text.includes('snapshot taken'));
      const began = performance.now();
      writeFileSync(join(subject.dir, 'kv_store_text_chunks.json'), '{}');
      const count = () => agent.text.split('snapshot taken').length - 1;
      await until('the next point', () => count() === 2, 8000);
      assert.ok(performance.now() - began < 8000);
      const cut = await cutOf(subject);
      assert.deepEqual(cut, { cutMethod: 'SETTLED', atRest: false, codes: [`INFO ${code}`] });
      assert.equal((await agent.stop()).code, 0);
    });
  }

  it('is delayed by no flag that stays set after a failed document', async (t) => {
    const { subject, served, start } = await begun(t);
    served.status = json({ ...IDLE, update_status: { text_chunks: [true], 'w:doc_status': true } });
    const agent = start();
    await agent.point(1);
    const began = performance.now();
    writeFileSync(join(subject.dir, 'kv_store_doc_status.json'), '{}');
    await agent.point(2, 8000);
    assert.ok(performance.now() - began < 8000);
    assert.deepEqual(await cutOf(subject), { cutMethod: 'IDLE', atRest: true, codes: [] });
    assert.equal((await agent.stop()).code, 0);
  });

  it('has a line for the graph that the instance serves, not for its other workspaces', async (t) => {
    const { subject, served, start } = await begun(t);
    for (const workspace of ['one', 'two']) {
      mkdirSync(join(subject.dir, workspace));
      writeFileSync(join(subject.dir, workspace, 'kv_store_full_docs.json'), '{}');
    }
    served.health = json(healthOf(subject.dir, { workspace: 'two' }));
    const agent = start();
    await agent.point(3);
    await said(agent, 2);
    const lines = linesOf(agent).sort();
    assert.equal(lines.length, 2, agent.text);
    assert.match(lines[0] ?? '', /^rag\.two: .* serves \S+rag, workspace "two"/);
    assert.match(lines[1] ?? '', /^warning: rag: .* serves another directory, \S+rag\/two/);
    const listed = await subject.list();
    const methods = new Map<string, string>();
    for (const { snapshotId, graphId } of listed)
      methods.set(graphId, (await subject.show(snapshotId)).snapshot.cutMethod);
    assert.deepEqual(Object.fromEntries(methods), {
      rag: 'SETTLED',
      'rag.one': 'SETTLED',
      'rag.two': 'IDLE',
    });
    assert.equal((await agent.stop()).code, 0);
  });

  it('does not wait for long for an instance that is busy all the time', async (t) => {
    const { subject, served, start } = await begun(t);
    served.status = json({ ...IDLE, busy: true });
    const agent = start();
    const began = performance.now();
    await agent.point(1, 10_000);
    writeFileSync(join(subject.dir, 'kv_store_text_chunks.json'), '{}');
    await agent.point(2, 10_000);
    assert.ok(performance.now() - began < 20_000);
    assert.deepEqual(await cutOf(subject), { cutMethod: 'SETTLED', atRest: false, codes: [] });
    assert.equal((await agent.stop()).code, 0);
  });

  it('has a line for every workspace with an instance and a key of its own', async (t) => {
    const { subject, served } = await begun(t);
    const place = join(subject.dir, '..');
    const own = await serveLightRag(t, subject.dir);
    const guarded = (reply: Reply): Reply => {
      return (response, request) =>
        (request.headers['x-api-key'] === 'its-key' ? reply : json({}, 403))(response, request);
    };
    for (const workspace of ['one', 'two']) {
      mkdirSync(join(subject.dir, workspace));
      writeFileSync(join(subject.dir, workspace, 'kv_store_full_docs.json'), '{}');
    }
    own.health = guarded(json(healthOf('/app/data', { workspace: 'one' })));
    own.status = guarded(json(IDLE));
    writeFileSync(join(place, 'key'), 'its-key\n');
    const settings = [
      `store: ${subject.store}`,
      'disk_reserve: 0',
      'graphs:',
      `  - dir: ${subject.dir}`,
      `    instance_url: ${served.url}`,
      `    workspaces: {one: {instance_url: "${own.url}", api_key_file: key}}`,
    ];
    writeFileSync(join(place, 'lk.yaml'), settings.join('\n'));
    const agent = new Agent(t, ['--config', join(place, 'lk.yaml')], { command: 'agent' });
    await agent.point(3);
    await said(agent, 2);
    const lines = linesOf(agent).map((line) => line.replace(/^\S+ /, ''));
    assert.equal(lines.length, 2, agent.text);
    assert.ok(
      lines.some(
        (line) => line.includes(own.url) && /serves \/app\/data, workspace "one" graph=rag\.one$/.test(line),
      ),
    );
    assert.ok(lines.some((line) => line.includes(served.url) && /graph=rag$/.test(line)));
    const methods = new Map<string, string>();
    for (const { snapshotId, graphId } of await subject.list())
      methods.set(graphId, (await subject.show(snapshotId)).snapshot.cutMethod);
    assert.deepEqual(Object.fromEntries(methods), { rag: 'IDLE', 'rag.one': 'IDLE', 'rag.two': 'SETTLED' });
    assert.equal((await agent.stop()).code, 0);
  });
});
