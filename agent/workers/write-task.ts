import { writeSync } from 'node:fs';
import { ioError, LightkeeperError } from '../../core/errors.ts';
import { UNIT_ID_BYTES, unitId, unitIdInPlace } from '../../core/unit.ts';
import type { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import { effectSync } from '../../host/disk.ts';
import { DECODE_HEADROOM_BYTES, decodeFrame, parseFrame } from '../pack/frame.ts';
import { readInto } from '../pack/pack-bytes.ts';
import type { PackReference } from '../pack/pack-store.ts';
import type { WorkBuffers } from './work-buffers.ts';

/** Where units of one frame are written: one element per unit in each array. */
export interface RestoreTargets {
  /** Index of the unit in the frame. */
  readonly places: Uint32Array;
  /** File descriptor of the file. */
  readonly fds: Int32Array;
  /** Offset in the file, in bytes. */
  readonly positions: Float64Array;
}

/** Writes units of one frame to files, and checks what was written. */
export interface WriteUnitsTask {
  readonly op: 'write-units';
  readonly reference: PackReference;
  /** Offset of the frame in the pack, in bytes. */
  readonly offset: number;
  /** Bytes of the frame in the pack. */
  readonly length: number;
  readonly targets: RestoreTargets;
}

export interface WriteTaskResults {
  'write-units': { readonly bytes: number };
}

/** The units of a decoded frame. */
interface DecodedUnits {
  readonly kind: UnitKind_Value;
  readonly bytes: Buffer;
  readonly ids: Buffer;
  /** Bytes of each unit. */
  readonly lengths: readonly number[];
  /** Offset of each unit in `bytes`, and of the end of the last one. */
  readonly starts: Float64Array;
}

/** Runs a `write-units` task. Returns the number of bytes written; throws if reading them back gives others. */
export function runWriteUnits(task: WriteUnitsTask, buffers: WorkBuffers): { bytes: number } {
  const units = decodeUnits(task, buffers);
  const { places, fds, positions } = task.targets;
  let bytes = 0;
  for (let from = 0; from < places.length; ) {
    const to = runEnd(task.targets, units.starts, from);
    const start = units.starts[places[from] as number];
    const end = units.starts[(places[to - 1] as number) + 1];
    if (start === undefined || end === undefined)
      throw new LightkeeperError('DAMAGED', 'Cannot restore: a frame is cut');
    const fd = fds[from] as number;
    const position = positions[from] as number;
    effectSync({ label: 'restore:write', op: 'write', path: '' }, () =>
      writeWhole(fd, units.bytes.subarray(start, end), position),
    );
    const written = readBack(fd, { length: end - start, position }, buffers);
    checkUnits(units, written, places.subarray(from, to));
    bytes += end - start;
    from = to;
  }
  return { bytes };
}

function decodeUnits({ reference, offset, length }: WriteUnitsTask, buffers: WorkBuffers): DecodedUnits {
  const frame = parseFrame(buffers.readPack(reference, offset, length));
  const bytes = buffers.decoded(frame.decodedLength);
  decodeFrame(frame, bytes);
  const { unitLengths: lengths, unitIds, kind } = frame.header;
  const ids = Buffer.from(unitIds.buffer, unitIds.byteOffset, unitIds.byteLength);
  const starts = new Float64Array(lengths.length + 1);
  for (const [i, length] of lengths.entries()) starts[i + 1] = (starts[i] as number) + length;
  return { kind, bytes, ids, lengths, starts };
}

/** Returns the first target after `from` that does not follow the one before it both in the frame and in the file. */
function runEnd(targets: RestoreTargets, starts: Float64Array, from: number): number {
  const { places, fds, positions } = targets;
  let to = from + 1;
  const delta = (positions[from] as number) - (starts[places[from] as number] as number);
  while (
    to < places.length &&
    fds[to] === fds[from] &&
    places[to] === (places[to - 1] as number) + 1 &&
    (positions[to] as number) - (starts[places[to] as number] as number) === delta
  ) {
    to += 1;
  }
  return to;
}

function writeWhole(fd: number, bytes: Buffer, position: number): void {
  try {
    let done = 0;
    while (done < bytes.length) done += writeSync(fd, bytes, done, bytes.length - done, position + done);
  } catch (error) {
    throw ioError('write', 'a restored file', error);
  }
}

/** Reads what was written. Returns it behind the headroom that hashing needs. */
function readBack(fd: number, at: { length: number; position: number }, buffers: WorkBuffers): Buffer {
  const end = DECODE_HEADROOM_BYTES + at.length;
  const buffer = buffers.scratch(end);
  if (readInto(fd, buffer.subarray(DECODE_HEADROOM_BYTES, end), at.position) < at.length)
    throw new LightkeeperError('IO', 'Cannot restore: the disk lost what was written');
  return buffer;
}

/** Hashes consecutive units as they were read back. Throws if one does not match its id. */
function checkUnits(units: DecodedUnits, written: Buffer, places: Uint32Array): void {
  const { kind, bytes, ids, lengths, starts } = units;
  const first = starts[places[0] as number] as number;
  for (const unit of places) {
    const start = starts[unit] as number;
    const length = lengths[unit] as number;
    const id = unitIdInPlace(kind, written, DECODE_HEADROOM_BYTES + start - first, length);
    const [idStart, idEnd] = [unit * UNIT_ID_BYTES, (unit + 1) * UNIT_ID_BYTES];
    if (id.compare(ids, idStart, idEnd) === 0) continue;
    const stored = unitId(kind, bytes.subarray(start, start + length));
    throw wrongBytes(stored.compare(ids, idStart, idEnd) === 0);
  }
}

function wrongBytes(storeIsRight: boolean): LightkeeperError {
  return storeIsRight
    ? new LightkeeperError('IO', 'Cannot restore: the disk gave back other bytes than were written', {
        hint: 'restore to another disk',
      })
    : new LightkeeperError('DAMAGED', 'Cannot restore: a unit does not hash to its id', {
        hint: 'run lightkeeper verify --level bytes, then lightkeeper repair',
      });
}
