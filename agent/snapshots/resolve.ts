import { LightkeeperError } from '../../core/errors.ts';
import { SNAPSHOT_ID_DIGITS } from '../../core/manifest.ts';
import { type CommittedSnapshot, gradeOf, isCommitted, isUsable } from '../../core/snapshot.ts';
import { Grade_Value, type SnapshotRecord } from '../../gen/lightkeeper/v1/types_pb.ts';
import type { Store } from '../store/store.ts';

/** Fewest digits that may name a snapshot. */
const PREFIX_DIGITS_MIN = 8;

/**
 * The snapshot that a person means: an id, the start of one, `latest` (the newest that is not torn) or
 * `latest-valid` (the newest usable one).
 */
export async function selectSnapshot(
  store: Store,
  name: string,
  graphId: string,
): Promise<{ at: Buffer; record: CommittedSnapshot }> {
  if (name === 'latest' || name === 'latest-valid') return await latest(store, name, graphId);
  if (!/^[0-9a-f]+$/i.test(name) || name.length < PREFIX_DIGITS_MIN || name.length > SNAPSHOT_ID_DIGITS) {
    throw new LightkeeperError(
      'INVALID_ARGUMENT',
      `Cannot use "${name}" as a snapshot: it is no id and not "latest"`,
      {
        hint: `give ${PREFIX_DIGITS_MIN} to ${SNAPSHOT_ID_DIGITS} hex digits, "latest" or "latest-valid"`,
      },
    );
  }
  const found: { at: Buffer; record: CommittedSnapshot }[] = [];
  for (const at of await store.index.recordsByPrefix(name.toLowerCase())) {
    const record = await store.index.record(at);
    if (record === undefined || !isCommitted(record)) continue;
    if (graphId === '' || record.manifest.graphId === graphId) found.push({ at, record });
  }
  const [first, second] = found;
  if (first === undefined) throw notFound(name, graphId);
  if (second !== undefined) {
    throw new LightkeeperError(
      'INVALID_ARGUMENT',
      `Cannot use "${name}" as a snapshot: more than one begins so`,
      {
        hint: 'give more digits',
      },
    );
  }
  return first;
}

async function latest(
  store: Store,
  name: string,
  graphId: string,
): Promise<{ at: Buffer; record: CommittedSnapshot }> {
  const graph = graphId === '' ? await onlyGraph(store) : graphId;
  const fits =
    name === 'latest' ? (record: CommittedSnapshot) => gradeOf(record) !== Grade_Value.TORN : isUsable;
  let ungraded = 0;
  for await (const [at, record] of store.index.records({ graphId: graph })) {
    if (!isCommitted(record)) continue;
    if (fits(record)) return { at, record };
    if (gradeOf(record) === Grade_Value.UNGRADED) ungraded += 1;
  }
  if (name === 'latest' || ungraded === 0) throw notFound(name, graph);
  throw new LightkeeperError(
    'NOT_FOUND',
    `Cannot find a usable snapshot of graph "${graph}": nobody has looked into the ${ungraded} that there are`,
    {
      hint: 'take one without --no-grade: it grades a directory that has not changed too; or name one by its id',
    },
  );
}

/** The graph that is meant where none is named: the only one. */
export async function onlyGraph(store: Store): Promise<string> {
  const [first, second] = await store.index.graphs();
  if (first === undefined) {
    throw new LightkeeperError('NOT_FOUND', `Cannot find a snapshot in "${store.root}": it holds none`, {
      hint: 'take one with lightkeeper snapshot',
    });
  }
  if (second !== undefined) {
    throw new LightkeeperError(
      'INVALID_ARGUMENT',
      `Cannot choose a snapshot in "${store.root}": it holds several graphs`,
      {
        hint: 'name the graph with --graph',
      },
    );
  }
  return first;
}

/** The error of a snapshot that is not there. */
export function notFound(name: string, graphId: string): LightkeeperError {
  const where = graphId === '' ? '' : ` of graph "${graphId}"`;
  return new LightkeeperError('NOT_FOUND', `Cannot find the snapshot "${name}"${where}: there is none`, {
    hint: 'run lightkeeper list',
  });
}

/** The newest snapshot of a graph that is not a side snapshot and not deleted. */
export async function newestRecord(store: Store, graphId: string): Promise<SnapshotRecord | undefined> {
  for await (const [, record] of store.index.records({ graphId })) {
    if (!record.deleted && record.manifest !== undefined) return record;
  }
  return undefined;
}
