import { createClient } from '@connectrpc/connect';
import { LightkeeperError } from '../../core/errors.ts';
import { splitUnitIds, UNIT_ID_BYTES } from '../../core/unit.ts';
import { PeerService } from '../../gen/lightkeeper/v1/peer_pb.ts';
import { type DialOptions, dialGrpc } from '../../host/grpc/transport.ts';
import { fromConnect } from '../../host/rpc-errors.ts';
import { BULK_CODECS } from './bulk-codec.ts';
import { FrameJoiner } from './frame-parts.ts';
import type { FrameStorer } from './unit-reception.ts';
import { REQUEST_TIMEOUT_MS, type UnitSource } from './unit-source.ts';

/** Bytes that the peer may send ahead. */
const WINDOW_BYTES = 8 << 20;

/** How a peer is asked for the units of one graph. */
export interface FetchUnitsOptions {
  readonly dial: DialOptions;
  readonly graphId: string;
  /** Name of this agent. */
  readonly agent: string;
  /** Stores the frames. */
  readonly receive: FrameStorer;
}

/** Returns the agent at a URL as a source of units. It is dialled at the first request. */
export function dialledSource(url: string, { dial, graphId, agent, receive }: FetchUnitsOptions): UnitSource {
  const connection = dialGrpc(url, { ...dial, codecs: BULK_CODECS, windowBytes: WINDOW_BYTES });
  const client = createClient(PeerService, connection);
  const request = async (ids: readonly Buffer[]): Promise<Buffer[]> => {
    const asked = new Set(ids.map(nameOf));
    const open = new Set(asked);
    const joiner = new FrameJoiner();
    let frames = 0;
    const replies = client.fetchUnits(
      { graphId, agent, unitIds: Buffer.concat(ids) },
      { timeoutMs: REQUEST_TIMEOUT_MS },
    );
    for await (const { message } of replies) {
      if (message.case === 'unitsMissing') checkMissing(message.value.unitIds, asked);
      if (message.case !== 'framePart') continue;
      const frame = joiner.add(message.value);
      if (frame === undefined) continue;
      frames += 1;
      // Each frame has a unit of its own.
      if (frames > asked.size) throw invalidReply('there are more frames than units');
      for (const id of await receive(frame.bytes, (one) => asked.has(nameOf(one)))) open.delete(nameOf(id));
    }
    return ids.filter((id) => open.has(nameOf(id)));
  };
  return {
    name: url,
    request: async (ids) => {
      try {
        return await request(ids);
      } catch (error) {
        throw fromConnect(error);
      }
    },
    close: () => connection.close(),
  };
}

function checkMissing(unitIds: Uint8Array, asked: ReadonlySet<string>): void {
  if (unitIds.length % UNIT_ID_BYTES !== 0) throw invalidReply('its ids are cut');
  for (const id of splitUnitIds(unitIds))
    if (!asked.has(nameOf(id))) throw invalidReply('it names units that were not asked for');
}

function nameOf(id: Buffer): string {
  return id.toString('latin1');
}

function invalidReply(state: string): LightkeeperError {
  return new LightkeeperError('PEER_INVALID', `Cannot use a reply with units: ${state}`);
}
