import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { InstanceWatch } from '../../../agent/instance/instance-watch.ts';
import type { InstanceSettings } from '../../../agent/instance/probe.ts';
import { healthOf, json, type LightRagHttp, serveLightRag } from '../../support/lightrag-http.ts';
import { atEnd, type Scope, tempFolder, until } from '../../support/place.ts';

interface Subject {
  readonly served: LightRagHttp;
  readonly dir: string;
  readonly lines: string[];
  readonly watch: InstanceWatch;
}

async function watched(t: Scope, more: Partial<InstanceSettings> = {}): Promise<Subject> {
  const dir = join(await tempFolder(t), 'rag');
  mkdirSync(join(dir, 'one'), { recursive: true });
  const served = await serveLightRag(t, dir);
  const lines: string[] = [];
  const settings = { url: served.url, apiKey: '', allowPartial: false, ...more };
  const times = { everyMs: 50, timeoutMs: 1500 };
  const onChange = ({ message }: { message: string }) => lines.push(message);
  const graph = join(dir, more.workspace ?? '.');
  const watch = new InstanceWatch(settings, Buffer.from(graph), { onChange, times });
  const stop = new AbortController();
  const running = watch.run(stop.signal);
  atEnd(t, async () => {
    stop.abort();
    await running;
  });
  return { served, dir, lines, watch };
}

describe('the watch of an instance', { concurrency: 4 }, () => {
  it('does not call an instance silent that responds late once', async (t) => {
    const { served, lines } = await watched(t);
    await until('the first line', () => lines.length === 1);
    const { health } = served;
    let asked = 0;
    served.health = (response, request) => {
      asked += 1;
      // Late is every second response.
      if (asked % 2 === 0) health(response, request);
    };
    await until('six requests', () => asked >= 6);
    assert.equal(lines.length, 1, lines.join('\n'));
    served.health = () => {};
    await until('the line of silence', () => lines.length === 2);
    assert.match(lines[1] ?? '', /does not respond within 1500 ms/);
  });

  it('reports at once that connections are refused, and that they are accepted again', async (t) => {
    const { served, lines } = await watched(t);
    await until('the first line', () => lines.length === 1);
    served.health = (response) => void response.destroy();
    await until('the second line', () => lines.length === 2);
    served.health = json({ ...healthOf('/app/data'), core_version: '1.5.7' });
    await until('the third line', () => lines.length === 3);
    assert.match(lines[2] ?? '', /LightRAG 1\.5\.7 and serves \/app\/data/);
  });

  it('does not ask a silent instance for a capture, but one that is well', async (t) => {
    const { served, watch } = await watched(t);
    await until('a first report', async () => (await watch.current())?.kind === 'own');
    served.health = (response) => void response.destroy();
    await until('a report of silence', async () => (await watch.current())?.kind === 'no-response');
    const before = served.requests.length;
    const reports = await Promise.all(Array.from({ length: 50 }, () => watch.current()));
    assert.ok(reports.every((report) => report?.kind === 'no-response'));
    assert.ok(served.requests.length - before < 20, 'the watch alone asks');
  });

  it('has no line for a workspace that inherits an instance of another one', async (t) => {
    const { served, lines, watch } = await watched(t, { isInherited: true, workspace: 'one' });
    await until('a report', async () => (await watch.current())?.kind === 'elsewhere');
    assert.deepEqual(lines, []);
    assert.ok(served.requests.length > 0);
  });
});
