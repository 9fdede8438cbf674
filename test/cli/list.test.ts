import assert from 'node:assert/strict';
import { it } from 'node:test';
import { listOf, Place, suite } from '../support/cli-place.ts';

suite('list', () => {
  it('selects by grade, tag, time and number', async () => {
    const place = new Place();
    const plain = await place.snapshot({ a: '1' });
    const tagged = await place.snapshot({ a: '2' }, '--tag', 'by=hand', '--tag', 'why=test');
    const ungraded = await place.snapshot({ a: '3' }, '--no-grade', '--tag', 'by=hand');
    const [one, two, three] = [plain, tagged, ungraded].map(({ snapshotId }) => String(snapshotId));
    const ids = async (...flags: string[]) =>
      listOf(await place.json(['list', ...flags]), 'snapshots').map(({ snapshotId }) => snapshotId);
    assert.deepEqual(await ids(), [three, two, one]);
    assert.deepEqual(await ids('--last', '2'), [three, two]);
    assert.deepEqual(await ids('--grade', 'valid'), [two, one]);
    assert.deepEqual(await ids('--grade', 'UNGRADED'), [three]);
    assert.deepEqual(await ids('--tag', 'by=hand'), [three, two]);
    assert.deepEqual(await ids('--tag', 'by=hand', '--tag', 'why=test'), [two]);
    assert.deepEqual(await ids('--tag', 'by=hand', '--grade', 'valid', '--last', '1'), [two]);
    assert.deepEqual(await ids('--since', String(tagged.capturedAt)), [three, two]);
    assert.deepEqual(await ids('--since', '1h'), [three, two, one]);
    assert.deepEqual(await ids('--since', '2999-01-01'), []);
    assert.deepEqual(await ids('--last', '0'), []);
    for (const flags of [
      ['--grade', 'good'],
      ['--since', 'yesterday'],
      ['--last', '-1'],
      ['--tag', 'by'],
    ])
      await place.fails(['list', ...flags, '--store', place.store], 2);
  });
});
