import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { Case, type Finding } from '../support/case.ts';
import { needing } from '../support/machine.ts';
import { atEnd, tempFolder } from '../support/place.ts';
import { Agent, assertRefused, jsonOf, lightkeeper, outcomeText, Running } from '../support/program.ts';

interface Result {
  readonly findings: readonly (Finding & { readonly count: number })[];
  readonly nextSteps: readonly string[];
  readonly instance?: Readonly<Record<string, unknown>>;
  readonly inPlace?: { readonly oldState: string; readonly removedNames: readonly string[] };
}

/** A directory with some files, and a store. */
async function subjectIn(t: TestContext, files: Readonly<Record<string, string>>): Promise<Case> {
  const place = await tempFolder(t);
  const subject = new Case(join(place, 'rag'), join(place, 'store'));
  mkdirSync(subject.dir);
  for (const [name, content] of Object.entries(files)) writeFileSync(join(subject.dir, name), content);
  return subject;
}

function words({ dir, store }: Case, ...more: string[]): string[] {
  return ['restore', 'latest-valid', '--in-place', dir, '--store', store, '--disk-reserve', '0', ...more];
}

async function restored(subject: Case, ...more: string[]): Promise<Result> {
  return await jsonOf<Result>(words(subject, '--instance-stopped', ...more));
}

