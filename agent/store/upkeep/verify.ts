import { LightkeeperError, normalise } from '../../../core/errors.ts';
import { errorFinding } from '../../../core/finding.ts';
import { snapshotIdOf } from '../../../core/manifest.ts';
import type { CommittedSnapshot } from '../../../core/snapshot.ts';
import { hex, UNIT_ID_BYTES } from '../../../core/unit.ts';
import type { Finding } from '../../../gen/lightkeeper/v1/types_pb.ts';
import { readPackTable } from '../../pack/reader.ts';
import type { PackReport } from '../../pack/verify-pack.ts';
import { eachInPool, Pool } from '../../workers/pool.ts';
import { enterUnits } from '../index/reconcile.ts';
import type { Store } from '../store.ts';
import { Walker } from './reachable-units.ts';

/** What a verification is asked. */
export interface VerifyOrder {
  /** Read and hash every byte, not only the tables of contents. */
  readonly bytes: boolean;
  /** Only this snapshot and the packs that it needs. */
  readonly only?: CommittedSnapshot;
  readonly signal?: AbortSignal;
  readonly onProgress?: (phase: string, doneBytes: number, totalBytes: number) => void;
}

/** What a verification found. */
export interface Verified {
  readonly snapshots: number;
  readonly packs: number;
  readonly bytes: number;
  readonly findings: Finding[];
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
  readonly good: ReadonlySet<string>;
}

const REPAIR_HINT =
  'run lightkeeper repair; what the directory still holds is stored again by the next snapshot';

/** Checks a store against itself and names the snapshots that what is wrong concerns. */
export async function verifyStore(store: Store, order: VerifyOrder): Promise<Verified> {
  const endRead = store.beginRead();
  try {
    const needed = order.only === undefined ? undefined : await packsOf(store, order.only);
    const { bad, sound, packs, bytes } = await checkPacks(store, order, needed);
    for (const [pack] of bad) await markLost(store, pack, true);
    if (order.bytes)
      for (const { pack } of sound) if (store.lost.has(pack)) await markLost(store, pack, false);
    const findings = [
      ...store.findings.filter(({ code }) => code !== 'pack_missing' && code !== 'pack_damaged'),
    ];
    let walked = await walkSnapshots(store, order, bad);
    if (order.bytes && walked.broken.length > 0 && (await enterForgotten(store, sound)))
      walked = await walkSnapshots(store, order, bad);
    const { snapshots, concerned, broken } = walked;
    if (!store.readOnly) await noteTrust(store, order, bad.size + broken.length + store.unsound.size);
    for (const [pack, { packId, problem, missing }] of bad) {
      const snapshotIds = concerned.get(pack) ?? [];
      findings.push(packFinding(packId, problem, missing, snapshotIds));
    }
    for (const { code, object, message } of store.findings) {
      if (code !== 'pack_damaged' || [...bad.values()].some(({ packId }) => packId === object)) continue;
      findings.push(
        packFinding(
          object,
          message,
          false,
          broken.map(({ snapshotId }) => snapshotId),
        ),
      );
    }
    for (const { snapshotId, missing } of broken) {
      findings.push(
        errorFinding('snapshot_damaged', snapshotId, {
          message: `${missing} of the units that it needs cannot be had`,
          hint: REPAIR_HINT,
          count: missing,
          snapshots: [snapshotId],
        }),
      );
    }
    return { snapshots, packs, bytes, findings };
  } finally {
    endRead();
  }
}

function packFinding(packId: string, problem: string, missing: boolean, snapshots: string[]): Finding {
  return errorFinding(missing ? 'pack_missing' : 'pack_damaged', packId, {
    message: problem,
    hint: missing ? 'bring the file back, or run lightkeeper repair' : REPAIR_HINT,
    snapshots,
  });
}

async function noteTrust(store: Store, order: VerifyOrder, problems: number): Promise<void> {
  if (problems > 0) await store.index.distrust();
  else if (order.only === undefined && store.lost.size === 0) await store.index.trust();
}

async function markLost(store: Store, pack: number, lost: boolean): Promise<void> {
  if (lost) store.lost.add(pack);
  else store.lost.delete(pack);
  if (!store.readOnly) await store.index.setLost(pack, lost);
}

/** Enters units of whole packs that the index has lost; answers whether there were any. */
async function enterForgotten(store: Store, sound: readonly WantedPack[]): Promise<boolean> {
  let found = false;
  for (const { packId, size } of sound) {
    const { entered } = await checkTable(store, packId, size);
    if (entered) found = true;
  }
  return found;
}

async function packsOf(store: Store, record: CommittedSnapshot): Promise<ReadonlySet<number>> {
  const packs = new Set<number>();
  const walker = await Walker.begin(store, (_, { pack }) => {
    packs.add(pack);
    return true;
  });
  await walker.walk(record.manifest, record.manifestUnitId);
  return packs;
}

