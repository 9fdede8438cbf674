import type { RetentionPolicy } from '../gen/lightkeeper/v1/agent_pb.ts';

/** The properties of a snapshot that retention decides by. */
export interface Candidate {
  readonly snapshotId: string;
  readonly capturedMs: number;
  readonly tags: Readonly<Record<string, string>>;
  readonly pinned: boolean;
  /** Proven usable, not graded yet, or proven not usable. */
  readonly worth: 'usable' | 'ungraded' | 'broken';
  /** Whether the files changed while it was captured: then it has no place in the history. */
  readonly side: boolean;
  /** Whether it has an unacknowledged alarm. */
  readonly alarming: boolean;
}

/** A decision about one snapshot and its reasons. */
export interface Decision {
  readonly snapshotId: string;
  readonly reasons: string[];
}

/** The snapshots to keep and to remove, newest first. */
export interface RetentionPlan {
  readonly keep: Decision[];
  readonly remove: Decision[];
}

/** Milliseconds that a snapshot that is not usable stays for inspection. */
const BROKEN_RETAINED_MS = 24 * 3600 * 1000;

/** Reports whether a policy retains nothing by itself. */
export function isEmptyPolicy(policy: RetentionPolicy): boolean {
  const { last, hourly, daily, weekly, monthly, yearly, withinMs, tags } = policy;
  return last + hourly + daily + weekly + monthly + yearly === 0 && withinMs === 0n && tags.length === 0;
}

interface Bucket {
  readonly name: string;
  readonly count: number;
  readonly key: (date: Date) => string;
}

/** Returns the Monday of a date's ISO 8601 week as YYYY-MM-DD. */
function mondayOf(date: Date): string {
  const day = (date.getUTCDay() + 6) % 7;
  return new Date(Date.UTC(date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate() - day))
    .toISOString()
    .slice(0, 10);
}

function buckets(policy: RetentionPolicy): Bucket[] {
  return [
    { name: 'hourly', count: policy.hourly, key: (date) => date.toISOString().slice(0, 13) },
    { name: 'daily', count: policy.daily, key: (date) => date.toISOString().slice(0, 10) },
    { name: 'weekly', count: policy.weekly, key: mondayOf },
    { name: 'monthly', count: policy.monthly, key: (date) => date.toISOString().slice(0, 7) },
    { name: 'yearly', count: policy.yearly, key: (date) => date.toISOString().slice(0, 4) },
  ];
}

function hasTag(tags: Readonly<Record<string, string>>, wanted: string): boolean {
  const equals = wanted.indexOf('=');
  const key = equals < 0 ? wanted : wanted.slice(0, equals);
  if (!Object.hasOwn(tags, key)) return false;
  return equals < 0 || tags[key] === wanted.slice(equals + 1);
}

type Retain = (candidate: Candidate, reason: string) => void;

/**
 * Decides which snapshots of one graph to keep. The candidates come newest first.
 *
 * The newest usable snapshot, the newest of all, and pinned ones stay whatever the policy says. Usable snapshots
 * fill the rules; ungraded ones fill them once more. Snapshots before an alarm are thinned as if the alarming one
 * and its successors did not exist. Times are those of the UTC calendar.
 */
// A snapshot that may be broken never pushes a good one out. The rule per bucket is restic's ApplyPolicy: keep the
// newest of each of the last n periods that have one.
export function applyRetention(
  candidates: readonly Candidate[],
  policy: RetentionPolicy,
  nowMs: number,
): RetentionPlan {
  const reasons = new Map<string, string[]>();
  const retain: Retain = (candidate, reason) => {
    const known = reasons.get(candidate.snapshotId);
    if (known === undefined) reasons.set(candidate.snapshotId, [reason]);
    else known.push(reason);
  };
  for (const candidate of candidates) {
    if (candidate.pinned) retain(candidate, 'pinned');
    if (candidate.alarming) retain(candidate, 'alarm, not acknowledged');
    for (const tag of policy.tags) if (hasTag(candidate.tags, tag)) retain(candidate, `tag ${tag}`);
    if (candidate.worth === 'broken' && nowMs - candidate.capturedMs < BROKEN_RETAINED_MS)
      retain(candidate, `${candidate.side ? 'torn' : 'not usable'}, kept a day for inspection`);
  }
  const history = candidates.filter(({ side }) => !side);
  const [newest] = history;
  if (newest !== undefined && newest.worth !== 'usable') retain(newest, 'newest point');
  for (const [i, period] of splitAtAlarms(history).entries()) {
    const usable = period.filter(({ worth }) => worth === 'usable');
    const [last] = usable;
    if (last !== undefined) retain(last, i === 0 ? 'last usable point' : 'last usable point before an alarm');
    retainByRules(usable, policy, retain);
    retainByRules(
      period.filter(({ worth }) => worth === 'ungraded'),
      policy,
      retain,
    );
  }
  return planOf(candidates, reasons);
}

function planOf(candidates: readonly Candidate[], reasons: ReadonlyMap<string, string[]>): RetentionPlan {
  const plan: RetentionPlan = { keep: [], remove: [] };
  for (const { snapshotId, worth } of candidates) {
    const why = reasons.get(snapshotId);
    if (why !== undefined) plan.keep.push({ snapshotId, reasons: why });
    else
      plan.remove.push({
        snapshotId,
        reasons: [worth === 'broken' ? 'not usable, and no rule keeps it' : 'no rule keeps it'],
      });
  }
  return plan;
}

/** Splits the history, newest first, after each snapshot with an alarm. */
function splitAtAlarms(history: readonly Candidate[]): Candidate[][] {
  const parts: Candidate[][] = [[]];
  for (const candidate of history) {
    parts.at(-1)?.push(candidate);
    if (candidate.alarming) parts.push([]);
  }
  return parts;
}

function retainByRules(points: readonly Candidate[], policy: RetentionPolicy, retain: Retain): void {
  const newestMs = points[0]?.capturedMs ?? 0;
  for (const [i, candidate] of points.entries()) {
    if (i < policy.last) retain(candidate, `last ${i + 1} of ${policy.last}`);
    if (policy.withinMs > 0n && newestMs - candidate.capturedMs <= Number(policy.withinMs))
      retain(candidate, 'within');
  }
  for (const bucket of buckets(policy)) retainBuckets(points, bucket, retain);
}

function retainBuckets(usable: readonly Candidate[], bucket: Bucket, retain: Retain): void {
  let filled = 0;
  let last = '';
  for (const candidate of usable) {
    if (filled >= bucket.count) return;
    const key = bucket.key(new Date(candidate.capturedMs));
    if (key === last) continue;
    last = key;
    filled += 1;
    retain(candidate, `${bucket.name} ${key}`);
  }
}
