import { type HttpReply, type HttpRoute, jsonReply } from '../../host/http.ts';

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
  /** Returns whether this agent has the role for a graph; undefined is all graphs that it guards. */
  readonly role: (role: 'primary' | 'standby', graphId: string | undefined) => ProbeResult;
}

/** Returns the routes of an agent's probes, by path. */
export function probeRoutes({ readiness, health, role }: ProbeSources): Map<string, HttpRoute> {
  return new Map<string, HttpRoute>([
    ['/liveness', () => jsonReply(200, { alive: true })],
    ['/readiness', async () => probeReply(await readiness())],
    ['/health', async () => probeReply(await health())],
    ['/primary', (query) => probeReply(role('primary', query.get('graph') ?? undefined))],
    ['/standby', (query) => probeReply(role('standby', query.get('graph') ?? undefined))],
  ]);
}

function probeReply({ ok, body }: ProbeResult): HttpReply {
  return jsonReply(ok ? 200 : 503, body);
}
