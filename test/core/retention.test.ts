import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { applyRetention, type Candidate, isEmptyPolicy, type RetentionPlan } from '../../core/retention.ts';
import { RetentionPolicySchema } from '../../gen/lightkeeper/v1/agent_pb.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const NOW = Date.UTC(2026, 5, 17, 12, 30);

type Policy = MessageInitShape<typeof RetentionPolicySchema>;

function point(snapshotId: string, at: string | number, more: Partial<Candidate> = {}): Candidate {
  const capturedMs = typeof at === 'number' ? at : Date.parse(at);
  return {
    snapshotId,
    capturedMs,
    tags: {},
    pinned: false,
    worth: 'usable',
    side: false,
    alarming: false,
    ...more,
  };
}

/** Torn by its cut. */
function side(snapshotId: string, at: string | number): Candidate {
  return point(snapshotId, at, { worth: 'broken', side: true });
}

function plan(candidates: readonly Candidate[], policy: Policy, nowMs = NOW): RetentionPlan {
  const newestFirst = candidates.toSorted((a, b) => b.capturedMs - a.capturedMs);
  return applyRetention(newestFirst, create(RetentionPolicySchema, policy), nowMs);
}

/** What is kept and why, as one word a snapshot. */
function kept(result: RetentionPlan): Record<string, string[]> {
  return Object.fromEntries(result.keep.map(({ snapshotId, reasons }) => [snapshotId, reasons]));
}

function ids(result: RetentionPlan): string[] {
  return result.keep.map(({ snapshotId }) => snapshotId).sort();
}

/** One point every step, the newest first: p0, p1, … */
function series(count: number, stepMs: number, newestMs = NOW): Candidate[] {
  return Array.from({ length: count }, (_, i) => point(`p${i}`, newestMs - i * stepMs));
}

describe('a retention rule', () => {
  it('last retains the newest n', () => {
    assert.deepEqual(kept(plan(series(5, HOUR), { last: 3 })), {
      p0: ['last usable point', 'last 1 of 3'],
      p1: ['last 2 of 3'],
      p2: ['last 3 of 3'],
    });
  });

  it('hourly retains the newest of each of the last n hours that have one', () => {
    const points = [
      point('a', '2026-06-17T12:20:00Z'),
      point('b', '2026-06-17T12:10:00Z'),
      point('c', '2026-06-17T11:59:59Z'),
      point('d', '2026-06-17T07:00:00Z'),
      point('e', '2026-06-17T06:00:00Z'),
    ];
    assert.deepEqual(kept(plan(points, { hourly: 3 })), {
      a: ['last usable point', 'hourly 2026-06-17T12'],
      c: ['hourly 2026-06-17T11'],
      d: ['hourly 2026-06-17T07'],
    });
  });

  it('daily, monthly and yearly follow the UTC calendar', () => {
    const points = [
      point('a', '2026-01-01T00:00:00Z'),
      point('b', '2025-12-31T23:59:59Z'),
      point('c', '2025-12-31T00:00:00Z'),
      point('d', '2025-11-30T12:00:00Z'),
    ];
    assert.deepEqual(kept(plan(points, { daily: 2 })), {
      a: ['last usable point', 'daily 2026-01-01'],
      b: ['daily 2025-12-31'],
    });
    assert.deepEqual(kept(plan(points, { monthly: 3 })), {
      a: ['last usable point', 'monthly 2026-01'],
      b: ['monthly 2025-12'],
      d: ['monthly 2025-11'],
    });
    assert.deepEqual(kept(plan(points, { yearly: 9 })), {
      a: ['last usable point', 'yearly 2026'],
      b: ['yearly 2025'],
    });
  });

  it('weekly begins on Monday, also across the turn of a year', () => {
    const points = [
      point('monday', '2025-01-06T00:00:00Z'),
      point('sunday', '2025-01-05T23:59:59Z'),
      point('old year', '2024-12-30T00:00:00Z'),
      point('week before', '2024-12-29T23:59:59Z'),
    ];
    assert.deepEqual(kept(plan(points, { weekly: 3 })), {
      monday: ['last usable point', 'weekly 2025-01-06'],
      sunday: ['weekly 2024-12-30'],
      'week before': ['weekly 2024-12-23'],
    });
  });

  it('within counts back from the newest point, not from now', () => {
    const points = series(5, HOUR, NOW - 30 * DAY);
    assert.deepEqual(kept(plan(points, { withinMs: BigInt(2 * HOUR) })), {
      p0: ['last usable point', 'within'],
      p1: ['within'],
      p2: ['within'],
    });
  });

  it('tag retains by key, or by key and value', () => {
    const points = [
      point('plain', NOW),
      point('one', NOW - HOUR, { tags: { release: '1.4' } }),
      point('two', NOW - 2 * HOUR, { tags: { release: '', a: 'b=c' } }),
    ];
    assert.deepEqual(ids(plan(points, { tags: ['release'] })), ['one', 'plain', 'two']);
    assert.deepEqual(kept(plan(points, { tags: ['release=1.4'] })).one, ['tag release=1.4']);
    assert.deepEqual(ids(plan(points, { tags: ['release='] })), ['plain', 'two']);
    assert.deepEqual(ids(plan(points, { tags: ['a=b=c'] })), ['plain', 'two']);
    assert.deepEqual(ids(plan(points, { tags: ['1.4'] })), ['plain']);
  });

  it('tag retains nothing for a word such as constructor', () => {
    const points = [point('new', NOW), point('old', NOW - DAY)];
    for (const tag of ['constructor', 'toString', '__proto__', 'hasOwnProperty'])
      assert.deepEqual(ids(plan(points, { tags: [tag] })), ['new'], tag);
  });

  it('together with others retains what any of them does, with each reason', () => {
    const reasons = kept(plan(series(3, DAY), { last: 1, daily: 2, withinMs: BigInt(DAY), tags: ['x'] }));
    assert.deepEqual(reasons.p0, ['last usable point', 'last 1 of 1', 'within', 'daily 2026-06-17']);
    assert.deepEqual(reasons.p1, ['within', 'daily 2026-06-16']);
    assert.equal(reasons.p2, undefined);
  });
});

