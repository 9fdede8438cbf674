import type { RetentionPolicy } from '../gen/lightkeeper/v1/agent_pb.ts';

/** What a policy needs to know of a snapshot. */
export interface Candidate {
  readonly snapshotId: string;
  readonly capturedMs: number;
  readonly tags: Readonly<Record<string, string>>;
  readonly pinned: boolean;
  /** Not torn and, once graded, VALID or DEGRADED. */
  readonly usable: boolean;
  /** Torn by its cut: outside the history. */
  readonly side: boolean;
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

/** A side snapshot is for inspection, and kept this long. */
const SIDE_KEPT_MS = 24 * 3600 * 1000;

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

/**
 * Decides over the snapshots of one graph, given newest first. Only usable ones fill the counted rules, so that
 * torn ones never push good ones out; the newest usable one and pinned ones stay whatever the policy says.
 * Times are of the UTC calendar. Source of the rule per bucket: restic's ApplyPolicy (keep the newest of each
 * of the last n periods that have one).
 */
export function applyRetention(
  candidates: readonly Candidate[],
  policy: RetentionPolicy,
  nowMs: number,
): RetentionPlan {
  const reasons = new Map<string, string[]>();
  const keep = (candidate: Candidate, reason: string) => {
    const known = reasons.get(candidate.snapshotId);
    if (known === undefined) reasons.set(candidate.snapshotId, [reason]);
    else known.push(reason);
  };
  const usable = candidates.filter((candidate) => candidate.usable && !candidate.side);
  const [newest] = usable;
  if (newest !== undefined) keep(newest, 'last usable point');
  for (const candidate of candidates) {
    if (candidate.pinned) keep(candidate, 'pinned');
    for (const tag of policy.tags) if (tagged(candidate.tags, tag)) keep(candidate, `tag ${tag}`);
    if (candidate.side && nowMs - candidate.capturedMs < SIDE_KEPT_MS)
      keep(candidate, 'torn, kept a day for inspection');
  }
  for (const [i, candidate] of usable.entries()) {
    if (i < policy.last) keep(candidate, `last ${i + 1} of ${policy.last}`);
    const age = (newest?.capturedMs ?? 0) - candidate.capturedMs;
    if (policy.withinMs > 0n && age <= Number(policy.withinMs)) keep(candidate, 'within');
  }
  for (const bucket of buckets(policy)) keepBuckets(usable, bucket, keep);
  const plan: RetentionPlan = { keep: [], remove: [] };
  for (const { snapshotId, usable: isUsable } of candidates) {
    const why = reasons.get(snapshotId);
    if (why !== undefined) plan.keep.push({ snapshotId, reasons: why });
    else
      plan.remove.push({
        snapshotId,
        reasons: [isUsable ? 'no rule keeps it' : 'not usable, and no rule keeps it'],
      });
  }
  return plan;
}

function keepBuckets(
  usable: readonly Candidate[],
  bucket: Bucket,
  keep: (candidate: Candidate, reason: string) => void,
): void {
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
