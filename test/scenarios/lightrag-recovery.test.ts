// A LightRAG server whose directory is guarded, restored, and damaged.
import assert from 'node:assert/strict';
import { cpSync, readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { Case } from '../support/case.ts';
import { codesOf, Guard, isUsable, validate } from '../support/lightrag/grading.ts';
import { CI_VERSION, type Installed, installLightRag, lackingFor } from '../support/lightrag/install.ts';
import { ALICE, BOB } from '../support/lightrag/scenarios/texts.ts';
import { LightRagServer, ServerRefused } from '../support/lightrag/server.ts';
import { World } from '../support/lightrag/world.ts';
import { tempFolder } from '../support/place.ts';

const GRAPH = 'graph_chunk_entity_relation.graphml';

const skip = await lackingFor(CI_VERSION);
const installing = skip === false ? installLightRag(CI_VERSION) : undefined;
// Each test that needs it says why it failed.
installing?.catch(() => {});

function installed(): Promise<Installed> {
  return installing ?? assert.fail('not installed');
}

describe(`a directory of LightRAG ${CI_VERSION}`, { concurrency: 2, skip }, () => {
  test('gives an agent usable points with and without the API, and serves again after a restore', async (t) => {
    const root = await tempFolder(t);
    const world = await World.make({ scope: t, installed: await installed(), root, onState: async () => {} });
    await world.start();
    const { dir, api } = world;
    const silent = new Guard(t, { dir, root: join(root, 'silent') });
    const asking = new Guard(t, { dir, root: join(root, 'asking'), url: api.url });
    await world.insert(ALICE, 'alice.txt');
    await world.insert(`@@FAIL400@@ ${BOB}`, 'bad.txt');
    for (const guard of [silent, asking]) {
      const judged = await guard.judged();
      assert.equal(isUsable(judged), true, `${judged.grade} ${codesOf(judged)}`);
    }
    const listed = async (server: LightRagServer) =>
      (await server.api.documents()).map(({ file_path, status }) => `${file_path} ${status}`).sort();
    const before = await listed(world.server ?? assert.fail());
    assert.deepEqual(before, ['alice.txt processed', 'bad.txt failed']);
    await world.stop('SIGKILL');
    const [newest] = await asking.points();
    const back = join(root, 'back');
    await new Case(dir, join(root, 'asking/store')).restore(newest?.snapshotId ?? assert.fail(), back);
    const place = { installed: world.installed, fake: world.fake, dir: back, beside: join(root, 'again') };
    const again = await LightRagServer.start(t, place);
    assert.deepEqual(await listed(again), before);
    const { body } = await again.api.query('Who founded Acme Corp?', 'naive', { only_need_context: true });
    assert.match(JSON.stringify(body), /Alice Johnson founded Acme Corp/);
  });

  test('is INVALID where the server refuses it', async (t) => {
    const root = await tempFolder(t);
    const world = await World.make({ scope: t, installed: await installed(), root, onState: async () => {} });
    await world.start();
    await world.insert(ALICE, 'alice.txt');
    await world.stop();
    const damaged = join(root, 'damaged');
    cpSync(world.dir, damaged, { recursive: true });
    const path = join(damaged, GRAPH);
    truncateSync(path, Math.floor(readFileSync(path).length / 2));
    const place = { installed: world.installed, fake: world.fake, dir: damaged, beside: join(root, 'asked') };
    await assert.rejects(LightRagServer.start(t, place), ServerRefused);
    assert.equal((await validate(damaged)).grade, 'INVALID');
    assert.equal((await validate(world.dir)).grade, 'VALID');
  });
});
