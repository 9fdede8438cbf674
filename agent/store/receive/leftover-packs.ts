import type { Hash } from 'node:crypto';
import { normalise } from '../../../core/errors.ts';
import { sameBytes } from '../../../core/unit.ts';
import type { FrameInfo, PackKind_Value } from '../../../gen/lightkeeper/store/v1/pack_pb.ts';
import { removeFile } from '../../../host/disk.ts';
import type { DirectoryPackStore } from '../../pack/directory-pack-store.ts';
import { PACK_HEADER_BYTES, packHash, parsePackHeader } from '../../pack/format.ts';
import { decodeVerified, FRAME_PREFIX_BYTES } from '../../pack/frame.ts';
import { PackBytes } from '../../pack/pack-bytes.ts';
import type { PackReference } from '../../pack/pack-store.ts';
import { frameInfo, PackWriter, type ProvenPart } from '../../pack/writer.ts';
import { FRAME_BYTES_MAX, packKindOf } from './check-frame.ts';

/** Publishes the whole frames of packs whose receiver was stopped. Returns the names of the packs. */
// Records are left out: a manifest in a pack is a commit, and only publishing a complete pack commits.
export async function finishLeftovers(packs: DirectoryPackStore, storeId: Uint8Array): Promise<string[]> {
  const finished: string[] = [];
  for (const { name, reference } of await packs.leftovers()) {
    const proven = provenPart(reference, storeId);
    const packId =
      proven === undefined ? undefined : await finish(packs, name, proven).catch(() => undefined);
    if (packId !== undefined) finished.push(packId);
    // Nothing depends on it: on a full disk its space is of more use.
    else if ('file' in reference) await removeFile('peer:leftover:remove', reference.file);
  }
  return finished;
}

async function finish(
  packs: DirectoryPackStore,
  name: string,
  { kind, part }: { kind: PackKind_Value; part: ProvenPart },
): Promise<string> {
  const sink = await packs.resume('peer:leftover:cut', name, part.length);
  const { packId } = await PackWriter.resume(kind, sink, part).publish();
  return packId.toString('hex');
}

/** Returns the part of a pack up to its first frame that is torn, damaged or not of file bytes and lists. */
function provenPart(
  reference: PackReference,
  storeId: Uint8Array,
): { kind: PackKind_Value; part: ProvenPart } | undefined {
  let pack: PackBytes;
  try {
    pack = PackBytes.open(reference);
  } catch {
    // What cannot be read is received again.
    return undefined;
  }
  try {
    const header = pack.readAt(0, PACK_HEADER_BYTES);
    const { kind, storeId: owner } = parsePackHeader(header);
    if (!sameBytes(owner, storeId)) return undefined;
    const hash = packHash().update(header);
    const frames = [...wholeFrames(pack, kind, hash)];
    const last = frames.at(-1);
    if (last === undefined) return undefined;
    return { kind, part: { frames, hash, length: last.offset + last.length } };
  } catch (error) {
    if (normalise(error).code === 'INTERNAL') throw error;
    return undefined;
  } finally {
    pack.close();
  }
}

/** Yields the frames of a pack that hash to their ids, and adds their bytes to `hash`. */
function* wholeFrames(pack: PackBytes, kind: PackKind_Value, hash: Hash): Generator<FrameInfo> {
  for (let offset = PACK_HEADER_BYTES; offset + FRAME_PREFIX_BYTES <= pack.size; ) {
    const prefix = pack.readAt(offset, FRAME_PREFIX_BYTES);
    const length = FRAME_PREFIX_BYTES + prefix.readUInt32LE(4) + prefix.readUInt32LE(8);
    if (length > FRAME_BYTES_MAX || offset + length > pack.size) return;
    const bytes = pack.readAt(offset, length);
    let info: FrameInfo;
    try {
      const { header } = decodeVerified(bytes).parsed;
      if (packKindOf(header.kind) !== kind) return;
      const { unitIds: ids, unitLengths: lengths, streams } = header;
      info = frameInfo({ kind: header.kind, ids, lengths, codec: streams[0]?.codec ?? 0 }, offset, length);
    } catch (error) {
      if (normalise(error).code === 'INTERNAL') throw error;
      return;
    }
    hash.update(bytes);
    yield info;
    offset += length;
  }
}
