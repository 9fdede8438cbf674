import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { LightkeeperError } from '../../../core/errors.ts';
import { errorFinding, warning } from '../../../core/finding.ts';
import { UnitKind_Value } from '../../../gen/lightkeeper/store/v1/pack_pb.ts';
import type { Finding } from '../../../gen/lightkeeper/v1/types_pb.ts';
import { DirectoryPackStore } from '../../pack/directory-pack-store.ts';
import { PACK_HEADER_BYTES, parsePackHeader } from '../../pack/format.ts';
import { PackBytes } from '../../pack/pack-bytes.ts';
import { goodFrames, verifyPack } from '../../pack/verify-pack.ts';
import { newConfig, readConfig, writeConfig } from '../config.ts';
import { reconcile } from '../index/reconcile.ts';
import type { Store } from '../store.ts';
import { readyFrame, Transaction } from '../transaction.ts';
import { recordVerdict } from './record-verdict.ts';
import { rescueRecords } from './rescue-records.ts';
import { verifyStore } from './verify.ts';

/** What a repair did. */
export interface Repaired {
  readonly rebuilt: number;
  readonly healed: number;
  readonly quarantined: number;
  readonly unhealed: number;
  readonly findings: Finding[];
}

/**
 * Writes a store's config again if neither copy reads: the packs say which store they are of. Called before the
 * store is opened for a repair.
 */
export async function recoverConfig(root: string): Promise<boolean> {
  try {
    const read = await readConfig(root);
    if (read !== undefined) return false;
  } catch (error) {
    if (!(error instanceof LightkeeperError) || error.code !== 'DAMAGED') throw error;
  }
  const packs = new DirectoryPackStore(root);
  try {
    for await (const { packId } of packs.list()) {
      try {
        const { storeId } = parsePackHeader(await packs.get(packId, 0, PACK_HEADER_BYTES));
        await writeConfig(root, newConfig(storeId));
        return true;
      } catch (error) {
        if (!(error instanceof LightkeeperError) || error.code !== 'DAMAGED') throw error;
      }
    }
  } finally {
    await packs.close();
  }
  return false;
}

/** Brings back what can be brought back, and deletes nothing: damaged packs are set aside. */
export async function repairStore(
  store: Store,
  options: { dryRun: boolean; onProgress?: (phase: string, done: number, total: number) => void },
): Promise<Repaired> {
  const findings: Finding[] = [];
  const progress = options.onProgress ?? (() => {});
  if (options.dryRun) {
    await reconcile(store, { all: true, tables: true });
    const { findings: found } = await verifyStore(store, { bytes: true, onProgress: progress });
    return { rebuilt: 0, healed: 0, quarantined: 0, unhealed: countMissing(found), findings: found };
  }
  const read = await readConfig(store.root);
  const lacking = [...(read?.bad ?? []), ...(read?.missing ?? [])];
  if (read !== undefined && lacking.length > 0) {
    await writeConfig(store.root, read.config);
    findings.push(
      warning('config_damaged', lacking.join(', '), {
        message: 'a copy of the store config was damaged and has been written again',
      }),
    );
  }
  const { healed, quarantined } = await setDamagedAside(store, findings, progress);
  await store.rebuildIndex();
  let rebuilt = 0;
  for await (const [, record] of store.index.packs()) rebuilt += record.units;
  const verdict = await verifyStore(store, { bytes: false });
  await recordVerdict(store, verdict);
  const { findings: left } = verdict;
  findings.push(...left);
  return { rebuilt, healed, quarantined, unhealed: countMissing(left), findings };
}

function countMissing(findings: readonly Finding[]): number {
  let missing = 0;
  for (const { code, count } of findings) if (code === 'snapshot_damaged') missing += count;
  return missing;
}

async function setDamagedAside(
  store: Store,
  findings: Finding[],
  progress: (phase: string, done: number, total: number) => void,
): Promise<{ healed: number; quarantined: number }> {
  const bad = new Set(store.health.lostPacks());
  let healed = 0;
  let quarantined = 0;
  let done = 0;
  for await (const { packId, size } of store.packs.list()) {
    const report = verifyPack(store.packs.reference(packId), packId);
    done += size;
    progress('checking packs', done, 0);
    if (report.state === 'whole' || report.state === 'missing') continue;
    if (report.state === 'unsupported')
      throw new LightkeeperError('TOO_NEW', `Cannot repair: pack "${packId}" is of a newer version`);
    const to = await store.packs.quarantine(packId);
    const saved = await salvage(store, packId);
    healed += saved;
    // Where every unit could be saved, they may have made the very pack that this one was.
    const mended = verifyPack(store.packs.reference(packId), packId).state === 'whole';
    const number = await store.index.packNumber(Buffer.from(packId, 'hex'));
    if (!mended) await store.packs.evict(packId);
    if (number !== undefined && mended) bad.delete(number);
    else if (number !== undefined) bad.add(number);
    quarantined += 1;
    findings.push(
      errorFinding('pack_quarantined', packId, {
        message: `it was damaged (${report.problem}); ${saved} units were saved from it`,
        hint: `look at ${to}; remove it when nothing is missed`,
      }),
    );
  }
  healed += await rescueRecords(store, bad);
  for (const name of await strangers(store.root)) {
    findings.push(
      warning('stray_file', name, { message: 'it is no pack and is not used', hint: 'move it elsewhere' }),
    );
  }
  return { healed, quarantined };
}

/** Writes the units of a damaged pack that still hash to their ids to a new one; answers how many. */
async function salvage(store: Store, packId: string): Promise<number> {
  return await Transaction.run(store, async (transaction) => {
    const records = new Map<UnitKind_Value, Uint8Array[]>();
    let saved = 0;
    const pack = PackBytes.open(store.packs.reference(packId));
    try {
      for (const { kind, ids, units } of goodFrames(pack)) {
        saved += units.length;
        if (units.length === 0) continue;
        if (kind === UnitKind_Value.BYTES) {
          const unitIds = ids.map((id) => Buffer.from(id, 'hex'));
          await transaction.append(readyFrame(kind, units, unitIds));
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

async function strangers(root: string): Promise<string[]> {
  const found: string[] = [];
  for (const shard of await readdir(join(root, 'packs'))) {
    if (!/^[0-9a-f]{2}$/.test(shard)) found.push(join('packs', shard));
    else {
      for (const name of await readdir(join(root, 'packs', shard))) {
        if (!/^[0-9a-f]{64}\.pack$/.test(name)) found.push(join('packs', shard, name));
      }
    }
  }
  return found;
}