async function checkPacks(
  store: Store,
  order: VerifyOrder,
  needed: ReadonlySet<number> | undefined,
): Promise<{ bad: Map<number, BadPack>; sound: WantedPack[]; packs: number; bytes: number }> {
  const bad = new Map<number, BadPack>();
  const sound: WantedPack[] = [];
  let packs = 0;
  let bytes = 0;
  let total = 0;
  const wanted: WantedPack[] = [];
  for await (const [pack, record] of store.index.packs()) {
    if (needed !== undefined && !needed.has(pack)) continue;
    wanted.push({ pack, packId: hex(record.packId), size: Number(record.size) });
    total += Number(record.size);
  }
  const pool = new Pool(order.bytes ? total : 0, { chunkerSeed: store.config.chunkerSeed, gentle: true });
  try {
    await eachInPool(pool, wanted, async ({ pack, packId, size }) => {
      order.signal?.throwIfAborted();
      const report = order.bytes
        ? await pool.run({ op: 'verify', path: store.packs.localPath(packId), packId })
        : await checkTable(store, packId, size);
      packs += 1;
      bytes += report.bytes;
      order.onProgress?.('checking packs', bytes, total);
      if (report.problem === undefined) {
        sound.push({ pack, packId, size });
        return;
      }
      if (report.tooNew)
        throw new LightkeeperError('TOO_NEW', `Cannot verify pack "${packId}": ${report.problem}`);
      const { problem, missing } = report;
      bad.set(pack, { packId, problem, missing, good: new Set(report.good) });
    });
  } finally {
    await pool.close();
  }
  return { bad, sound, packs, bytes };
}

/** Proves what can be proven of a pack without reading it: that it is there, and what is in it by its table. */
async function checkTable(
  store: Store,
  packId: string,
  size: number,
): Promise<PackReport & { readonly entered: boolean }> {
  const none = { bytes: 0, units: 0, problem: undefined, missing: false, tooNew: false, good: [] };
  const fine = { ...none, entered: false };
  const head = await store.packs.head(packId);
  if (head === undefined) return { ...fine, problem: 'it is missing', missing: true };
  if (head.size !== size) return { ...fine, problem: `it has ${head.size} bytes instead of ${size}` };
  try {
    const { kind, frames } = await readPackTable(store.packs, packId, size);
    if (frames.every(({ unitIds }) => indexKnows(store, unitIds))) return fine;
    // The index is a cache: it has lost entries, the pack has them.
    if (store.readOnly) return { ...fine, problem: 'the index does not know all of its units' };
    await enterUnits(store, { packId: Buffer.from(packId, 'hex'), kind, size: BigInt(size) }, frames);
    return { ...fine, entered: true };
  } catch (error) {
    const { code, message } = normalise(error);
    if (code !== 'DAMAGED' && code !== 'TOO_NEW' && code !== 'NOT_FOUND') throw error;
    return { ...fine, problem: message, tooNew: code === 'TOO_NEW' };
  }
}

function indexKnows(store: Store, unitIds: Uint8Array): boolean {
  for (let at = 0; at < unitIds.length; at += UNIT_ID_BYTES) {
    if (store.index.locateSync(unitIds.subarray(at, at + UNIT_ID_BYTES)) === undefined) return false;
  }
  return true;
}

async function walkSnapshots(store: Store, order: VerifyOrder, bad: ReadonlyMap<number, BadPack>) {
  const hit = new Set<number>();
  const walker = await Walker.begin(store, (id, { pack }) => {
    const report = bad.get(pack);
    if (report === undefined) return true;
    if (report.good.has(hex(id))) return true;
    hit.add(pack);
    return false;
  });
  let snapshots = 0;
  const concerned = new Map<number, string[]>();
  const broken: { snapshotId: string; missing: number }[] = [];
  const visit = async (record: CommittedSnapshot): Promise<void> => {
    hit.clear();
    const snapshotId = snapshotIdOf(record.digest);
    const missing = await walker.walk(record.manifest, record.manifestUnitId);
    snapshots += 1;
    for (const pack of hit) concerned.set(pack, [...(concerned.get(pack) ?? []), snapshotId]);
    if (missing > 0) broken.push({ snapshotId, missing });
  };
  for await (const record of snapshotsOf(store, order.only)) await visit(record);
  return { snapshots, concerned, broken };
}

/** The snapshots of a store, side snapshots last; or the one that is named. */
export async function* snapshotsOf(
  store: Store,
  only: CommittedSnapshot | undefined,
): AsyncGenerator<CommittedSnapshot> {
  if (only !== undefined) {
    yield only;
    return;
  }
  for (const side of [false, true]) {
    for await (const [, record] of store.index.records({ side }))
      if (!record.deleted && record.manifest !== undefined) yield record as CommittedSnapshot;
  }
}
