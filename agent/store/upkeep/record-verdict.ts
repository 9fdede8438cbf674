import type { Store } from '../store.ts';
import type { Verdict } from './verify.ts';

/**
 * Records which packs a verification found missing or damaged, and which whole. The units of lost packs are stored again
 * by the next snapshot that needs them.
 */
export async function recordVerdict(store: Store, verdict: Verdict): Promise<void> {
  const { order, badPacks, wholePacks, brokenSnapshots } = verdict;
  for (const pack of badPacks) await record(store, pack, 'lose');
  // Sizes alone do not prove that a pack which was damaged is whole again.
  if (order.bytes)
    for (const pack of wholePacks) if (store.health.isLost(pack)) await record(store, pack, 'recover');
  if (store.readOnly) return;
  if (badPacks.length + brokenSnapshots + store.health.unsoundShards > 0) await store.index.distrust();
  else if (order.only === undefined && store.health.lostPacks().length === 0) await store.index.trust();
}

async function record(store: Store, pack: number, event: 'lose' | 'recover'): Promise<void> {
  store.health.pack(pack, event);
  if (!store.readOnly) await store.index.setLost(pack, event === 'lose');
}
