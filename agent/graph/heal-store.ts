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
import { type VerifyOrder, verifyStore } from '../store/upkeep/verify.ts';

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
  /** Packs that were set aside, what peers lacked too, and what kept them from helping. */
  readonly findings: readonly Finding[];
  /** Peers that could not be asked to the end. */
  readonly failed: readonly FailedSource[];
}

/** Most times that packs are found bad, set aside, and what they held is fetched. */
const ROUNDS_MAX = 3;

/** Fetches what damaged snapshots lack from peers, and clears the damage of those of which every byte is whole. */
// To be called in `reception.alone`. Bytes are hashed only where the lists show nothing missing: an attempt that
// cannot help must cost little.
export async function healStore(parts: HealParts): Promise<HealedStore> {
  const { store } = parts;
  const damaged = await damagedSnapshots(store);
  let badPacks = parts.isChecked === true ? [] : await findBadPacks(damaged, parts);
  let units = 0;
  const from = new Set<string>();
  const isolated: Finding[] = [];
  let missing: readonly Finding[] = [];
  const failed: FailedSource[] = [];
  for (let round = 0; round < ROUNDS_MAX && damaged.length > 0; round++) {
    isolated.push(...(await setAside(store, badPacks)));
    const fetched = await fetchFor(damaged, parts);
    units += fetched.units;
    for (const name of fetched.from) from.add(name);
    failed.push(...fetched.failed);
    const lists = await verifyStore(store, orderOf(damaged, parts, false));
    const complete = damaged.filter((snapshot) => !isLacking(snapshot, lists.findings));
    const bytes = await verifyStore(store, orderOf(complete, parts, true));
    await recordVerdict(store, bytes);
    await recordDamage(store, { findings: bytes.findings, only: complete, bytes: true });
    missing = missingFindings(fetched);
    badPacks = bytes.badPacks;
    if (badPacks.length === 0) break;
  }
  const still = new Set((await damagedSnapshots(store)).map(idOf));
  // Captures need not look every unit up any more, if nothing is missing anywhere.
  if (units > 0 && still.size === 0) await recordVerdict(store, await verifyStore(store, { bytes: false }));
  return {
    units,
    from: [...from],
    whole: damaged.filter((snapshot) => !still.has(idOf(snapshot))),
    left: damaged.filter((snapshot) => still.has(idOf(snapshot))),
    findings: [...isolated, ...missing, ...failed.map(failedFinding)],
    failed,
  };
}

/** Returns the packs that are bad among those of damaged snapshots. */
// The damage may have been met by a read: its pack is not known to be bad then.
async function findBadPacks(
  damaged: readonly StoredSnapshot[],
  parts: HealParts,
): Promise<readonly number[]> {
  if (damaged.length === 0) return [];
  const lists = await verifyStore(parts.store, orderOf(damaged, parts, false));
  const unexplained = damaged.filter((snapshot) => !isLacking(snapshot, lists.findings));
  const bytes = await verifyStore(parts.store, orderOf(unexplained, parts, true));
  return [...lists.badPacks, ...bytes.badPacks];
}

function isLacking(snapshot: StoredSnapshot, findings: readonly Finding[]): boolean {
  return findings.some(({ code, object }) => code === 'snapshot_damaged' && object === idOf(snapshot));
}

function orderOf(
  only: readonly StoredSnapshot[],
  { signal, onProgress }: HealParts,
  bytes: boolean,
): VerifyOrder {
  return {
    bytes,
    only,
    ...(signal === undefined ? {} : { signal }),
    ...(onProgress === undefined ? {} : { onProgress }),
  };
}

const NOTHING_FETCHED: FetchedUnits = { units: 0, from: new Set(), missing: new Map(), failed: [] };

/** Sets packs aside that a verification found bad, or that the store has known to be lost. */
async function setAside(store: Store, badPacks: readonly number[]): Promise<readonly Finding[]> {
  const packIds: string[] = [];
  for (const number of new Set([...badPacks, ...store.health.lostPacks()])) {
    const record = await store.index.pack(number);
    if (record !== undefined) packIds.push(hex(record.packId));
  }
  if (packIds.length === 0) return [];
  return (await store.exclusively(() => isolatePacks(store, packIds))).findings;
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
  const graphs = new Set(damaged.map(({ manifest }) => manifest.graphId));
  const hasSource = [...graphs].some((graphId) => sourcesOf(graphId).length > 0);
  try {
    if (!hasSource) return NOTHING_FETCHED;
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
