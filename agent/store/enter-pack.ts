import type { PublishedPack } from '../pack/writer.ts';
import type { IndexBatch } from './index/store-index.ts';
import type { Store } from './store.ts';

/** Enters a published pack into the index; its own record goes into the batch `last`. Returns the number of the pack. */
// Until `last` is written, `reconcile` enters the pack again with all its content: so `last` must contain
// everything that the pack adds to other entries.
export async function enterPublishedPack(
  store: Store,
  { packId, kind, frames, size }: PublishedPack,
  last: IndexBatch,
): Promise<number> {
  store.health.shard(packId.toString('hex', 0, 1), 'write');
  return await store.index.enterPack({ packId, kind, size: BigInt(size) }, frames, last);
}

/** Marks a pack that was missing or damaged as recovered, because it has just been written. */
export async function markRecovered(store: Store, pack: number): Promise<void> {
  if (!store.health.isLost(pack)) return;
  store.health.pack(pack, 'recover');
  await store.index.setLost(pack, false);
}
