import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { parse } from 'yaml';
import { briefly, Case } from '../support/case.ts';
import { needing } from '../support/machine.ts';
import { tempFolder } from '../support/place.ts';
import { Agent, lightkeeper } from '../support/program.ts';
import { startStandIn } from '../support/standin.ts';
import { assertSameTree, readTree } from '../support/tree.ts';

const ROOT = join(import.meta.dirname, '../..');
/** What a container file may say. */
const INSTRUCTIONS = /^(?:FROM|WORKDIR|COPY|RUN|ENV|STOPSIGNAL|ENTRYPOINT|CMD) /;

interface Service {
  readonly user: string;
  readonly command?: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly volumes: readonly string[];
  readonly restart: string;
  readonly stop_grace_period: string;
  readonly healthcheck?: { readonly test: readonly string[] };
}

describe('the deploy files', () => {
  it('run both containers as one user over one directory, the store on another volume', () => {
    const file = parse(readFileSync(join(ROOT, 'deploy/compose.yaml'), 'utf8')) as {
      services: { lightrag: Service; lightkeeper: Service };
      volumes: Readonly<Record<string, unknown>>;
    };
    const { lightrag, lightkeeper } = file.services;
    assert.equal(lightkeeper.user, lightrag.user);
    assert.equal(lightkeeper.environment.WORKING_DIR, lightrag.environment.WORKING_DIR);
    const [shared = ''] = lightrag.volumes;
    assert.equal(lightkeeper.volumes.includes(shared), true);
    const [, points = ''] = lightkeeper.volumes;
    assert.deepEqual(Object.keys(file.volumes), [shared.split(':')[0], points.split(':')[0]]);
    assert.match(readFileSync(join(ROOT, 'deploy/Containerfile'), 'utf8'), /LIGHTKEEPER_STORE=\/backups/);
    assert.equal(points.split(':')[1], '/backups');
    for (const { restart, stop_grace_period } of [lightrag, lightkeeper])
      assert.deepEqual([restart, stop_grace_period], ['unless-stopped', '60s']);
    assert.match(lightkeeper.healthcheck?.test.at(-1) ?? '', /127\.0\.0\.1:9701\/liveness/);
    assert.equal(lightkeeper.command?.[0], 'agent');
  });

  it('have settings of two machines that fit together', async (t) => {
    const folder = join(ROOT, 'deploy/two-machines');
    const place = await tempFolder(t);
    for (const name of ['first', 'second']) {
      const ended = await lightkeeper(['config', 'check', '--config', join(folder, `${name}.yaml`)], {
        env: { HOME: place },
      });
      assert.equal(ended.code, 0, ended.stderr);
    }
    const { services, networks, volumes } = parse(readFileSync(join(folder, 'compose.yaml'), 'utf8')) as {
      services: Readonly<Record<string, Service & { networks: string[] }>>;
      networks: object;
      volumes: object;
    };
    assert.deepEqual(Object.keys(services), ['lightrag', 'first', 'second']);
    for (const name of ['first', 'second'])
      assert.ok(services[name]?.volumes.includes(`${name}_points:/backups`), 'the image has its store there');
    const used = Object.values(services).flatMap((service) => service.networks);
    assert.deepEqual([...new Set(used)].sort(), Object.keys(networks).sort());
    const mounted = Object.values(services).flatMap((service) =>
      service.volumes.map((one) => one.split(':')[0]),
    );
    assert.deepEqual(
      [...new Set(mounted)].filter((one) => one?.startsWith('.') === false).sort(),
      Object.keys(volumes).sort(),
    );
    const { targets, grpc } = parse(readFileSync(join(folder, 'first.yaml'), 'utf8'));
    const second = parse(readFileSync(join(folder, 'second.yaml'), 'utf8'));
    assert.equal(targets[0].name, second.name);
    assert.equal(new URL(second.graphs[0].follow).port, String(grpc).split(':')[1]);
  });

  it('have a container file with known instructions that copies existing files', () => {
    const lines = readFileSync(join(ROOT, 'deploy/Containerfile'), 'utf8')
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'));
    for (const line of lines) assert.match(line, INSTRUCTIONS);
    const { files } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { files: string[] };
    assert.equal(files.includes('dist'), true);
  });

  it('work with two processes that mount one directory', needing('mount'), async (t) => {
    const place = await tempFolder(t);
    const source = join(place, 'volume');
    const dir = join(place, 'app');
    for (const folder of [source, dir]) mkdirSync(folder);
    const under = ['unshare', '--mount', 'sh', '-c', `mount --bind '${source}' '${dir}' && exec "$0" "$@"`];
    const instance = await startStandIn(t, dir, ['--pause', '20ms'], { under });
    const subject = new Case(dir, join(place, 'points'));
    const words = [
      '--dir',
      dir,
      '--store',
      subject.store,
      '--disk-reserve',
      '0',
      '--instance-url',
      instance.url,
    ];
    const agent = new Agent(t, words, { under });
    await agent.point(1);
    assert.equal((await instance.ask('POST /documents')).status, 200);
    await agent.point(2);
    const ended = instance.stop();
    assert.equal((await agent.stop()).code, 0, agent.text);
    assert.equal((await ended).code, 0);
    const { snapshot } = await subject.show('latest');
    assert.equal(['IDLE', 'SETTLED'].includes(snapshot.cutMethod), true);
    assert.deepEqual(
      briefly(snapshot.findings).filter((found) => !/^instance_silent/.test(found)),
      [],
    );
    await subject.restore('latest', join(place, 'back'));
    assertSameTree(readTree(source), join(place, 'back'));
  });
});
