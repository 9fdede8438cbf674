import { create, toBinary } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { sha256 } from '../../../core/unit.ts';
import {
  type Annotation,
  AnnotationSchema,
  ManifestSchema,
  PackKind_Value,
  PositionEntrySchema,
  type SnapshotRecord,
  UnitKind_Value,
} from '../../../gen/lightkeeper/v1/types_pb.ts';
import { now } from '../../../host/clock.ts';
import type { Store } from '../store.ts';
import { Ingest } from '../transaction.ts';

/**
 * Writes again what the index knows of snapshots and the packs may not say any more, some meta packs being
 * damaged or gone: manifests, positions and annotations. Answers how many manifests came back.
 */
export async function rescueRecords(store: Store, bad: ReadonlySet<number>): Promise<number> {
  if (!(await holdsMeta(store, bad))) return 0;
  const manifests: Uint8Array[] = [];
  const annotations: Uint8Array[] = [];
  const positions: Uint8Array[] = [];
  for (const side of [false, true]) {
    for await (const [, record] of store.index.records({ side, reverse: false })) {
      const manifest = manifestOf(store, record, bad);
      if (manifest !== undefined) manifests.push(manifest);
      for (const what of notesOf(record)) annotations.push(annotationOf(store, record, what));
    }
  }
  for (const graphId of await store.index.graphs()) {
    const head = await store.index.head(graphId);
    if (head !== undefined) positions.push(toBinary(PositionEntrySchema, head));
  }
  const ingest = new Ingest(store);
  try {
    await ingest.finishRepack([
      { kind: UnitKind_Value.MANIFEST, units: manifests },
      { kind: UnitKind_Value.POSITION, units: positions },
      { kind: UnitKind_Value.ANNOTATION, units: annotations },
    ]);
  } catch (error) {
    await ingest.abandon();
    throw error;
  }
  return manifests.length;
}

async function holdsMeta(store: Store, packs: ReadonlySet<number>): Promise<boolean> {
  for (const pack of packs) if ((await store.index.pack(pack))?.kind === PackKind_Value.META) return true;
  return false;
}

/** The manifest of a record byte by byte, if the snapshot is to be kept and no good pack has it. */
function manifestOf(store: Store, record: SnapshotRecord, bad: ReadonlySet<number>): Uint8Array | undefined {
  if (record.manifest === undefined || record.deleted) return undefined;
  const location = store.index.locateSync(record.manifestUnitId);
  if (location !== undefined && !bad.has(location.pack)) return undefined;
  const bytes = toBinary(ManifestSchema, record.manifest);
  return sha256(bytes).equals(record.digest) ? bytes : undefined;
}

type Note = Pick<Annotation, 'counter' | 'what'>;

/** What was learnt about a snapshot, with the numbers that it had. */
function* notesOf(record: SnapshotRecord): Generator<Note> {
  const { measured, tags, pinned, deleted } = record;
  if (measured !== undefined)
    yield { counter: record.measuredCounter, what: { case: 'measured', value: measured } };
  if (record.taggedCounter > 0n) {
    const value = { $typeName: 'lightkeeper.v1.Tagged', tags } as const;
    yield { counter: record.taggedCounter, what: { case: 'tagged', value } };
  }
  if (record.pinnedCounter > 0n) {
    const value = { $typeName: 'lightkeeper.v1.Pinned', pinned } as const;
    yield { counter: record.pinnedCounter, what: { case: 'pinned', value } };
  }
  if (deleted) {
    const value = { $typeName: 'lightkeeper.v1.Deleted', reason: 'deleted before a repair' } as const;
    yield { counter: record.deletedCounter, what: { case: 'deleted', value } };
  }
}

function annotationOf(store: Store, { digest }: SnapshotRecord, note: Note): Uint8Array {
  const { storeId } = store.config;
  return toBinary(
    AnnotationSchema,
    create(AnnotationSchema, { ...note, storeId, digest, at: timestampFromMs(now()) }),
  );
}
