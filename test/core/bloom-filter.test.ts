import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { IdFilter } from '../../core/bloom-filter.ts';
import { sha256 } from '../../core/unit.ts';

const ids = (prefix: string, count: number) =>
  Array.from({ length: count }, (_, i) => sha256(Buffer.from(`${prefix} ${i}`)));

describe('a Bloom filter of ids', () => {
  it('contains every id that was added', () => {
    const filter = new IdFilter();
    const added = ids('added', 20_000);
    const together = Buffer.concat(added);
    for (let at = 0; at < together.length; at += 32) filter.add(together, at);
    assert.deepEqual(
      added.filter((id) => !filter.mayHold(id)),
      [],
    );
  });

  it('has no more false positives than its size promises', () => {
    const filter = new IdFilter();
    for (const id of ids('added', 200_000)) filter.add(id);
    const wrong = ids('other', 50_000).filter((id) => filter.mayHold(id)).length;
    // (1 - e^(-4 · 200,000 / 2^23))^4 of them: 3.4.
    assert.equal(wrong < 15, true, `${wrong} of 50,000`);
  });

  it('is empty at first', () => {
    const filter = new IdFilter();
    assert.equal(
      ids('other', 100).some((id) => filter.mayHold(id)),
      false,
    );
  });
});
