import { type HttpReply, type HttpRoute, jsonReply } from '../../host/http.ts';
import { parseDuration } from '../../host/quantity.ts';

/** Result of a probe. */
export interface ProbeResult {
  /** True is 200, false is 503. */
  readonly ok: boolean;
  readonly body: unknown;
}

/** What the probes of an agent ask. */
export interface ProbeSources {
  readonly readiness: () => Promise<ProbeResult>;
  readonly health: () => Promise<ProbeResult>;
  /** Returns whether this agent has a role. */
  readonly role: (query: RoleQuery) => Promise<ProbeResult>;
}

/** A question for a role. */
export interface RoleQuery {
  readonly role: 'primary' | 'standby';
  /** Undefined is all graphs of the agent. */
  readonly graphId: string | undefined;
  /** How far a standby may be behind: a number of snapshots, or a time such as 10s; undefined is any distance. */
  readonly lag: string | undefined;
}

/** How far a standby is behind. */
interface StandbyLag {
  readonly snapshots: number;
  readonly ms: number;
}

/** Reports whether a standby is within a lag. One that does not know its lag is within none. */
export function isWithinLag(lag: StandbyLag | undefined, limit: string | undefined): boolean {
  if (limit === undefined) return true;
  if (lag === undefined) return false;
  return /^\d+$/.test(limit) ? lag.snapshots <= Number(limit) : lag.ms <= parseDuration(limit);
}

/** Returns the routes of an agent's probes, by path. */
export function probeRoutes({ readiness, health, role }: ProbeSources): Map<string, HttpRoute> {
  return new Map<string, HttpRoute>([
    ['/liveness', () => jsonReply(200, { alive: true })],
    ['/readiness', async () => probeReply(await readiness())],
    ['/health', async () => probeReply(await health())],
    ['/primary', async (query) => probeReply(await role(roleQuery('primary', query)))],
    ['/standby', async (query) => probeReply(await role(roleQuery('standby', query)))],
  ]);
}

function roleQuery(role: RoleQuery['role'], query: URLSearchParams): RoleQuery {
  return { role, graphId: query.get('graph') ?? undefined, lag: query.get('lag') ?? undefined };
}

function probeReply({ ok, body }: ProbeResult): HttpReply {
  return jsonReply(ok ? 200 : 503, body);
}
