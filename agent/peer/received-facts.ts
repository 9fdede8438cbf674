import { doesTravel } from '../../core/following/facts.ts';
import { parseAnnotation } from '../../core/manifest.ts';
import type { SnapshotState } from '../../core/snapshot.ts';
import { sameBytes } from '../../core/unit.ts';
import type { Annotation } from '../../gen/lightkeeper/store/v1/annotation_pb.ts';
import { checkOfPeer } from '../store/receive/check-frame.ts';
import type { Store } from '../store/store.ts';
import { brokenRule } from './refusals.ts';

/** Returns the annotations of a snapshot that a follower stores. PEER_INVALID for a kind that does not travel. */
export function factsAbout(digest: Uint8Array, annotations: readonly Uint8Array[]): Uint8Array[] {
  return annotations.filter((bytes) => {
    const annotation = parseTravelling(bytes);
    if (!sameBytes(annotation.digest, digest)) throw brokenRule('it sends a fact about another snapshot');
    return annotation.fact.case !== undefined;
  });
}

/** Returns those of the annotations that are news about snapshots of a graph in the store. */
export async function newFacts(
  store: Store,
  graphId: string,
  annotations: readonly Uint8Array[],
): Promise<Uint8Array[]> {
  const news: Uint8Array[] = [];
  for (const bytes of annotations) {
    const annotation = parseTravelling(bytes);
    const state = await store.index.known(annotation.digest);
    if (state?.manifest?.graphId === graphId && !state.deleted && isNews(state, annotation)) news.push(bytes);
  }
  return news;
}

// A fact of a newer version has no case here, and is left out.
function parseTravelling(bytes: Uint8Array): Annotation {
  const annotation = checkOfPeer('an annotation', () => parseAnnotation(bytes));
  const { case: kind } = annotation.fact;
  if (kind !== undefined && !doesTravel(kind))
    throw brokenRule(`it sends a fact of kind "${kind}", which does not travel`);
  return annotation;
}

function isNews({ record }: SnapshotState, { fact, storeId, counter }: Annotation): boolean {
  if (fact.case === undefined) return false;
  return !record.annotations.some(
    (known) => known.fact.case === fact.case && sameBytes(known.storeId, storeId) && known.counter >= counter,
  );
}