describe('every policy', () => {
  it('retains the newest usable snapshot', () => {
    const points = [
      side('torn', NOW),
      point('broken', NOW - HOUR, { worth: 'broken' }),
      point('good', NOW - 400 * DAY),
      point('older', NOW - 500 * DAY),
    ];
    assert.deepEqual(kept(plan(points, {})).good, ['last usable point']);
    assert.equal(kept(plan(points, { tags: ['x'] })).older, undefined);
  });

  it('retains a pinned snapshot, usable or not', () => {
    const points = [
      point('new', NOW),
      point('pin', NOW - 900 * DAY, { pinned: true }),
      { ...side('torn pin', NOW - 900 * DAY), pinned: true },
    ];
    const reasons = kept(plan(points, { last: 1 }));
    assert.deepEqual(reasons.pin, ['pinned']);
    assert.deepEqual(reasons['torn pin'], ['pinned']);
  });

  it('retains a torn snapshot for a day', () => {
    const points = [point('good', NOW), side('young', NOW - DAY + 1), side('old', NOW - DAY)];
    const result = plan(points, { last: 9 });
    assert.deepEqual(kept(result).young, ['torn, kept a day for inspection']);
    assert.deepEqual(result.remove, [{ snapshotId: 'old', reasons: ['not usable, and no rule keeps it'] }]);
  });

  it('gives a reason for each removal', () => {
    const points = [...series(2, HOUR), point('broken', NOW - 5 * DAY, { worth: 'broken' })];
    assert.deepEqual(plan(points, { last: 1 }).remove, [
      { snapshotId: 'p1', reasons: ['no rule keeps it'] },
      { snapshotId: 'broken', reasons: ['not usable, and no rule keeps it'] },
    ]);
  });

  it('plans nothing for no snapshots', () => {
    assert.deepEqual(plan([], { last: 5, daily: 5 }), { keep: [], remove: [] });
  });
});

