import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { StoreChanges } from '../../../agent/store/changes.ts';

const digest = (n: number) => new Uint8Array(32).fill(n);

describe('the changes of a store', () => {
  it('wake every reader that waits, and none that saw them', async () => {
    const changes = new StoreChanges();
    const { signal } = new AbortController();
    let woken = 0;
    const readers = [1, 2].map(() => changes.after(0, signal).then(() => (woken += 1)));
    await Promise.resolve();
    assert.equal(woken, 0);
    changes.announce();
    await Promise.all(readers);
    await changes.after(0, signal);
    const late = changes.after(1, AbortSignal.abort());
    await late;
    assert.equal(changes.version, 1);
  });

  it('name the snapshots with new facts since a version, as far as they are remembered', () => {
    const changes = new StoreChanges();
    changes.addFacts([digest(1)]);
    changes.announce();
    changes.addFacts([digest(2)]);
    changes.announce();
    assert.deepEqual(changes.factsSince(0), [digest(1), digest(2)]);
    assert.deepEqual(changes.factsSince(1), [digest(2)]);
    assert.deepEqual(changes.factsSince(2), []);
    changes.addFacts(Array.from({ length: 10_000 }, () => digest(3)));
    changes.announce();
    assert.equal(changes.factsSince(0), undefined);
    assert.equal(changes.factsSince(2)?.length, 10_000);
  });
});
