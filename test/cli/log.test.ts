import assert from 'node:assert/strict';
import { once } from 'node:events';
import { it } from 'node:test';
import { type Json, Place, suite } from '../support/cli-place.ts';
import type { Running } from '../support/program.ts';

function start(place: Place, command: string, ...args: string[]): Running {
  place.write('a', 'a');
  const flags = ['--dir', place.dir, '--store', place.store, '--http', '127.0.0.1:0', '--disk-reserve', '0'];
  return place.start([command, ...flags, ...args]);
}

/** Waits until the store has so many snapshots. */
async function points(place: Place, count: number): Promise<void> {
  while (
    (await place.run(['list', '--store', place.store])).code !== 0 ||
    (await place.ids()).length < count
  );
}

suite('the log of an agent', () => {
  it('is on standard error, a line per event; standard output stays empty', async () => {
    const place = new Place();
    const running = start(place, 'agent');
    await running.says(/ snapshot taken /);
    const { code, stdout, stderr } = await running.stop('SIGTERM');
    assert.deepEqual([code, stdout], [0, '']);
    for (const line of stderr.trimEnd().split('\n'))
      assert.match(line, /^\d{4}-\d\d-\d\dT\S+Z (?:info {2}|warn {2}|error )\S.*$/);
    for (const event of ['serving store=', 'protecting graph=rag dir=', 'stopping', 'stopped'])
      assert.ok(stderr.includes(` ${event}`), event);
  });

  it('is JSON with --log-format json, also of up', async () => {
    for (const command of ['agent', 'up']) {
      const place = new Place();
      const running = start(place, command, '--log-format', 'json');
      await running.says(/"snapshot taken"/);
      const { code, stdout, stderr } = await running.stop('SIGTERM');
      assert.deepEqual([code, stdout], [0, '']);
      const records = stderr.trimEnd().split('\n');
      const taken = records
        .map((line) => JSON.parse(line) as Json)
        .find(({ message }) => message === 'snapshot taken');
      assert.deepEqual([taken?.graph, taken?.grade, taken?.level], ['rag', 'VALID', 'info']);
    }
  });

  it('leaves out what is below its level', async () => {
    const place = new Place();
    const running = start(place, 'agent', '--log-level', 'error');
    await points(place, 1);
    const { code, stderr } = await running.stop('SIGTERM');
    assert.deepEqual([code, stderr], [0, '']);
  });

  for (const command of ['agent', 'up']) {
    it(`whose readers have gone does not end ${command}`, async () => {
      const place = new Place();
      const running = start(place, command);
      running.child.stdout?.destroy();
      running.child.stderr?.destroy();
      await points(place, 1);
      place.write('a', 'b');
      await points(place, 2);
      running.child.kill('SIGTERM');
      const [code, signal] = await once(running.child, 'exit');
      assert.deepEqual([code, signal], [0, null]);
    });
  }
});
