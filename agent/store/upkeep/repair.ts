import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { LightkeeperError } from '../../../core/errors.ts';
import { warning } from '../../../core/finding.ts';
import type { Finding } from '../../../gen/lightkeeper/v1/types_pb.ts';
import { DirectoryPackStore } from '../../pack/directory-pack-store.ts';
import { PACK_HEADER_BYTES, parsePackHeader } from '../../pack/format.ts';
import { verifyPack } from '../../pack/verify-pack.ts';
import { newConfig, readConfig, writeConfig } from '../config.ts';
import { reconcile } from '../index/reconcile.ts';
import type { Store } from '../store.ts';
import { quarantinePack } from './isolate-packs.ts';
import { recordVerdict } from './record-verdict.ts';
import { rescueRecords } from './rescue-records.ts';
import { verifyStore } from './verify.ts';

/** The result of a repair. */
export interface Repaired {
  /** Units in the rebuilt index. */
  readonly rebuilt: number;
  /** Units and manifests that were written again. */
  readonly healed: number;
  /** Packs that were moved to the quarantine. */
  readonly quarantined: number;
  /** Units that snapshots still lack. */
  readonly unhealed: number;
  readonly findings: Finding[];
}

/** Writes the config of a store again from its packs if neither copy can be read. Returns whether it did. */
// To be called before the store is opened for a repair. A pack's header has the id of its store.
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

/** Repairs a store: quarantines damaged packs, rescues their units and rebuilds the index. Deletes nothing. */
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
  const { healed, quarantined } = await quarantineDamaged(store, findings, progress);
  await store.rebuildIndex();
  let rebuilt = 0;
  for await (const [, record] of store.index.packs()) rebuilt += record.units;
  const verdict = await verifyStore(store, { bytes: false });
  await recordVerdict(store, verdict);
  const { findings: left } = verdict;
  findings.push(...left);
  return { rebuilt, healed, quarantined, unhealed: countMissing(left), findings };
}

/** Returns the number of units that snapshots lack, by the findings of a verification. */
export function countMissing(findings: readonly Finding[]): number {
  let missing = 0;
  for (const { code, count } of findings) if (code === 'snapshot_damaged') missing += count;
  return missing;
}

/** Quarantines damaged packs and writes their intact units to new packs. Returns the numbers of both. */
async function quarantineDamaged(
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
    const saved = await quarantinePack(store, packId, report.problem);
    healed += saved.units;
    findings.push(saved.finding);
    const number = await store.index.packNumber(Buffer.from(packId, 'hex'));
    if (number !== undefined && saved.isReplaced) bad.delete(number);
    else if (number !== undefined) bad.add(number);
    quarantined += 1;
  }
  healed += await rescueRecords(store, bad);
  for (const name of await listStrayFiles(store.root)) {
    findings.push(
      warning('stray_file', name, {
        message: 'this file is not a pack and is not used',
        hint: 'move it out of the store',
      }),
    );
  }
  return { healed, quarantined };
}

/** Lists the files among the packs that are none. */
async function listStrayFiles(root: string): Promise<string[]> {
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
