import { LightkeeperError } from '../../core/errors.ts';
import { warning } from '../../core/finding.ts';
import { SNAPSHOT_ID_DIGITS } from '../../core/manifest.ts';
import {
  gradeOf,
  idOf,
  isChangedCut,
  isDamaged,
  isEmptied,
  isOnLine,
  isStored,
  isUsable,
  type StoredSnapshot,
} from '../../core/snapshot.ts';
import { type Finding, Grade_Value, Severity_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import type { Store } from '../store/store.ts';

/** Fewest digits of an abbreviated snapshot id. */
const PREFIX_DIGITS_MIN = 8;

/**
 * Finds a snapshot by its id, the first digits of it, `latest` (the newest that is not torn) or `latest-valid` (the
 * newest usable one). NOT_FOUND if there is none, INVALID_ARGUMENT if the name fits several.
 */
export async function resolveSnapshot(store: Store, name: string, graphId: string): Promise<StoredSnapshot> {
  if (name === 'latest' || name === 'latest-valid') return await latest(store, name, graphId);
  if (!/^[0-9a-f]+$/i.test(name) || name.length < PREFIX_DIGITS_MIN || name.length > SNAPSHOT_ID_DIGITS) {
    throw new LightkeeperError(
      'INVALID_ARGUMENT',
      `Cannot use "${name}" as a snapshot: it is not an id, "latest" or "latest-valid"`,
      {
        hint: `give ${PREFIX_DIGITS_MIN} to ${SNAPSHOT_ID_DIGITS} hex digits, "latest" or "latest-valid"`,
      },
    );
  }
  const found: StoredSnapshot[] = [];
  for (const at of await store.index.recordsByPrefix(name.toLowerCase())) {
    const snapshot = await store.index.record(at);
    if (snapshot === undefined || !isStored(snapshot)) continue;
    if (graphId === '' || snapshot.manifest.graphId === graphId) found.push(snapshot);
  }
  const [first, second] = found;
  if (first === undefined) throw notFound(name, graphId);
  if (second !== undefined) {
    throw new LightkeeperError(
      'INVALID_ARGUMENT',
      `Cannot use "${name}" as a snapshot: several snapshot ids begin with it`,
      {
        hint: 'give more digits',
      },
    );
  }
  return first;
}

async function latest(store: Store, name: string, graphId: string): Promise<StoredSnapshot> {
  const graph = graphId === '' ? await onlyGraph(store) : graphId;
  const fits =
    name === 'latest' ? (snapshot: StoredSnapshot) => gradeOf(snapshot) !== Grade_Value.TORN : isUsable;
  let ungraded = 0;
  for await (const [, snapshot] of store.index.records({ graphId: graph })) {
    if (!isOnLine(snapshot)) continue;
    if (fits(snapshot)) return snapshot;
    if (gradeOf(snapshot) === Grade_Value.UNGRADED) ungraded += 1;
  }
  if (name === 'latest' || ungraded === 0) throw notFound(name, graph);
  throw new LightkeeperError(
    'NOT_FOUND',
    `Cannot find a usable snapshot of graph "${graph}": ${ungraded} of its snapshots ${ungraded === 1 ? 'is' : 'are'} not graded`,
    { hint: 'take one without --no-grade, which grades an unchanged directory too, or name one by its id' },
  );
}

/** Most snapshots without a grade that are listed at once. */
const UNGRADED_MAX = 1000;

/** Returns the ids of the snapshots of a graph that were never graded, newest first. */
export async function ungradedIds(store: Store, graphId: string): Promise<string[]> {
  const ids: string[] = [];
  for await (const [, state] of store.index.records({ graphId })) {
    if (isOnLine(state) && state.graded === undefined && !isChangedCut(state.manifest)) ids.push(idOf(state));
    if (ids.length === UNGRADED_MAX) break;
  }
  return ids;
}

/** Most snapshots that are reported as passed over. */
const PASSED_OVER_MAX = 20;

/** Returns a finding for each snapshot that is newer than the newest usable one, with the reason. */
export async function passedOver(store: Store, usable: StoredSnapshot): Promise<Finding[]> {
  const findings: Finding[] = [];
  for await (const [, other] of store.index.records({ graphId: usable.manifest.graphId })) {
    if (!isOnLine(other)) continue;
    if (other.manifest.sequence <= usable.manifest.sequence || findings.length === PASSED_OVER_MAX) break;
    findings.push(
      warning('passed_over', idOf(other), {
        message: `it is newer and was passed over: ${unusableReason(other)}`,
        hint: `see lightkeeper show ${idOf(other).slice(0, 12)}`,
      }),
    );
  }
  return findings;
}

function unusableReason(snapshot: StoredSnapshot): string {
  if (isDamaged(snapshot)) return `it is damaged (${snapshot.damaged?.reason})`;
  if (isEmptied(snapshot)) return 'its alarm "emptied" is not acknowledged';
  const grade = Grade_Value[gradeOf(snapshot)];
  const isError = ({ severity, standing }: Finding) =>
    severity === Severity_Value.ERROR && standing?.stands !== true;
  const first = (snapshot.graded?.findings ?? []).find(isError);
  return first === undefined
    ? `its grade is ${grade}`
    : `its grade is ${grade} (${first.object}: ${first.message})`;
}

/** Returns the only graph of a store. NOT_FOUND if it has none, INVALID_ARGUMENT if it has several. */
export async function onlyGraph(store: Store): Promise<string> {
  const graphs = await store.index.graphs();
  const [first, second] = graphs;
  if (first === undefined) {
    throw new LightkeeperError('NOT_FOUND', `Cannot find a snapshot in "${store.root}": it has no snapshot`, {
      hint: 'take one with lightkeeper snapshot',
    });
  }
  if (second !== undefined) {
    throw new LightkeeperError(
      'INVALID_ARGUMENT',
      `Cannot choose a snapshot in "${store.root}": it has several graphs: ${graphNames(graphs)}`,
      { hint: `name one with --graph, for instance --graph ${first}` },
    );
  }
  return first;
}

/** Most graphs that an error names. */
const GRAPHS_NAMED_MAX = 20;

function graphNames(graphs: readonly string[]): string {
  const more = graphs.length - GRAPHS_NAMED_MAX;
  return graphs.slice(0, GRAPHS_NAMED_MAX).join(', ') + (more > 0 ? ` and ${more} more` : '');
}

/** Returns the error of a snapshot that does not exist. */
export function notFound(name: string, graphId: string): LightkeeperError {
  const where = graphId === '' ? '' : ` of graph "${graphId}"`;
  return new LightkeeperError('NOT_FOUND', `Cannot find the snapshot "${name}"${where}: there is none`, {
    hint: 'run lightkeeper list',
  });
}

/** Returns the newest snapshot of a graph, side snapshots and forks left out; undefined if there is none. */
export async function newestSnapshot(store: Store, graphId: string): Promise<StoredSnapshot | undefined> {
  for await (const [, state] of store.index.records({ graphId })) if (isOnLine(state)) return state;
  return undefined;
}
