import { toJson } from '@bufbuild/protobuf';
import { GetVersionResponseSchema } from '../../gen/lightkeeper/v1/agent_pb.ts';
import { type HttpReply, type HttpRoute, jsonReply } from '../../host/http.ts';
import { parseDuration } from '../../host/quantity.ts';
import { version } from '../../host/version.ts';
import { versionInfo } from '../api/version.ts';

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

const EVERY_FIELD = { alwaysEmitImplicit: true };
/** Pages of an agent, for a person who looks at the port. */
const LINKS = ['/readyz', '/healthz', '/health', '/primary', '/standby', '/version', '/metrics'];

function landingPage(): HttpReply {
  const links = LINKS.map((path) => `<li><a href="${path}">${path}</a></li>`).join('');
  const body = `<!doctype html><html lang="en"><title>Lightkeeper agent</title><h1>Lightkeeper agent ${version}</h1><ul>${links}</ul></html>\n`;
  return { status: 200, contentType: 'text/html; charset=utf-8', body };
}

/** Returns the routes of an agent's HTTP port but for its metrics, by path. */
export function probeRoutes({ readiness, health, role }: ProbeSources): Map<string, HttpRoute> {
  const alive: HttpRoute = () => jsonReply(200, { alive: true });
  const ready: HttpRoute = async () => probeReply(await readiness());
  return new Map<string, HttpRoute>([
    ['/liveness', alive],
    ['/healthz', alive],
    ['/readiness', ready],
    ['/readyz', ready],
    ['/version', () => jsonReply(200, toJson(GetVersionResponseSchema, versionInfo(), EVERY_FIELD))],
    ['/', landingPage],
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
