import { create } from '@bufbuild/protobuf';
import { normalise } from '../../core/errors.ts';
import { LayoutError } from '../../core/lightrag/chunk-reader.ts';
import { idOf, isDamaged, isStored, type StoredSnapshot } from '../../core/snapshot.ts';
import { DamagedSchema } from '../../gen/lightkeeper/store/v1/annotation_pb.ts';
import { type Finding, Severity_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { now } from '../../host/clock.ts';
import type { Store } from '../store/store.ts';
import { Transaction } from '../store/transaction.ts';
import { storedSnapshots } from '../store/upkeep/verify.ts';

/** Codes of findings about packs and units; others concern the graph in a snapshot. */
const DAMAGE: ReadonlySet<string> = new Set(['pack_missing', 'pack_damaged', 'snapshot_damaged']);

/** Reports whether a finding is about packs and units. */
export function isDamageFinding({ code }: Finding): boolean {
  return DAMAGE.has(code);
}

/** What a check of the store covered. */
export interface CheckedStore {
  readonly findings: readonly Finding[];
  /** The only snapshots that were checked; undefined if all were. */
  readonly only?: readonly StoredSnapshot[] | undefined;
  /** Whether every byte was hashed: only that shows that a damaged snapshot is whole again. */
  readonly bytes: boolean;
}

/** Records which snapshots a check found damaged, and which damaged ones it found whole. */
export async function recordDamage(store: Store, { findings, only, bytes }: CheckedStore): Promise<void> {
  if (store.readOnly) return;
  const reasons = new Map<string, string>();
  for (const { code, severity, snapshots, message } of findings) {
    if (!DAMAGE.has(code) || severity !== Severity_Value.ERROR) continue;
    for (const id of snapshots) reasons.set(id, reasons.get(id) ?? message);
  }
  const changed: { snapshot: StoredSnapshot; reason: string }[] = [];
  for await (const snapshot of storedSnapshots(store, only)) {
    const reason = reasons.get(idOf(snapshot)) ?? '';
    const isWhole = reason === '';
    if (isWhole ? bytes && isDamaged(snapshot) : !isDamaged(snapshot)) changed.push({ snapshot, reason });
  }
  await commitDamage(store, changed);
}

/** Returns the snapshots of which some unit is known to be missing or wrong. */
export async function damagedSnapshots(store: Store): Promise<StoredSnapshot[]> {
  const found: StoredSnapshot[] = [];
  for await (const snapshot of storedSnapshots(store)) if (isDamaged(snapshot)) found.push(snapshot);
  return found;
}

/** Returns the graphs of snapshots by their ids, without those that are gone. */
export async function graphsOfSnapshots(
  store: Store,
  snapshotIds: readonly string[],
): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const id of snapshotIds) {
    const [at] = await store.index.recordsByPrefix(id);
    const state = at === undefined ? undefined : await store.index.record(at);
    if (state !== undefined && isStored(state)) found.set(id, state.manifest.graphId);
  }
  return found;
}

/** Runs a read of a snapshot. Records damage that the read meets, and rejects with it. */
export async function noticingDamage<T>(
  store: Store,
  snapshot: StoredSnapshot,
  read: () => Promise<T>,
): Promise<T> {
  try {
    return await read();
  } catch (error) {
    await noteDamage(store, snapshot, error);
    throw error;
  }
}

/** Yields what a read of a snapshot yields. Records damage that the read meets, and rejects with it. */
export async function* streamNoticingDamage<T>(
  store: Store,
  snapshot: StoredSnapshot,
  read: () => AsyncIterable<T>,
): AsyncGenerator<T> {
  try {
    yield* read();
  } catch (error) {
    await noteDamage(store, snapshot, error);
    throw error;
  }
}

async function noteDamage(store: Store, snapshot: StoredSnapshot, error: unknown): Promise<void> {
  const { code, message } = normalise(error);
  // A file that was captured malformed is whole as far as the store goes.
  const isMalformed = error instanceof Error && [error, error.cause].some((e) => e instanceof LayoutError);
  if (code !== 'DAMAGED' || isMalformed || store.readOnly || isDamaged(snapshot)) return;
  await commitDamage(store, [{ snapshot, reason: message }]);
}

async function commitDamage(
  store: Store,
  changed: readonly { readonly snapshot: StoredSnapshot; readonly reason: string }[],
): Promise<void> {
  if (changed.length === 0) return;
  const facts = changed.map(({ snapshot: { digest }, reason }) => ({
    digest,
    fact: { case: 'damaged' as const, value: create(DamagedSchema, { damaged: reason !== '', reason }) },
  }));
  await store.exclusively(() =>
    Transaction.run(store, (transaction) => transaction.commitFacts(facts, now())),
  );
}