/** An instance that replies to every request. */
async function instance(t: TestContext, reply: { status?: number; health?: object } = {}) {
  const server = createServer((_, response) => {
    response.writeHead(reply.status ?? 200, { 'content-type': 'application/json' });
    response.end(JSON.stringify(reply.health ?? { status: 'healthy' }));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const stop = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  atEnd(t, () => (server.listening ? stop() : undefined));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, stop };
}

function health(version: string, embeddingModel = 'embedder', dimension = 128) {
  return {
    core_version: version,
    configuration: { embedding_model: embeddingModel, embedding_dim: dimension, llm_model: 'talker' },
  };
}

function agentOf(t: TestContext, { dir, store }: Case, ...more: string[]): Agent {
  return new Agent(t, ['--dir', dir, '--store', store, '--disk-reserve', '0', ...more]);
}

/** Takes a snapshot while an instance reports these facts of itself. */
async function snapshotBeside(t: TestContext, subject: Case, facts: object): Promise<void> {
  const server = await instance(t, { health: { ...facts, busy: false } });
  await subject.snapshot({ flags: ['--instance-url', server.url] });
  await server.stop();
}

describe('a directory after a restore in place', { concurrency: 2 }, () => {
  it('equals its point for the next snapshot and for an agent', async (t) => {
    const subject = await subjectIn(t, { one: 'one', two: 'two' });
    mkdirSync(join(subject.dir, 'folder'));
    writeFileSync(join(subject.dir, 'folder/three'), 'three');
    linkSync(join(subject.dir, 'two'), join(subject.dir, 'folder/hard'));
    symlinkSync('../one', join(subject.dir, 'folder/soft'));
    const times = () =>
      ['one', 'folder'].map((name) => lstatSync(join(subject.dir, name), { bigint: true }).mtimeNs);
    assert.ok(
      times().some((ns) => ns % 1000n !== 0n),
      'this filesystem has times below the microsecond',
    );
    const point = await subject.snapshot();
    writeFileSync(join(subject.dir, 'one'), 'changed');
    rmSync(join(subject.dir, 'two'));
    await restored(subject);
    const agent = agentOf(t, subject);
    await agent.says(/protected since/);
    assert.equal((await agent.stop()).code, 0, agent.text);
    const again = await subject.snapshot();
    assert.deepEqual([again.unchanged, again.snapshotId], [true, point.snapshotId]);
    assert.equal((await subject.list()).length, 1);
  });

  it('becomes a new point where something else than the times has changed', async (t) => {
    const subject = await subjectIn(t, { one: 'one', two: 'two' });
    await subject.snapshot();
    await restored(subject);
    writeFileSync(join(subject.dir, 'two'), 'TWO');
    const next = await subject.snapshot();
    assert.equal(next.unchanged, false);
    const { files } = await subject.show(next.snapshotId);
    assert.deepEqual(
      files.map(({ path }) => path),
      ['one', 'two'],
    );
  });

  it('belongs to its present owner, and it is said', needing('root'), async (t) => {
    const subject = await subjectIn(t, { one: 'one', two: 'two' });
    const { dir } = subject;
    const all = () => [
      '.',
      ...readdirSync(dir, { encoding: 'utf8' }).filter((name) => name !== '.lightkeeper'),
    ];
    const owners = () => [...new Set(all().map((name) => Object.values(idsOf(join(dir, name))).join(':')))];
    const give = (uid: number, gid: number) => {
      for (const name of all()) chownSync(join(dir, name), uid, gid);
    };
    give(4001, 4002);
    // A file of another user, as the container's root may have left one.
    chownSync(join(dir, 'two'), 0, 0);
    await subject.snapshot();
    give(5001, 4002);
    const { findings } = await restored(subject);
    assert.deepEqual(owners(), ['5001:4002', '5001:0']);
    const [said] = findings.filter(({ code }) => code === 'owner_changed');
    assert.match(said?.message ?? '', /4001:4002 .*5001:4002/);
    give(4001, 4002);
    assert.deepEqual(
      (await restored(subject)).findings.filter(({ code }) => code === 'owner_changed'),
      [],
    );
    assert.deepEqual(
      idsOf(join(dir, 'two')),
      { uid: 0, gid: 0 },
      'the owners at the capture, if nothing has changed',
    );
  });
});

describe('a restore by root that may not change owners', { concurrency: 2 }, () => {
  it(
    'ends, names the files, and makes no set-user-id program of another user',
    needing('root', 'setpriv'),
    async (t) => {
      const subject = await subjectIn(t, { one: 'one', tool: '#!/bin/sh' });
      chownSync(join(subject.dir, 'one'), 4001, 4001);
      chownSync(join(subject.dir, 'tool'), 4001, 4001);
      chmodSync(join(subject.dir, 'tool'), 0o4755);
      await subject.snapshot();
      const under = ['setpriv', '--bounding-set=-chown', '--inh-caps=-chown'];
      for (const target of [
        ['--to', `${subject.dir}.back`],
        ['--in-place', subject.dir, '--instance-stopped'],
      ]) {
        const { findings } = await jsonOf<Result>(
          ['restore', 'latest', ...target, '--store', subject.store, '--disk-reserve', '0'],
          { under },
        );
        const [denied] = findings.filter(({ code }) => code === 'owner_not_set');
        assert.equal(denied?.count, 2);
        const tool = statSync(join(target[1] ?? '', 'tool'));
        assert.deepEqual([tool.uid, tool.mode & 0o7777], [0, 0o755]);
        assert.equal(readFileSync(join(target[1] ?? '', 'one'), 'utf8'), 'one');
      }
    },
  );
});

function idsOf(path: string): { uid: number; gid: number } {
  const { uid, gid } = statSync(path);
  return { uid, gid };
}

describe('restore --in-place beside an agent with --instance-url', { concurrency: 2 }, () => {
  it('does not take the word of the operator while that instance replies', async (t) => {
    const subject = await subjectIn(t, { one: 'one' });
    // Without a key it refuses the agent, and runs all the same.
    const server = await instance(t, { status: 403 });
    const agent = agentOf(t, subject, '--instance-url', server.url);
    await agent.says(/protected since/);
    writeFileSync(join(subject.dir, 'one'), 'the present state');
    const refused = await lightkeeper(words(subject, '--instance-stopped'));
    assertRefused(refused, { code: 4, error: /instance at "[^"]+" replies/, hint: /stop the instance/ });
    assert.equal(readFileSync(join(subject.dir, 'one'), 'utf8'), 'the present state');
    rmSync(subject.dir, { recursive: true });
    const absent = await lightkeeper(words(subject, '--instance-stopped'));
    assertRefused(absent, { code: 4, error: /replies/, hint: /stop the instance/ });
    assert.equal(existsSync(subject.dir), false);
    await server.stop();
    await restored(subject);
    assert.equal(existsSync(join(subject.dir, 'one')), true);
    assert.equal((await agent.stop()).code, 0, agent.text);
  });

  it('takes it if only a proxy replies that nothing is behind it', async (t) => {
    const subject = await subjectIn(t, { one: 'one' });
    const proxy = await instance(t, { status: 502 });
    const agent = agentOf(t, subject, '--instance-url', proxy.url);
    await agent.says(/protected since/);
    await restored(subject);
    assert.equal((await agent.stop()).code, 0, agent.text);
  });
});

describe('restore --in-place beside an agent whose instance serves another directory', () => {
  it('takes the word of the operator', async (t) => {
    const subject = await subjectIn(t, { one: 'one' });
    const elsewhere = await tempFolder(t);
    const facts = { ...health('1.5.7'), working_directory: elsewhere, busy: false };
    const server = await instance(t, { health: facts });
    const agent = agentOf(t, subject, '--instance-url', server.url);
    await agent.says(/protected since/);
    await restored(subject);
    assert.equal((await agent.stop()).code, 0, agent.text);
  });
});

describe('restore --in-place beside temporary files', { concurrency: 2 }, () => {
  it('sets those of dead processes aside at once, and refuses for a live one', async (t) => {
    const subject = await subjectIn(t, { one: 'one' });
    await subject.snapshot();
    const writer = new Running(['sleep', '60']).endWith(t);
    const name = `one.tmp.${writer.pid}.139937924929216.${Date.now()}000000`;
    writeFileSync(join(subject.dir, name), 'half of a flu');
    const refused = await lightkeeper(words(subject, '--instance-stopped'));
    assertRefused(refused, { code: 4, error: /a flush may be under way/, hint: /stop the instance/ });
    writer.kill('SIGKILL');
    await writer.ended;
    const { inPlace } = await restored(subject);
    assert.deepEqual(inPlace?.removedNames, [name]);
    assert.equal(readFileSync(join(inPlace?.oldState ?? '', name), 'utf8'), 'half of a flu');
    assert.deepEqual(readdirSync(subject.dir).sort(), ['.lightkeeper', 'one']);
    assert.equal((await subject.snapshot()).unchanged, true);
  });
});

describe('the end of a restore', { concurrency: 2 }, () => {
  it('names the server that wrote the point, its models, and the next commands', async (t) => {
    const subject = await subjectIn(t, { one: 'one' });
    await snapshotBeside(t, subject, health('1.5.7'));
    const result = await restored(subject);
    const { instance: about = {}, nextSteps, findings } = result;
    assert.deepEqual(
      [about.version, about.embeddingModel, about.llmModel, about.embeddingDimension],
      ['1.5.7', 'embedder', 'talker', 128],
    );
    assert.match(
      nextSteps[0] ?? '',
      /start the server .*LightRAG 1\.5\.7.*EMBEDDING_MODEL=embedder, EMBEDDING_DIM=128/,
    );
    assert.match(
      nextSteps.join('\n'),
      /docker compose start .*systemctl start .*\/documents\/status_counts/s,
    );
    assert.deepEqual(
      findings.map(({ code }) => code),
      [],
    );
    const plain = await lightkeeper(words(subject, '--instance-stopped'));
    assert.match(
      plain.stdout,
      /written by LightRAG 1\.5\.7, .*embedder.*talker\nnext:\n {2}1\. .*\n {2}2\. /,
      outcomeText(plain),
    );
    const dry = await restored(subject, '--dry-run');
    assert.deepEqual(dry.nextSteps, []);
    const list = await lightkeeper(['list', '--store', subject.store]);
    assert.match(list.stdout, / 1\.5\.7, embedder, talker/);
    const show = await lightkeeper(['show', 'latest', '--store', subject.store]);
    assert.match(
      show.stdout,
      /written by +LightRAG 1\.5\.7, embeddings by embedder \(128 dimensions\), LLM talker/,
    );
    const [listed] = (await subject.list()) as unknown as { instance: { version: string } }[];
    assert.equal(listed?.instance.version, '1.5.7');
  });

  it('to another directory says how the server comes to use it', async (t) => {
    const subject = await subjectIn(t, { one: 'one' });
    await snapshotBeside(t, subject, health('1.5.7'));
    const to = join(subject.dir, "../it's back");
    const ended = await lightkeeper([
      'restore',
      'latest',
      '--to',
      to,
      '--store',
      subject.store,
      '--disk-reserve',
      '0',
    ]);
    assert.match(
      ended.stdout,
      /1\. stop the server, set WORKING_DIR='[^\n]*\/it'\\''s back', and start it/,
      outcomeText(ended),
    );
    assert.match(
      ended.stdout,
      / protect it here: lightkeeper up --dir '.*' --graph rag\n/,
      outcomeText(ended),
    );
  });

  it('warns of a server that is older than the point, or has another embedding model', async (t) => {
    const subject = await subjectIn(t, { one: 'one' });
    await snapshotBeside(t, subject, health('1.5.7'));
    const [newer] = await subject.list();
    writeFileSync(join(subject.dir, 'one'), 'after a downgrade');
    await snapshotBeside(t, subject, health('1.4.9.11', 'another', 64));
    const result = await jsonOf<Result>([
      ...['restore', newer?.snapshotId ?? '', '--in-place', subject.dir, '--instance-stopped'],
      ...['--store', subject.store, '--disk-reserve', '0'],
    ]);
    const said = new Map(result.findings.map(({ code, message }) => [code, message]));
    assert.match(said.get('older_server') ?? '', /1\.5\.7 wrote .*1\.4\.9\.11, does not start from it/);
    assert.match(
      said.get('other_embedding_model') ?? '',
      /"embedder".*"another": it refuses vectors of 128 dimensions/,
    );
  });

  it('says so if the version of the server is not known', async (t) => {
    const rows = { doc: { content: 'text' } };
    const subject = await subjectIn(t, { 'kv_store_full_docs.json': JSON.stringify(rows) });
    await subject.snapshot({ flags: ['--no-grade'] });
    await subject.snapshot();
    const { findings } = await jsonOf<Result>([
      ...['restore', 'latest', '--in-place', subject.dir, '--instance-stopped'],
      ...['--store', subject.store, '--disk-reserve', '0'],
    ]);
    const [said] = findings.filter(({ code }) => code === 'server_unknown');
    assert.match(said?.message ?? '', /not recorded.*before 1\.5 does not start/);
  });
});
