import { LightkeeperError } from '../../core/errors.ts';
import { finding } from '../../core/finding.ts';
import { bytesText } from '../../core/path.ts';
import { isForeign } from '../../core/position.ts';
import { idOf, type StoredSnapshot } from '../../core/snapshot.ts';
import { type Finding, Severity_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { isSameDirectory, realPathOf } from '../../host/real-path.ts';
import type { Store } from '../store/store.ts';
import { newestSnapshot } from './resolve.ts';

/** A graph and the directory to be captured as it. */
export interface GraphSource {
  readonly graphId: string;
  /** Absolute path. */
  readonly dir: Uint8Array;
  /** Whether the id was given for this directory, not derived from its name. */
  readonly isIdGiven: boolean;
  /** Whether to go on with a graph that another store captured. */
  readonly takeOver?: boolean | undefined;
}

/** What is allowed to a capture. */
export interface CapturePermit {
  /** Finding of a graph that came from another directory or store before; undefined if it did not. */
  readonly moved: Finding | undefined;
  /** Whether the head of the graph came from another store: the snapshot begins an epoch. */
  readonly takesOver: boolean;
}

/** Checks that this store may capture a directory as a graph. REFUSED for a followed graph or another directory's. */
export async function checkCapture(store: Store, source: GraphSource): Promise<CapturePermit> {
  const { graphId, dir, takeOver } = source;
  const newest = await newestSnapshot(store, graphId);
  const head = await store.index.head(graphId);
  if (head === undefined || !isForeign(head, store.config.storeId))
    return { moved: checkSource(newest, source), takesOver: false };
  if (takeOver !== true) {
    throw new LightkeeperError(
      'REFUSED',
      `Cannot capture "${bytesText(dir)}" as graph "${graphId}": the store follows that graph, another store captures it`,
      {
        hint: 'stop the instance and the agent there; then add --take-over to go on with the graph here',
      },
    );
  }
  const moved = finding('graph_moved', Severity_Value.INFO, bytesText(realPathOf(dir)), {
    message: `this store has taken the graph over: ${originText(newest)}`,
    hint: 'points that the other store captures from now on are a fork',
  });
  return { moved, takesOver: true };
}

function originText(newest: StoredSnapshot | undefined): string {
  if (newest === undefined) return 'another store captured it before';
  const from = bytesText(sourceDirectory(newest) ?? new Uint8Array());
  return `snapshot ${idOf(newest)} came from "${from}" on ${newest.manifest.source?.host ?? ''}`;
}

/** Returns the real path of the directory that a snapshot was captured from; undefined if it is not recorded. */
export function sourceDirectory({ manifest }: StoredSnapshot): Uint8Array | undefined {
  const { realDir, dir } = manifest.source ?? {};
  const recorded = realDir === undefined || realDir.length === 0 ? dir : realDir;
  return recorded === undefined || recorded.length === 0 ? undefined : recorded;
}

/** Reports whether a snapshot was captured from a directory, whatever path names it. */
export function isFromDirectory(snapshot: StoredSnapshot, dir: Uint8Array): boolean {
  const source = sourceDirectory(snapshot);
  return source === undefined || isSameDirectory(source, dir);
}

/**
 * Checks that a graph belongs to a directory: its newest snapshot came from there. Returns a finding if it came from
 * another one and the id was given; REFUSED if the id was derived.
 */
// Two directories of one name would otherwise become one history, and a restore would mix them up.
function checkSource(
  newest: StoredSnapshot | undefined,
  { graphId, dir, isIdGiven }: GraphSource,
): Finding | undefined {
  if (newest === undefined || isFromDirectory(newest, dir)) return undefined;
  const from = bytesText(sourceDirectory(newest) ?? new Uint8Array());
  if (!isIdGiven) {
    throw new LightkeeperError(
      'REFUSED',
      `Cannot capture "${bytesText(dir)}" as graph "${graphId}": the points of that graph came from "${from}"`,
      {
        hint: `if the directory has moved, go on with --graph ${graphId}; if it is another one, give it an id of its own with --graph ID`,
      },
    );
  }
  return finding('graph_moved', Severity_Value.INFO, bytesText(realPathOf(dir)), {
    message: `the graph has moved: snapshot ${idOf(newest)} came from "${from}"`,
    hint: 'if that is another graph, give this directory an id of its own with --graph',
  });
}

/** Refuses to restore a snapshot in place of a directory that it was not captured from, unless the graph is named. */
export function checkRestoreTarget(snapshot: StoredSnapshot, dir: Uint8Array, graphId: string): void {
  if (graphId !== '' || isFromDirectory(snapshot, dir)) return;
  const from = bytesText(sourceDirectory(snapshot) ?? new Uint8Array());
  throw new LightkeeperError(
    'REFUSED',
    `Cannot restore snapshot "${idOf(snapshot)}" in place to "${bytesText(dir)}": it was captured from "${from}"`,
    {
      hint: `name the directory that it came from; if this one is meant, add --graph ${snapshot.manifest.graphId}`,
    },
  );
}
