import { LightkeeperError } from '../../../core/errors.ts';
import { NODE_REF_BYTES } from '../../../core/list.ts';
import { UNIT_ID_BYTES } from '../../../core/unit.ts';
import {
  type FrameHeader,
  PackKind_Value,
  UnitKind_Value,
} from '../../../gen/lightkeeper/store/v1/pack_pb.ts';
import { FRAME_UNITS_MAX, frameCap, parseFrame } from '../../pack/frame.ts';

/** Most bytes that a received frame may decode to: twice those of the largest frame that this version sends. */
const DECODED_BYTES_MAX = 8 << 20;

/** Most bytes of a received frame. */
export const FRAME_BYTES_MAX = frameCap(FRAME_UNITS_MAX, DECODED_BYTES_MAX);

const PACK_KINDS: ReadonlyMap<UnitKind_Value, PackKind_Value> = new Map([
  [UnitKind_Value.BYTES, PackKind_Value.DATA],
  [UnitKind_Value.LIST, PackKind_Value.META],
  [UnitKind_Value.FILES, PackKind_Value.META],
]);

/** Returns the kind of the pack for received units of a kind; undefined for units that are not received. */
export function packKindOf(kind: UnitKind_Value): PackKind_Value | undefined {
  return PACK_KINDS.get(kind);
}

/** Returns the error of something that a peer sent and that breaks a rule. */
export function peerInvalid(what: string, state: string, cause?: unknown): LightkeeperError {
  return new LightkeeperError('PEER_INVALID', `Cannot use ${what} of a peer: ${state}`, { cause });
}

/** Runs a check of stored bytes on those of a peer. PEER_INVALID if it rejects them. */
export function checkOfPeer<T>(what: string, check: () => T): T {
  try {
    return check();
  } catch (error) {
    // What a newer version wrote breaks no rule.
    if (error instanceof LightkeeperError && error.code === 'TOO_NEW') throw error;
    throw peerInvalid(what, error instanceof Error ? error.message : String(error), error);
  }
}

/** A frame of a peer whose header is in order. Its units are not hashed yet. */
export interface CheckedFrame {
  readonly header: FrameHeader;
  readonly packKind: PackKind_Value;
  readonly ids: Buffer[];
}

/** Checks a frame without decoding it. PEER_INVALID unless it is of an allowed kind and has a wanted unit. */
export function checkFrame(frame: Buffer, wanted: (id: Buffer) => boolean): CheckedFrame {
  if (frame.length > FRAME_BYTES_MAX) throw peerInvalid('a frame', `it has ${frame.length} bytes`);
  const { header } = checkOfPeer('a frame', () => parseFrame(frame));
  const packKind = packKindOf(header.kind);
  if (packKind === undefined) throw peerInvalid('a frame', `it holds units of kind ${header.kind}`);
  if (header.decodedCap > DECODED_BYTES_MAX)
    throw peerInvalid('a frame', `it decodes to ${header.decodedCap} bytes`);
  if (
    header.kind === UnitKind_Value.LIST &&
    header.unitLengths.some((n) => n === 0 || n % NODE_REF_BYTES !== 0)
  )
    throw peerInvalid('a frame', 'a list piece in it does not hold whole entries');
  const all = Buffer.from(header.unitIds);
  const ids = header.unitLengths.map((_, i) => all.subarray(i * UNIT_ID_BYTES, (i + 1) * UNIT_ID_BYTES));
  if (!ids.some(wanted)) throw peerInvalid('a frame', 'no unit in it is wanted');
  return { header, packKind, ids };
}
