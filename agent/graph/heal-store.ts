import { warning } from '../../core/finding.ts';
import type { OnProgress } from '../../core/progress.ts';
import { idOf, type StoredSnapshot } from '../../core/snapshot.ts';
import { hex } from '../../core/unit.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { type FailedSource, type FetchedUnits, fetchLacking } from '../peer/fetch-lacking.ts';
import type { UnitReception } from '../peer/unit-reception.ts';
import type { UnitSource } from '../peer/unit-source.ts';
import { damagedSnapshots, recordDamage } from '../snapshots/damage.ts';
import type { Store } from '../store/store.ts';
import { isolatePacks } from '../store/upkeep/isolate-packs.ts';
import { recordVerdict } from '../store/upkeep/record-verdict.ts';
import { verifyStore } from '../store/upkeep/verify.ts';

/** What healing needs. */
export interface HealParts {
  readonly store: Store;
  readonly reception: UnitReception;
  /** Returns the peers that can be asked for the units of a graph, in order. They are closed at the end. */
  readonly openSources: (graphId: string) => readonly UnitSource[];
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
  /** Whether every pack has just been hashed, so that bad ones are set aside already. */
  readonly isChecked?: boolean;
}

/** What healing achieved. */
export interface HealedStore {
  /** Units that peers sent. */
  readonly units: number;
  /** Names of the peers that sent some. */
  readonly from: readonly string[];
  /** Damaged snapshots that are whole again. */
  readonly whole: readonly StoredSnapshot[];
  /** Damaged snapshots that still lack units. */
  readonly left: readonly StoredSnapshot[];
  /** What is still wrong with the damaged snapshots and their packs, and what kept peers from helping. */
  readonly findings: readonly Finding[];
  /** Peers that could not be asked to the end. */
  readonly failed: readonly FailedSource[];
}

/** Fetches what damaged snapshots lack from peers, and clears the damage of those of which every byte is whole. */
// To be called in `reception.alone`.
export async function healStore(parts: HealParts): Promise<HealedStore> {
  const { store, signal, onProgress } = parts;
  const damaged = await damagedSnapshots(store);
  if (damaged.length === 0) return { units: 0, from: [], whole: [], left: [], findings: [], failed: [] };
  const order = {
    bytes: true,
    only: damaged,
    ...(signal === undefined ? {} : { signal }),
    ...(onProgress === undefined ? {} : { onProgress }),
  };
  // The damage may have been met by a read: its pack is not known to be bad then.
  if (parts.isChecked !== true) await setAside(store, (await verifyStore(store, order)).badPacks);
  const fetched = await fetchFor(damaged, parts);
  const after = await verifyStore(store, order);
  await recordVerdict(store, after);
  await recordDamage(store, { findings: after.findings, only: damaged, bytes: true });
  const still = new Set((await damagedSnapshots(store)).map(idOf));
  return {
    units: fetched.units,
    from: [...fetched.from],
    whole: damaged.filter((snapshot) => !still.has(idOf(snapshot))),
    left: damaged.filter((snapshot) => still.has(idOf(snapshot))),
    findings: [...after.findings, ...missingFindings(fetched), ...fetched.failed.map(failedFinding)],
    failed: fetched.failed,
  };
}

/** Sets packs aside that a verification found bad, or that the store has known to be lost. */
async function setAside(store: Store, badPacks: readonly number[]): Promise<void> {
  const packIds: string[] = [];
  for (const number of new Set([...badPacks, ...store.health.lostPacks()])) {
    const record = await store.index.pack(number);
    if (record !== undefined) packIds.push(hex(record.packId));
  }
  if (packIds.length > 0) await store.exclusively(() => isolatePacks(store, packIds));
}

async function fetchFor(
  damaged: readonly StoredSnapshot[],
  { reception, openSources, signal }: HealParts,
): Promise<FetchedUnits> {
  const opened = new Map<string, readonly UnitSource[]>();
  const sourcesOf = (graphId: string) => {
    const sources = opened.get(graphId) ?? openSources(graphId);
    opened.set(graphId, sources);
    return sources;
  };
  try {
    return await reception.during(async (receiver) => {
      const fetched = await fetchLacking(damaged, { receiver, sourcesOf, signal });
      await receiver.publishUnits();
      return fetched;
    });
  } finally {
    for (const source of [...opened.values()].flat()) source.close();
  }
}

function missingFindings({ missing }: FetchedUnits): Finding[] {
  return [...missing].map(([snapshotId, count]) =>
    warning('not_healed', snapshotId, {
      message: `no peer that was asked has ${count} of the units that this snapshot lacks`,
      hint: 'ask another peer with lightkeeper repair --from; or delete the snapshot',
      count,
      snapshots: [snapshotId],
    }),
  );
}

function failedFinding({ name, error }: FailedSource): Finding {
  const { code, message, hint } = error;
  return warning('peer_failed', name, { message: `${code}: ${message}`, hint });
}
