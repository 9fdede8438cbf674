import { create } from '@bufbuild/protobuf';
import { type HeldPosition, isAfter } from '../../core/following/schedule.ts';
import { capturedMs } from '../../core/manifest.ts';
import { epochOf } from '../../core/position.ts';
import { type Lag, LagSchema } from '../../gen/lightkeeper/v1/types_pb.ts';
import { now } from '../../host/clock.ts';
import type { Store } from '../store/store.ts';
import { isOffered } from './listing.ts';

/** Most snapshots whose bytes are counted. */
const COUNTED_MAX = 1000;

/** Returns how far a follower that holds `held` is behind the newest snapshot of a graph. */
export async function lagOf(store: Store, graphId: string, held: HeldPosition | undefined): Promise<Lag> {
  const lag = create(LagSchema);
  let oldestMs: number | undefined;
  for await (const [, state] of store.index.records({ graphId })) {
    if (!isOffered(state)) continue;
    const place = { epoch: epochOf(state.manifest).number, sequence: state.manifest.sequence };
    if (held !== undefined && !isAfter(place, held)) break;
    lag.snapshots += 1n;
    lag.bytes += state.measured?.storedBytes ?? 0n;
    oldestMs = capturedMs(state.manifest);
    if (lag.snapshots >= COUNTED_MAX) break;
  }
  // For people: the wall clock of the capture is the only one that both sides know.
  if (oldestMs !== undefined) lag.ms = BigInt(Math.max(0, now() - oldestMs));
  return lag;
}
