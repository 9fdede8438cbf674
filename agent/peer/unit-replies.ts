import { create } from '@bufbuild/protobuf';
import { splitUnitIds } from '../../core/unit.ts';
import {
  type FramePart,
  type UnitsMissing,
  UnitsMissingSchema,
  type UnitsWanted,
} from '../../gen/lightkeeper/v1/peer_pb.ts';
import type { FrameSender } from '../store/send/frame-sender.ts';
import type { Store } from '../store/store.ts';
import { splitFrame } from './frame-parts.ts';

/** One message of the reply to a request for units. */
export type UnitReply =
  | { readonly case: 'framePart'; readonly value: FramePart }
  | { readonly case: 'unitsMissing'; readonly value: UnitsMissing };

/** Yields the reply to a request for units. The packs of the store are not removed meanwhile. */
export async function* unitReplies(
  store: Store,
  sender: FrameSender,
  { wantId, unitIds }: Pick<UnitsWanted, 'wantId' | 'unitIds'>,
): AsyncGenerator<UnitReply> {
  const endRead = store.beginRead();
  try {
    for await (const part of sender.send(splitUnitIds(unitIds))) {
      if (part.kind === 'missing') {
        const value = create(UnitsMissingSchema, { wantId, unitIds: Buffer.concat(part.ids) });
        yield { case: 'unitsMissing', value };
      } else for (const value of splitFrame(wantId, part.frame)) yield { case: 'framePart', value };
    }
  } finally {
    endRead();
  }
}

/** Returns the bytes that a message of a reply carries. */
export function replyBytes({ case: kind, value }: UnitReply): number {
  return kind === 'framePart' ? value.data.length : value.unitIds.length;
}
