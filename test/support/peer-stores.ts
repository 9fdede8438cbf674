import { toBinary } from '@bufbuild/protobuf';
import { fetchSnapshot } from '../../agent/peer/fetch-snapshot.ts';
import type { FrameReceiver } from '../../agent/store/receive/frame-receiver.ts';
import { FrameSender } from '../../agent/store/send/frame-sender.ts';
import { Store } from '../../agent/store/store.ts';
import { isStored, type StoredSnapshot } from '../../core/snapshot.ts';
import { AnnotationSchema } from '../../gen/lightkeeper/store/v1/annotation_pb.ts';
import { PositionEntrySchema } from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';

/** Facts that a source sends. */
const TRAVELLING: ReadonlySet<string | undefined> = new Set(['tagged', 'pinned', 'acknowledged', 'graded']);

/** Runs `run` with an open store, which is closed afterwards. */
export async function withOpen<T>(root: string, run: (store: Store) => Promise<T>): Promise<T> {
  const store = await Store.open(root, { create: true });
  try {
    return await run(store);
  } finally {
    await store.close();
  }
}

/** Returns the snapshots of a store, oldest first. */
export async function snapshotsOf(store: Store, graphId?: string): Promise<StoredSnapshot[]> {
  const found: StoredSnapshot[] = [];
  const scope = graphId === undefined ? {} : { graphId };
  for await (const [, state] of store.index.records({ ...scope, reverse: false }))
    if (isStored(state)) found.push(state);
  return found;
}

/** Returns what a source sends of a snapshot beside its units. */
export async function sentSnapshot(source: Store, snapshot: StoredSnapshot) {
  const manifest = await source.readUnit(snapshot.manifestUnitId, UnitKind_Value.MANIFEST);
  const positions: Uint8Array[] = [];
  for await (const entry of source.index.positions(snapshot.manifest.graphId)) {
    if (entry.sequence <= snapshot.manifest.sequence) positions.push(toBinary(PositionEntrySchema, entry));
  }
  const annotations = snapshot.record.annotations
    .filter(({ fact }) => TRAVELLING.has(fact.case))
    .map((annotation) => toBinary(AnnotationSchema, annotation));
  return { manifest: Buffer.from(manifest), positions, annotations, durationMs: 5 };
}

/** Sends the units of a snapshot that a receiver lacks. Returns the frames that it took. */
export async function transferUnits(
  source: Store,
  receiver: FrameReceiver,
  { manifest }: StoredSnapshot,
): Promise<Buffer[]> {
  const sender = new FrameSender(source);
  const frames: Buffer[] = [];
  const request = async (ids: readonly Buffer[]): Promise<Buffer[]> => {
    const wanted = new Set(ids.map((id) => id.toString('latin1')));
    const missing: Buffer[] = [];
    for await (const part of sender.send(ids)) {
      if (part.kind === 'missing') missing.push(...part.ids);
      else {
        frames.push(part.frame);
        await receiver.receive(part.frame, (id) => wanted.has(id.toString('latin1')));
      }
    }
    return missing;
  };
  await fetchSnapshot(
    {
      has: (id) => receiver.has(id),
      piece: (id, kind) => receiver.piece(id, kind),
      isComplete: (id) => receiver.isComplete(id),
      request,
    },
    manifest,
  );
  return frames;
}

/** Copies a snapshot from one store into another. */
export async function transfer(
  source: Store,
  receiver: FrameReceiver,
  snapshot: StoredSnapshot,
): Promise<StoredSnapshot> {
  await transferUnits(source, receiver, snapshot);
  return await receiver.commit(await sentSnapshot(source, snapshot));
}
