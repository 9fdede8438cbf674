import type { RetentionPolicy } from '../gen/lightkeeper/v1/agent_pb.ts';

/** What a policy needs to know of a snapshot. */
export interface Candidate {
  readonly snapshotId: string;
  readonly capturedMs: number;
  readonly tags: Readonly<Record<string, string>>;
  readonly pinned: boolean;
  /** Whether it has been proven to be usable, proven not to be, or nobody has looked. */
  readonly worth: 'usable' | 'ungraded' | 'broken';
  /** Torn by its cut: outside the history. */
  readonly side: boolean;
  /** Much was lost in it, and nobody has said that this is right. */
  readonly alarming: boolean;
}

/** A decision and why. */
export interface Decision {
  readonly snapshotId: string;
  readonly reasons: string[];
}

/** What is to be kept and what is to go. */
export interface RetentionPlan {
  readonly keep: Decision[];
  readonly remove: Decision[];
}

/** A snapshot that is not usable is for inspection, and kept this long. */
const BROKEN_KEPT_MS = 24 * 3600 * 1000;

/** Whether a policy keeps nothing by itself. */
export function isEmptyPolicy(policy: RetentionPolicy): boolean {
  const { last, hourly, daily, weekly, monthly, yearly, withinMs, tags } = policy;
  return last + hourly + daily + weekly + monthly + yearly === 0 && withinMs === 0n && tags.length === 0;
}

interface Bucket {
  readonly name: string;
  readonly count: number;
  readonly key: (date: Date) => string;
}

/** The Monday of a date's week, as weeks are counted by ISO 8601. */
function monday(date: Date): string {
  const day = (date.getUTCDay() + 6) % 7;
  return new Date(Date.UTC(date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate() - day))
    .toISOString()
    .slice(0, 10);
}

function buckets(policy: RetentionPolicy): Bucket[] {
  return [
    { name: 'hourly', count: policy.hourly, key: (date) => date.toISOString().slice(0, 13) },
    { name: 'daily', count: policy.daily, key: (date) => date.toISOString().slice(0, 10) },
    { name: 'weekly', count: policy.weekly, key: monday },
    { name: 'monthly', count: policy.monthly, key: (date) => date.toISOString().slice(0, 7) },
    { name: 'yearly', count: policy.yearly, key: (date) => date.toISOString().slice(0, 4) },
  ];
}

function tagged(tags: Readonly<Record<string, string>>, wanted: string): boolean {
  const equals = wanted.indexOf('=');
  const key = equals < 0 ? wanted : wanted.slice(0, equals);
  if (!Object.hasOwn(tags, key)) return false;
  return equals < 0 || tags[key] === wanted.slice(equals + 1);
}

type Keep = (candidate: Candidate, reason: string) => void;

/**
 * Decides over the snapshots of one graph, given newest first. Usable ones fill the rules, so that broken ones never push
 * good ones out; those that nobody has looked into fill them once more. A point with an alarm pushes nothing out either:
 * points before it are thinned as if it and what came later were not there. The newest usable one, the newest of all, and
 * pinned ones stay whatever the policy says. Times are of the UTC calendar. Source of the rule per bucket: restic's
 * ApplyPolicy (keep the newest of each of the last n periods that have one).
 */
export function applyRetention(
  candidates: readonly Candidate[],
  policy: RetentionPolicy,
  nowMs: number,
): RetentionPlan {
  const reasons = new Map<string, string[]>();
  const keep: Keep = (candidate, reason) => {
    const known = reasons.get(candidate.snapshotId);
    if (known === undefined) reasons.set(candidate.snapshotId, [reason]);
    else known.push(reason);
  };
  for (const candidate of candidates) {
    if (candidate.pinned) keep(candidate, 'pinned');
    if (candidate.alarming) keep(candidate, 'alarm, not acknowledged');
    for (const tag of policy.tags) if (tagged(candidate.tags, tag)) keep(candidate, `tag ${tag}`);
    if (candidate.worth === 'broken' && nowMs - candidate.capturedMs < BROKEN_KEPT_MS)
      keep(candidate, `${candidate.side ? 'torn' : 'not usable'}, kept a day for inspection`);
  }
  const history = candidates.filter(({ side }) => !side);
  const [newest] = history;
  if (newest !== undefined && newest.worth !== 'usable') keep(newest, 'newest point');
  for (const [i, stretch] of stretches(history).entries()) {
    const usable = stretch.filter(({ worth }) => worth === 'usable');
    const [last] = usable;
    if (last !== undefined) keep(last, i === 0 ? 'last usable point' : 'last usable point before an alarm');
    keepByRules(usable, policy, keep);
    keepByRules(
      stretch.filter(({ worth }) => worth === 'ungraded'),
      policy,
      keep,
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

/** The history, newest first, parted behind each point with an alarm. */
function stretches(history: readonly Candidate[]): Candidate[][] {
  const parts: Candidate[][] = [[]];
  for (const candidate of history) {
    parts.at(-1)?.push(candidate);
    if (candidate.alarming) parts.push([]);
  }
  return parts;
}

function keepByRules(points: readonly Candidate[], policy: RetentionPolicy, keep: Keep): void {
  const newestMs = points[0]?.capturedMs ?? 0;
  for (const [i, candidate] of points.entries()) {
    if (i < policy.last) keep(candidate, `last ${i + 1} of ${policy.last}`);
    if (policy.withinMs > 0n && newestMs - candidate.capturedMs <= Number(policy.withinMs))
      keep(candidate, 'within');
  }
  for (const bucket of buckets(policy)) keepBuckets(points, bucket, keep);
}

function keepBuckets(usable: readonly Candidate[], bucket: Bucket, keep: Keep): void {
  let filled = 0;
  let last = '';
  for (const candidate of usable) {
    if (filled >= bucket.count) return;
    const key = bucket.key(new Date(candidate.capturedMs));
    if (key === last) continue;
    last = key;
    filled += 1;
    keep(candidate, `${bucket.name} ${key}`);
  }
}
