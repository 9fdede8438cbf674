import assert from 'node:assert/strict';
import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { briefly, Case } from '../support/case.ts';
import { atEnd, tempFolder } from '../support/place.ts';
import { Agent, assertRefused, lightkeeper } from '../support/program.ts';
import { startStandIn } from '../support/standin.ts';
import { assertSameTree, readTree } from '../support/tree.ts';

const PACED = ['--pause', '20ms'];
const KEY = { 'X-API-Key': 'secret' };

describe('an agent with --instance-url', { concurrency: 2 }, () => {
  it("captures idle states and records the server's version", async (t) => {
    const place = await tempFolder(t);
    const subject = new Case(join(place, 'rag'), join(place, 'store'));
    const instance = await startStandIn(t, subject.dir, [...PACED, '--api-key', 'secret']);
    const words = ['--dir', subject.dir, '--store', subject.store, '--disk-reserve', '0'];
    writeFileSync(join(place, 'key'), 'secret\n');
    const agent = new Agent(t, [
      ...words,
      '--instance-url',
      instance.url,
      '--api-key-file',
      join(place, 'key'),
    ]);
    await agent.point(1);
    assert.equal((await instance.ask('POST /documents', KEY)).status, 200);
    await agent.point(2);
    const { snapshot } = await subject.show('latest');
    assert.equal(snapshot.cutMethod, 'IDLE');
    assert.deepEqual(briefly(snapshot.findings), []);
    const about = (snapshot as unknown as { instance: Record<string, unknown> }).instance;
    assert.equal(about.url, instance.url);
    assert.equal(about.workingDir, subject.dir);
    assert.deepEqual(about.storages, {
      kv: 'JsonKVStorage',
      doc_status: 'JsonDocStatusStorage',
      graph: 'NetworkXStorage',
      vector: 'NanoVectorDBStorage',
    });
    assert.equal(JSON.stringify(snapshot).includes('secret'), false);
    // What comes back lives: another instance loads it and holds the same.
    const before = await instance.digest(KEY);
    await subject.restore('latest', join(place, 'back'));
    const second = await startStandIn(t, join(place, 'back'), PACED);
    assert.equal(await second.digest(), before);
    assert.equal((await agent.stop()).code, 0);
  });

  it('captures the last flush of an instance that stops at the same time', async (t) => {
    const place = await tempFolder(t);
    const subject = new Case(join(place, 'rag'), join(place, 'store'));
    const instance = await startStandIn(t, subject.dir, [
      ...PACED,
      '--query-every',
      '50ms',
      '--pause',
      '100ms',
    ]);
    const words = ['--dir', subject.dir, '--store', subject.store, '--disk-reserve', '0'];
    const agent = new Agent(t, [...words, '--instance-url', instance.url]);
    await agent.says(/protecting/);
    const ended = instance.stop();
    assert.equal((await agent.stop()).code, 0);
    assert.equal((await ended).code, 0);
    await subject.restore('latest', join(place, 'back'));
    assertSameTree(readTree(subject.dir), join(place, 'back'));
  });

  it('captures without an unreachable instance, with a finding', async (t) => {
    const place = await tempFolder(t);
    const subject = new Case(join(place, 'rag'), join(place, 'store'));
    mkdirSync(subject.dir);
    writeFileSync(join(subject.dir, 'kv_store_full_docs.json'), '{}');
    const words = ['--dir', subject.dir, '--store', subject.store, '--disk-reserve', '0'];
    const agent = new Agent(t, [...words, '--instance-url', 'http://127.0.0.1:9']);
    await agent.point(1);
    const { snapshot } = await subject.show('latest');
    assert.equal(snapshot.cutMethod, 'SETTLED');
    assert.deepEqual(briefly(snapshot.findings), ['instance_silent http://127.0.0.1:9']);
    assert.equal((await agent.stop()).code, 0);
  });

  it('refuses storages without files, unless --allow-partial is set', async (t) => {
    const place = await tempFolder(t);
    const subject = new Case(join(place, 'rag'), join(place, 'store'));
    const instance = await startStandIn(t, subject.dir, [...PACED, '--storage', 'postgres']);
    const words = ['--dir', subject.dir, '--store', subject.store, '--instance-url', instance.url];
    const refused = await lightkeeper(['up', ...words, '--http', '127.0.0.1:0']);
    assertRefused(refused, { code: 4, error: /outside of the directory/, hint: /--allow-partial/ });
    const agent = new Agent(t, [...words, '--allow-partial', '--disk-reserve', '0']);
    await agent.point(1);
    const { snapshot } = await subject.show('latest');
    assert.equal(snapshot.findings.length > 0, true);
    assert.deepEqual([...new Set(snapshot.findings.map(({ code }) => code))], ['outside_storage']);
    assert.equal((await agent.stop()).code, 0);
  });

  it('reports an instance that serves another directory', async (t) => {
    const place = await tempFolder(t);
    const instance = await startStandIn(t, join(place, 'rag'), PACED);
    const subject = new Case(join(place, 'copy'), join(place, 'store'));
    cpSync(join(place, 'rag'), subject.dir, { recursive: true });
    const words = ['--dir', subject.dir, '--store', subject.store, '--disk-reserve', '0'];
    const agent = new Agent(t, [...words, '--instance-url', instance.url]);
    await agent.point(1);
    const { snapshot } = await subject.show('latest');
    assert.deepEqual(briefly(snapshot.findings), [`other_directory ${join(place, 'rag')}`]);
    assert.equal((await agent.stop()).code, 0);
  });

  it('rejects a server that is not LightRAG', async (t) => {
    const place = await tempFolder(t);
    const subject = new Case(join(place, 'rag'), join(place, 'store'));
    mkdirSync(subject.dir);
    writeFileSync(join(subject.dir, 'a'), 'a');
    const server = createServer((_, response) => response.end('['.repeat(5_000_000)));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()));
    atEnd(t, () => server.close());
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const words = ['--dir', subject.dir, '--store', subject.store, '--disk-reserve', '0'];
    const agent = new Agent(t, [...words, '--instance-url', url]);
    await agent.point(1);
    const { snapshot } = await subject.show('latest');
    assert.deepEqual(briefly(snapshot.findings), [`instance_unusable ${url}`]);
    assert.equal((await agent.stop()).code, 0);
  });
});
