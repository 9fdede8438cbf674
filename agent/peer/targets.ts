import { LightkeeperError } from '../../core/errors.ts';
import { isWorkspaceOf } from '../../core/graph-id.ts';
import type { GrpcPeer } from '../../host/grpc/server.ts';
import type { TargetSettings } from '../config/settings.ts';

/** A follower that was admitted. */
export interface AdmittedFollower {
  /** Name of its target, or what it calls itself where no target is configured. */
  readonly name: string;
  /** Undefined where no target is configured. */
  readonly target: TargetSettings | undefined;
}

/** How callers are admitted. */
export interface AdmissionRules {
  readonly targets: readonly TargetSettings[];
  /** Whether the listener verifies certificates. */
  readonly hasTls: boolean;
}

const LOOPBACK = /^(?:\[?::1\]?|(?:\[?::ffff:)?127(?:\.\d{1,3}){3}\]?)(?::\d+)?$/;

/** Reports whether a graph is in the scope of a target: it is named, or it is a workspace of a named graph. */
export function isInScope({ graphs }: TargetSettings, graphId: string): boolean {
  return graphs.length === 0 || graphs.some((id) => graphId === id || isWorkspaceOf(graphId, id));
}

/** Admits a caller as a follower of a graph. REFUSED for one that is no target, or whose target lacks the graph. */
// With TLS the certificate is the identity, and the name in the message is not.
export function admitFollower(
  { targets, hasTls }: AdmissionRules,
  { peer, agent, graphId }: { readonly peer: GrpcPeer; readonly agent: string; readonly graphId: string },
): AdmittedFollower {
  const name = hasTls ? peer.certificateName : agent;
  if (name === undefined || name === '') throw refused('follow', graphId, 'it has no name');
  const target = targets.find(({ certificate, name: own }) => (hasTls ? certificate : own) === name);
  if (target !== undefined) {
    if (!isInScope(target, graphId))
      throw refused(name, graphId, 'the graph is not among those of its target');
    return { name: target.name, target };
  }
  // On loopback without certificates every caller is the operator's own.
  if (targets.length === 0 && !hasTls && LOOPBACK.test(peer.address)) return { name, target: undefined };
  throw refused(name, graphId, 'it is none of the targets');
}

function refused(name: string, graphId: string, state: string): LightkeeperError {
  return new LightkeeperError('REFUSED', `Cannot let "${name}" follow "${graphId}": ${state}`, {
    hint: `on the source: lightkeeper targets add ${/^[\w.-]+$/.test(name) ? name : 'NAME'} --graph ${graphId}`,
  });
}
