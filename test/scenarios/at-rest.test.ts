import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { Case } from '../support/case.ts';
import { fill } from '../support/fill.ts';
import { clockShifted, needing } from '../support/machine.ts';
import { atEnd, type Scope, tempFolder } from '../support/place.ts';
import { assertRefused, jsonOf, lightkeeper, type StartOptions } from '../support/program.ts';

interface Cut {
  readonly cutMethod: string;
  readonly atRest: boolean;
  readonly instance?: {
    readonly version: string;
    readonly embeddingModel: string;
    readonly llmModel: string;
  };
}

async function begun(t: Scope): Promise<Case> {
  const place = await tempFolder(t);
  const subject = new Case(join(place, 'rag'), join(place, 'store'));
  fill(subject.dir, { a: '1' });
  return subject;
}

/** `snapshot` with further words; returns what it prints. */
async function cutOf({ dir, store }: Case, words: readonly string[] = [], options: StartOptions = {}) {
  const command = ['snapshot', '--dir', dir, '--store', store, '--disk-reserve', '0', ...words];
  const { cutMethod, atRest, instance } = await jsonOf<Cut>(command, options);
  return { cutMethod, atRest, ...(instance === undefined ? {} : { instance }) };
}

/** Serves the two calls of LightRAG for a directory, idle; returns the URL. */
async function serveIdle(t: Scope, dir: string): Promise<string> {
  const configuration = { embedding_model: 'bge-m3', llm_model: 'qwen3', workspace: '' };
  const health = { status: 'healthy', core_version: '1.5.7', working_directory: dir, configuration };
  const server = createServer((request, response) => {
    const body = request.url === '/health' ? health : { busy: false, update_status: { text_chunks: true } };
    response.end(JSON.stringify(body));
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  atEnd(t, () => server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

describe('a snapshot', { concurrency: 2 }, () => {
  it('of a directory that has just changed is not known to be at rest', async (t) => {
    const subject = await begun(t);
    assert.deepEqual(await cutOf(subject), { cutMethod: 'SETTLED', atRest: false });
    const { snapshot } = await subject.show('latest');
    assert.equal((snapshot as unknown as Cut).atRest, false);
  });

  it("is at rest by the operator's word, which stays with it", async (t) => {
    const subject = await begun(t);
    assert.deepEqual(await cutOf(subject, ['--instance-stopped']), { cutMethod: 'SETTLED', atRest: true });
    const { snapshot } = await subject.show('latest');
    assert.equal((snapshot as unknown as Cut).atRest, true);
  });

  it('is at rest if nothing has changed for a minute, not before', needing('faketime'), async (t) => {
    const [subject, other] = [await begun(t), await begun(t)];
    assert.equal((await cutOf(subject, [], { env: clockShifted(62) })).atRest, true);
    assert.equal((await cutOf(other, [], { env: clockShifted(40) })).atRest, false);
  });

  it('is not at rest by a change time in the future', needing('faketime'), async (t) => {
    const subject = await begun(t);
    assert.equal((await cutOf(subject, [], { env: clockShifted(-3600) })).atRest, false);
  });

  it('is at rest beside an idle instance, and names its version and models', async (t) => {
    const subject = await begun(t);
    const url = await serveIdle(t, subject.dir);
    const { instance, ...cut } = await cutOf(subject, ['--instance-url', url]);
    assert.deepEqual(cut, { cutMethod: 'IDLE', atRest: true });
    const { version, embeddingModel, llmModel } = instance ?? assert.fail('there is no instance');
    assert.deepEqual([version, embeddingModel, llmModel], ['1.5.7', 'bge-m3', 'qwen3']);
  });

  it('refuses contradictory words about the instance', async (t) => {
    const { dir, store } = await begun(t);
    const words = ['snapshot', '--dir', dir, '--store', store];
    const both = await lightkeeper([...words, '--instance-url', 'http://127.0.0.1:9', '--instance-stopped']);
    assertRefused(both, { code: 2, error: /of a stopped instance with a URL/, hint: /either/ });
    const noUrl = await lightkeeper([...words, '--instance-url', 'nowhere']);
    assertRefused(noUrl, { code: 2, error: /it is not an HTTP URL/, hint: /--instance-url http/ });
    const secret = await lightkeeper([...words, '--instance-url', 'http://me:hidden@127.0.0.1:9']);
    assertRefused(secret, { code: 2, error: /it holds a password/, hint: /--api-key-file/ });
    assert.doesNotMatch(secret.stderr, /hidden/);
    const noServer = await lightkeeper([...words, '--api-key-file', '/dev/null']);
    assertRefused(noServer, { code: 2, error: /with a key alone/, hint: /--instance-url/ });
  });
});
