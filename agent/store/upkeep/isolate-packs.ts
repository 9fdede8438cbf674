import { LightkeeperError } from '../../../core/errors.ts';
import { errorFinding } from '../../../core/finding.ts';
import { UnitKind_Value } from '../../../gen/lightkeeper/store/v1/pack_pb.ts';
import type { Finding } from '../../../gen/lightkeeper/v1/types_pb.ts';
import { PackBytes } from '../../pack/pack-bytes.ts';
import { intactFrames, verifyPack } from '../../pack/verify-pack.ts';
import { readConfig } from '../config.ts';
import { markRecovered } from '../enter-pack.ts';
import { reconcile } from '../index/reconcile.ts';
import { encodeProvenFrame } from '../meta-writer.ts';
import type { Store } from '../store.ts';
import { Transaction } from '../transaction.ts';
import { rescueRecords } from './rescue-records.ts';

/** Milliseconds that a damaged pack waits for its readers. */
const READERS_TIMEOUT_MS = 2000;

/** A damaged pack that was moved to the quarantine. */
export interface QuarantinedPack {
  /** Intact units that were written to new packs. */
  readonly units: number;
  /** Whether these formed a whole pack of the same name. */
  readonly isReplaced: boolean;
  readonly finding: Finding;
}

/** Moves a damaged pack to the quarantine and writes its intact units to new packs. */
export async function quarantinePack(
  store: Store,
  packId: string,
  problem: string,
): Promise<QuarantinedPack> {
  const to = await store.packs.quarantine(packId);
  const units = await rescueUnits(store, packId);
  // If every unit is intact, they may have formed a pack of the same name.
  const isReplaced = verifyPack(store.packs.reference(packId), packId).state === 'whole';
  if (!isReplaced) await store.packs.evict(packId);
  const finding = errorFinding('pack_quarantined', packId, {
    message: `it was damaged (${problem}); ${units} intact units were stored again`,
    hint: `remove ${to} when nothing is missing`,
  });
  return { units, isReplaced, finding };
}

/** Writes the intact units of a damaged pack to new packs. Returns how many. */
async function rescueUnits(store: Store, packId: string): Promise<number> {
  return await Transaction.run(store, async (transaction) => {
    const records = new Map<UnitKind_Value, Uint8Array[]>();
    let saved = 0;
    const pack = PackBytes.open(store.packs.reference(packId));
    try {
      for (const { kind, ids, units } of intactFrames(pack)) {
        saved += units.length;
        if (units.length === 0) continue;
        if (kind === UnitKind_Value.BYTES) {
          const unitIds = ids.map((id) => Buffer.from(id, 'hex'));
          await transaction.append(encodeProvenFrame(kind, units, { ids: unitIds }));
        } else {
          const known = records.get(kind) ?? [];
          records.set(kind, known);
          for (const unit of units) known.push(Buffer.from(unit));
        }
      }
    } finally {
      pack.close();
    }
    await transaction.finishRepack([...records].map(([kind, units]) => ({ kind, units })));
    return saved;
  });
}

/** What setting packs aside found and saved. */
export interface IsolatedPacks {
  /** Units and manifests that were written again. */
  readonly saved: number;
  /** Packs that were moved to the quarantine. */
  readonly quarantined: number;
  readonly findings: Finding[];
}

/**
 * Sets bad packs aside as a repair does, without reading the others: quarantines damaged ones, rescues what is intact,
 * and removes the bad ones from the index. Leaves packs alone that turn out whole. Runs inside `Store.exclusively`.
 */
export async function isolatePacks(store: Store, packIds: readonly string[]): Promise<IsolatedPacks> {
  const findings: Finding[] = [];
  const bad = new Set<number>();
  let saved = 0;
  let quarantined = 0;
  for (const packId of packIds) {
    const report = verifyPack(store.packs.reference(packId), packId);
    const number = await store.index.packNumber(Buffer.from(packId, 'hex'));
    if (report.state === 'whole' && number !== undefined) await markRecovered(store, number);
    if (report.state === 'whole' || report.state === 'unsupported') continue;
    if (report.state === 'missing') {
      // Without a number it was removed on purpose.
      if (number === undefined) continue;
      await checkPresence(store);
      findings.push(missingPack(packId));
      bad.add(number);
      continue;
    }
    await store.readersGone(READERS_TIMEOUT_MS);
    const pack = await quarantinePack(store, packId, report.problem);
    saved += pack.units;
    quarantined += 1;
    findings.push(pack.finding);
    if (number !== undefined && !pack.isReplaced) bad.add(number);
  }
  if (bad.size + quarantined === 0) return { saved, quarantined, findings };
  await store.index.local.markIncomplete();
  saved += await rescueRecords(store, bad);
  for (const number of bad) {
    store.health.pack(number, 'lose');
    await store.index.dropPack(number);
    store.health.pack(number, 'remove');
  }
  store.dropFrames();
  await reconcile(store, { all: true });
  return { saved, quarantined, findings };
}

function missingPack(packId: string): Finding {
  return errorFinding('pack_missing', packId, {
    message: 'it is missing',
    hint: 'bring the file back; until then its units are stored again by snapshots, or come from a peer',
  });
}

/** Throws if the folder of the store is not there: then no pack is missing, but a disk. */
async function checkPresence(store: Store): Promise<void> {
  const read = await readConfig(store.root).catch(() => undefined);
  if (read !== undefined) return;
  throw new LightkeeperError('IO', `Cannot check the packs of "${store.root}": the store is not there`, {
    hint: 'check that its disk is mounted',
  });
}
