import { create } from '@bufbuild/protobuf';
import { type GetVersionResponse, GetVersionResponseSchema } from '../../gen/lightkeeper/v1/agent_pb.ts';
import { commit, version } from '../../host/version.ts';
import { STORE_FORMAT } from '../pack/format.ts';
import { PROTOCOL_MAX, PROTOCOL_MIN } from '../peer/protocol.ts';

/** Returns the build, and the formats and protocols that it supports. */
export function versionInfo(): GetVersionResponse {
  return create(GetVersionResponseSchema, {
    version,
    commit,
    node: process.version,
    storeFormats: [STORE_FORMAT],
    protocolMin: PROTOCOL_MIN,
    protocolMax: PROTOCOL_MAX,
  });
}
