import { toBinary } from '@bufbuild/protobuf';
import type { SnapshotState } from '../../../core/snapshot.ts';
import { sha256 } from '../../../core/unit.ts';
import { AnnotationSchema } from '../../../gen/lightkeeper/store/v1/annotation_pb.ts';
import { ManifestSchema, PositionEntrySchema } from '../../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { PackKind_Value, UnitKind_Value } from '../../../gen/lightkeeper/store/v1/pack_pb.ts';
import type { Store } from '../store.ts';
import { Transaction } from '../transaction.ts';

/** Writes manifests, positions and annotations from the index again if a meta pack is bad. Returns the manifests. */
// The bad packs may have held the only copy of them.
export async function rescueRecords(store: Store, bad: ReadonlySet<number>): Promise<number> {
  if (!(await holdsMeta(store, bad))) return 0;
  const manifests: Uint8Array[] = [];
  const annotations: Uint8Array[] = [];
  const positions: Uint8Array[] = [];
  for (const side of [false, true]) {
    for await (const [, state] of store.index.records({ side, reverse: false })) {
      const manifest = manifestOf(store, state, bad);
      if (manifest !== undefined) manifests.push(manifest);
      for (const annotation of state.record.annotations)
        annotations.push(toBinary(AnnotationSchema, annotation));
    }
  }
  for await (const { annotations: strays } of store.index.strays())
    for (const annotation of strays) annotations.push(toBinary(AnnotationSchema, annotation));
  for (const graphId of await store.index.positionGraphs()) {
    for await (const entry of store.index.positions(graphId))
      positions.push(toBinary(PositionEntrySchema, entry));
  }
  await Transaction.run(store, (transaction) =>
    transaction.finishRepack([
      { kind: UnitKind_Value.MANIFEST, units: manifests },
      { kind: UnitKind_Value.POSITION, units: positions },
      { kind: UnitKind_Value.ANNOTATION, units: annotations },
    ]),
  );
  return manifests.length;
}

async function holdsMeta(store: Store, packs: ReadonlySet<number>): Promise<boolean> {
  for (const pack of packs) if ((await store.index.pack(pack))?.kind === PackKind_Value.META) return true;
  return false;
}

/** Returns the bytes of a snapshot's manifest; undefined if it is deleted, or in a good pack. */
function manifestOf(store: Store, state: SnapshotState, bad: ReadonlySet<number>): Uint8Array | undefined {
  if (state.manifest === undefined || state.deleted) return undefined;
  const location = store.index.locateSync(state.manifestUnitId);
  if (location !== undefined && !bad.has(location.pack)) return undefined;
  const bytes = toBinary(ManifestSchema, state.manifest);
  return sha256(bytes).equals(state.digest) ? bytes : undefined;
}
