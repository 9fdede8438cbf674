import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fullJitterMs } from '../../core/backoff.ts';
import { TokenBucket } from '../../core/rate.ts';

describe('full jitter', () => {
  it('draws from a bound that doubles up to the longest', () => {
    const bounds = { firstMs: 100, longestMs: 1000 };
    const waits = [1, 2, 3, 4, 5, 6, 100].map((attempt) => fullJitterMs(attempt, bounds, 0.999_999));
    assert.deepEqual(waits, [100, 200, 400, 800, 1000, 1000, 1000]);
    assert.equal(fullJitterMs(5, bounds, 0), 0);
    assert.equal(fullJitterMs(5, bounds, 0.5), 500);
  });
});

describe('a token bucket', () => {
  it('lets through its rate over any long time, and a second of it at once', () => {
    const bucket = new TokenBucket(1000, 0);
    assert.equal(bucket.take(1000, 0), 0);
    assert.equal(bucket.take(500, 0), 0);
    assert.equal(bucket.take(500, 0), 500);
    let nowMs = 0;
    let sent = 0;
    const other = new TokenBucket(1000, 0);
    while (nowMs < 60_000) {
      nowMs += other.take(300, nowMs);
      sent += 300;
    }
    assert.ok(sent <= 62_000 && sent >= 59_000, String(sent));
  });
});