describe('torn snapshots', () => {
  it('never displace usable ones from a counted rule', () => {
    const torn = Array.from({ length: 50 }, (_, i) => side(`torn ${i}`, NOW + i * 1000));
    const broken = Array.from({ length: 50 }, (_, i) => point(`broken ${i}`, NOW + i, { worth: 'broken' }));
    const good = series(30, DAY);
    const policies: Policy[] = [
      { last: 5 },
      { daily: 7 },
      { weekly: 3 },
      { hourly: 4 },
      { withinMs: BigInt(DAY) },
    ];
    for (const policy of policies) {
      const without = kept(plan(good, policy));
      const beside = kept(plan([...good, ...torn, ...broken], policy, NOW + DAY));
      for (const [id, reasons] of Object.entries(without)) assert.deepEqual(beside[id], reasons);
    }
  });
});

describe('ungraded snapshots', () => {
  it('are counted apart and displace nothing', () => {
    const good = series(4, DAY);
    const unseen = Array.from({ length: 4 }, (_, i) =>
      point(`u${i}`, NOW + HOUR - i * DAY, { worth: 'ungraded' }),
    );
    assert.deepEqual(ids(plan([...good, ...unseen], { last: 2 }, NOW + HOUR)), ['p0', 'p1', 'u0', 'u1']);
    assert.deepEqual(kept(plan([...good, ...unseen], { last: 1 }, NOW + HOUR)).u0, [
      'newest point',
      'last 1 of 1',
    ]);
  });
});

describe('a broken snapshot', () => {
  it('is retained as long as it is the newest', () => {
    const points = [point('broken', NOW - 9 * DAY, { worth: 'broken' }), point('good', NOW - 10 * DAY)];
    assert.deepEqual(kept(plan(points, { last: 1 })).broken, ['newest point']);
  });
});

describe('an unacknowledged alarm', () => {
  it('has the snapshots before it thinned as if nothing came later', () => {
    const before = series(6, DAY, NOW - 10 * DAY);
    const alarm = point('alarm', NOW - 9 * DAY, { alarming: true });
    const later = Array.from({ length: 8 }, (_, i) => point(`later ${i}`, NOW - i * HOUR));
    for (const policy of [{ last: 3 }, { daily: 3 }, { withinMs: BigInt(DAY) }] satisfies Policy[]) {
      const alone = kept(plan(before, policy));
      const beside = kept(plan([...later, alarm, ...before], policy));
      assert.deepEqual(beside.alarm?.[0], 'alarm, not acknowledged');
      for (const { snapshotId } of before) {
        const reasons = alone[snapshotId]?.map((why) =>
          why === 'last usable point' ? 'last usable point before an alarm' : why,
        );
        assert.deepEqual(beside[snapshotId], reasons, snapshotId);
      }
    }
    const seen = { ...alarm, alarming: false };
    assert.equal(kept(plan([...later, seen, ...before], { last: 3 })).p0, undefined);
  });
});

describe('an empty policy', () => {
  it('has no rule', () => {
    const empty = (policy: Policy) => isEmptyPolicy(create(RetentionPolicySchema, policy));
    assert.equal(empty({}), true);
    const rules: Policy[] = [
      { last: 1 },
      { hourly: 1 },
      { daily: 1 },
      { weekly: 1 },
      { monthly: 1 },
      { yearly: 1 },
      { withinMs: 1n },
      { tags: ['x'] },
    ];
    for (const rule of rules) assert.ok(!empty(rule), Object.keys(rule).join());
  });
});

// ----- any history, any policy -----

const candidates = fc
  .array(
    fc.record({
      agoMs: fc.nat({ max: 800 * DAY }),
      kind: fc.constantFrom('usable', 'usable', 'usable', 'ungraded', 'broken', 'side'),
      pinned: fc.nat({ max: 9 }).map((n) => n === 0),
      tag: fc.constantFrom('', 'release'),
    }),
    { maxLength: 60 },
  )
  .map((list) =>
    list.map(({ agoMs, kind, pinned, tag }, i) =>
      point(`s${i}`, NOW - agoMs, {
        worth: kind === 'side' ? 'broken' : kind,
        side: kind === 'side',
        pinned,
        tags: tag === '' ? {} : { [tag]: '1' },
      }),
    ),
  );
