import type { Store } from '../store.ts';
import type { Verdict } from './verify.ts';

/** Records which packs a verification found missing or damaged, and which whole. */
// The next snapshot that needs units of a lost pack stores them again.
export async function recordVerdict(store: Store, verdict: Verdict): Promise<void> {
  const { order, badPacks, wholePacks, brokenSnapshots } = verdict;
  for (const pack of badPacks) await recordPack(store, pack, 'lose');
  // Sizes do not prove that a damaged pack is whole again.
  if (order.bytes)
    for (const pack of wholePacks) if (store.health.isLost(pack)) await recordPack(store, pack, 'recover');
  if (store.readOnly) return;
  if (badPacks.length + brokenSnapshots + store.health.unsoundShards > 0)
    await store.index.local.markIncomplete();
  else if (order.only === undefined && store.health.lostPacks().length === 0)
    await store.index.local.markComplete();
}

async function recordPack(store: Store, pack: number, event: 'lose' | 'recover'): Promise<void> {
  store.health.pack(pack, event);
  if (!store.readOnly) await store.index.setLost(pack, event === 'lose');
}
