import { LightkeeperError, normalise } from '../../../core/errors.ts';
import { errorFinding } from '../../../core/finding.ts';
import type { OnProgress } from '../../../core/progress.ts';
import { idOf, isStored, type StoredSnapshot } from '../../../core/snapshot.ts';
import { hex } from '../../../core/unit.ts';
import type { Finding } from '../../../gen/lightkeeper/v1/types_pb.ts';
import { readPackTable } from '../../pack/reader.ts';
import type { PackReport } from '../../pack/verify-pack.ts';
import type { Store } from '../store.ts';
import { ReachableUnits } from './reachable-units.ts';

/** The extent of a verification. */
export interface VerifyOrder {
  /** Whether to read and hash every byte rather than only the sizes and tables of the packs. */
  readonly bytes: boolean;
  /** Verifies these snapshots and the packs that they need, and nothing else. */
  readonly only?: readonly StoredSnapshot[] | undefined;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

/** The result of a verification, which `recordVerdict` records in the store. */
export interface Verdict {
  readonly order: VerifyOrder;
  readonly snapshots: number;
  readonly packs: number;
  readonly bytes: number;
  readonly findings: Finding[];
  /** Numbers of the packs that are missing or damaged. */
  readonly badPacks: readonly number[];
  /** Numbers of the packs without a fault at the level of the order. */
  readonly wholePacks: readonly number[];
  /** Number of snapshots of which some unit is missing. */
  readonly brokenSnapshots: number;
}

interface WantedPack {
  readonly pack: number;
  readonly packId: string;
  readonly size: number;
}

interface BadPack {
  readonly packId: string;
  readonly problem: string;
  readonly missing: boolean;
  /** Ids of its intact units. */
  readonly good: ReadonlySet<string>;
}

interface CheckedPacks {
  readonly bad: ReadonlyMap<number, BadPack>;
  readonly whole: readonly number[];
  readonly packs: number;
  readonly bytes: number;
}

const REPAIR_HINT =
  'run lightkeeper repair; what the directory still holds is stored again by the next snapshot';

/** Verifies a store and names the snapshots that each fault concerns. Changes nothing. */
export async function verifyStore(store: Store, order: VerifyOrder): Promise<Verdict> {
  const endRead = store.beginRead();
  try {
    const needed = order.only === undefined ? undefined : await packsNeededBy(store, order.only);
    const checked = await checkPacks(store, order, needed);
    const { snapshots, concerned, broken } = await checkSnapshots(store, order, checked.bad);
    const brokenIds = broken.map(({ snapshotId }) => snapshotId);
    const findings = store.health.findings.filter(
      ({ code }) => code !== 'pack_missing' && code !== 'pack_damaged',
    );
    for (const [pack, bad] of checked.bad) findings.push(packFinding(bad, concerned.get(pack) ?? []));
    // A pack that could not be entered into the index has no number: opening the store found it.
    for (const { code, object, message } of store.health.findings) {
      if (code !== 'pack_damaged') continue;
      if ([...checked.bad.values()].some(({ packId }) => packId === object)) continue;
      findings.push(packFinding({ packId: object, problem: message, missing: false }, brokenIds));
    }
    for (const { snapshotId, missing } of broken) findings.push(snapshotFinding(snapshotId, missing));
    return {
      order,
      snapshots,
      packs: checked.packs,
      bytes: checked.bytes,
      findings,
      badPacks: [...checked.bad.keys()],
      wholePacks: checked.whole,
      brokenSnapshots: broken.length,
    };
  } finally {
    endRead();
  }
}

function packFinding(
  { packId, problem, missing }: Pick<BadPack, 'packId' | 'problem' | 'missing'>,
  snapshots: string[],
): Finding {
  return errorFinding(missing ? 'pack_missing' : 'pack_damaged', packId, {
    message: problem,
    hint: missing ? 'bring the file back, or run lightkeeper repair' : REPAIR_HINT,
    snapshots,
  });
}

function snapshotFinding(snapshotId: string, missing: number): Finding {
  return errorFinding('snapshot_damaged', snapshotId, {
    message: `${missing} of the units that it needs are missing or damaged`,
    hint: REPAIR_HINT,
    count: missing,
    snapshots: [snapshotId],
  });
}

/** Returns the numbers of the packs that snapshots need. */
async function packsNeededBy(
  store: Store,
  snapshots: readonly StoredSnapshot[],
): Promise<ReadonlySet<number>> {
  const packs = new Set<number>();
  const reachable = await ReachableUnits.begin(store, (_, { pack }) => {
    packs.add(pack);
    return true;
  });
  for (const { manifest, manifestUnitId } of snapshots)
    await reachable.markSnapshot(manifest, manifestUnitId);
  return packs;
}

async function checkPacks(
  store: Store,
  order: VerifyOrder,
  needed: ReadonlySet<number> | undefined,
): Promise<CheckedPacks> {
  const bad = new Map<number, BadPack>();
  const whole: number[] = [];
  let packs = 0;
  let bytes = 0;
  let total = 0;
  const wanted: WantedPack[] = [];
  for await (const [pack, record] of store.index.packs()) {
    if (needed !== undefined && !needed.has(pack)) continue;
    wanted.push({ pack, packId: hex(record.packId), size: Number(record.size) });
    total += Number(record.size);
  }
  const workers = store.workers.open(order.bytes ? total : 0, { gentle: true });
  try {
    await workers.forEach(wanted, async ({ pack, packId, size }) => {
      order.signal?.throwIfAborted();
      const report = order.bytes
        ? await workers.run({ op: 'verify-pack', reference: store.packs.reference(packId), packId })
        : await checkStructure(store, packId, size);
      packs += 1;
      if ('bytes' in report) bytes += report.bytes;
      order.onProgress?.('checking packs', bytes, total);
      if (report.state === 'unsupported')
        throw new LightkeeperError('TOO_NEW', `Cannot verify pack "${packId}": ${report.problem}`);
      if (report.state === 'whole') whole.push(pack);
      else bad.set(pack, badPack(packId, report));
    });
  } finally {
    await workers.close();
  }
  return { bad, whole, packs, bytes };
}

function badPack(packId: string, report: Extract<PackReport, { state: 'missing' | 'damaged' }>): BadPack {
  const good = report.state === 'damaged' ? report.good : [];
  return { packId, problem: report.problem, missing: report.state === 'missing', good: new Set(good) };
}

/** Checks that a pack exists with this size and that its table can be read. Does not read its frames. */
async function checkStructure(store: Store, packId: string, size: number): Promise<PackReport> {
  const head = await store.packs.head(packId);
  if (head === undefined) return { state: 'missing', problem: 'it is missing' };
  const damaged = (problem: string) => ({ state: 'damaged' as const, bytes: 0, problem, good: [] });
  if (head.size !== size) return damaged(`it has ${head.size} bytes instead of ${size}`);
  try {
    await readPackTable(store.packs, packId, size);
    return { state: 'whole', bytes: 0, units: 0 };
  } catch (error) {
    const { code, message } = normalise(error);
    if (code === 'TOO_NEW' || code === 'TOO_OLD') return { state: 'unsupported', bytes: 0, problem: message };
    if (code !== 'DAMAGED' && code !== 'NOT_FOUND') throw error;
    return damaged(message);
  }
}

async function checkSnapshots(store: Store, order: VerifyOrder, bad: ReadonlyMap<number, BadPack>) {
  const hit = new Set<number>();
  const reachable = await ReachableUnits.begin(store, (id, { pack }) => {
    const report = bad.get(pack);
    if (report === undefined || report.good.has(hex(id))) return true;
    hit.add(pack);
    return false;
  });
  let snapshots = 0;
  const concerned = new Map<number, string[]>();
  const broken: { snapshotId: string; missing: number }[] = [];
  for await (const snapshot of storedSnapshots(store, order.only)) {
    hit.clear();
    const snapshotId = idOf(snapshot);
    const missing = await reachable.markSnapshot(snapshot.manifest, snapshot.manifestUnitId);
    snapshots += 1;
    for (const pack of hit) concerned.set(pack, [...(concerned.get(pack) ?? []), snapshotId]);
    if (missing > 0) broken.push({ snapshotId, missing });
  }
  return { snapshots, concerned, broken };
}

/** Yields the snapshots of a store, side snapshots last; or only the given ones. */
export async function* storedSnapshots(
  store: Store,
  only?: readonly StoredSnapshot[],
): AsyncGenerator<StoredSnapshot> {
  if (only !== undefined) {
    yield* only;
    return;
  }
  for (const side of [false, true]) {
    for await (const [, snapshot] of store.index.records({ side })) if (isStored(snapshot)) yield snapshot;
  }
}