const few = fc.nat({ max: 6 });
const policies = fc.record({
  last: few,
  hourly: few,
  daily: few,
  weekly: few,
  monthly: few,
  yearly: few,
  withinMs: fc.nat({ max: 30 * DAY }).map(BigInt),
  tags: fc.constantFrom<string[]>([], ['release']),
});

/** Periods as the calendar prints them, for checking the buckets another way. */
const PERIODS: readonly [keyof Policy & ('hourly' | 'daily' | 'monthly' | 'yearly'), number][] = [
  ['hourly', 13],
  ['daily', 10],
  ['monthly', 7],
  ['yearly', 4],
];

describe('any policy on any history', () => {
  it('decides on each snapshot once, with a reason', () => {
    fc.assert(
      fc.property(candidates, policies, (list, policy) => {
        const { keep, remove } = plan(list, policy);
        const decided = [...keep, ...remove];
        assert.deepEqual(
          decided.map(({ snapshotId }) => snapshotId).sort(),
          list.map(({ snapshotId }) => snapshotId).sort(),
        );
        for (const { reasons } of decided)
          assert.equal(reasons.length > 0 && reasons.every((why) => why !== ''), true);
      }),
    );
  });

  it('retains the newest usable, the pinned and the newest of each counted period', () => {
    fc.assert(
      fc.property(candidates, policies, (list, policy) => {
        const result = new Set(ids(plan(list, policy)));
        const usable = list
          .filter(({ worth }) => worth === 'usable')
          .toSorted((a, b) => b.capturedMs - a.capturedMs);
        const must = [usable[0], ...usable.slice(0, policy.last), ...list.filter(({ pinned }) => pinned)];
        for (const [rule, digits] of PERIODS) {
          const newest = new Map<string, Candidate>();
          for (const one of usable) {
            const key = new Date(one.capturedMs).toISOString().slice(0, digits);
            if (!newest.has(key)) newest.set(key, one);
          }
          must.push(...[...newest.values()].slice(0, policy[rule]));
        }
        for (const one of must) assert.equal(one === undefined || result.has(one.snapshotId), true);
      }),
    );
  });

  it('retains no more usable snapshots than its rules allow', () => {
    fc.assert(
      fc.property(candidates, policies, (list, policy) => {
        const { last, hourly, daily, weekly, monthly, yearly } = policy;
        const named = 1 + last + hourly + daily + weekly + monthly + yearly;
        const plain = list.filter(
          ({ worth, pinned, tags }) => worth === 'usable' && !pinned && tags.release === undefined,
        );
        const result = new Set(ids(plan(plain, { ...policy, withinMs: 0n })));
        assert.equal(result.size <= named, true);
      }),
    );
  });

  it('never retains less after a rule is widened', () => {
    fc.assert(
      fc.property(candidates, policies, few, (list, policy, more) => {
        const narrow = ids(plan(list, policy));
        const wide = new Set(
          ids(plan(list, { ...policy, last: policy.last + more, weekly: policy.weekly + more })),
        );
        assert.equal(
          narrow.every((id) => wide.has(id)),
          true,
        );
      }),
    );
  });

  it('treats usable snapshots alike with and without torn ones beside them', () => {
    fc.assert(
      fc.property(candidates, policies, (list, policy) => {
        const good = list.filter(({ worth }) => worth === 'usable');
        const beside = ids(plan(list, policy)).filter((id) =>
          good.some(({ snapshotId }) => snapshotId === id),
        );
        assert.deepEqual(beside, ids(plan(good, policy)));
      }),
    );
  });

  it('removes nothing more when it is applied again', () => {
    fc.assert(
      fc.property(candidates, policies, (list, policy) => {
        const left = new Set(ids(plan(list, policy)));
        const again = plan(
          list.filter(({ snapshotId }) => left.has(snapshotId)),
          policy,
        );
        assert.deepEqual(again.remove, []);
      }),
    );
  });
});
