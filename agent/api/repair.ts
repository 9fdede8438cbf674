import { create } from '@bufbuild/protobuf';
import { LightkeeperError } from '../../core/errors.ts';
import { finding } from '../../core/finding.ts';
import type { OnProgress } from '../../core/progress.ts';
import {
  type RepairResult,
  RepairResultSchema,
  type RepairStoreRequest,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { type Finding, Severity_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import type { DialOptions } from '../../host/grpc/transport.ts';
import { fixedTls, loadTls } from '../../host/tls.ts';
import { healStore } from '../graph/heal-store.ts';
import type { HealingPeers } from '../graph/healer.ts';
import { UnitReception } from '../peer/unit-reception.ts';
import type { UnitSource } from '../peer/unit-source.ts';
import { isDamageFinding, recordDamage } from '../snapshots/damage.ts';
import type { Store } from '../store/store.ts';
import { recordVerdict } from '../store/upkeep/record-verdict.ts';
import { countMissing, type Repaired, repairStore } from '../store/upkeep/repair.ts';
import { verifyStore } from '../store/upkeep/verify.ts';

/** The peers that a running agent can ask, and how it dials others. */
export interface RepairPeers extends HealingPeers {
  readonly dial: DialOptions;
  /** Name of this agent. */
  readonly agent: string;
}

/** What a repair works with. */
export interface RepairParts {
  readonly store: Store;
  /** Undefined where no agent runs. */
  readonly peers: RepairPeers | undefined;
  readonly onProgress: OnProgress;
  readonly signal: AbortSignal;
}

/** Name by which an agent of a process without settings asks its peers. */
const NAMELESS = 'lightkeeper';

/** Repairs a store. With `from` it then fetches from that peer what snapshots still lack. */
export async function repair(request: RepairStoreRequest, parts: RepairParts): Promise<RepairResult> {
  const { dryRun } = request;
  if (request.from === '')
    return create(RepairResultSchema, { ...(await repairAlone(dryRun, parts)), dryRun });
  const peer = await preparedPeer(request, parts);
  // The healer of an agent waits meanwhile: it would ask other peers for the same units.
  const result = await peer.reception.alone(async () => {
    const repaired = await repairAlone(dryRun, parts);
    if (!dryRun) return await healed(repaired, peer, parts);
    return { ...repaired, findings: [...repaired.findings, ...wouldFetch(repaired.findings, request.from)] };
  });
  return create(RepairResultSchema, { ...result, dryRun });
}

async function repairAlone(dryRun: boolean, { store, onProgress }: RepairParts): Promise<Repaired> {
  const repaired = await store.exclusively(() => repairStore(store, { dryRun, onProgress }));
  // A repair hashes every pack before it looks for units.
  if (!dryRun) await recordDamage(store, { findings: repaired.findings, bytes: true });
  return repaired;
}

/** Fetches what snapshots lack after a repair, verifies the store again, and returns both as one result. */
async function healed(
  repaired: Repaired,
  { reception, openSources }: PreparedPeer,
  { store, onProgress, signal }: RepairParts,
): Promise<Repaired> {
  const { units, findings } = await healStore({
    store,
    reception,
    openSources,
    onProgress,
    signal,
    isChecked: true,
  });
  const verdict = await verifyStore(store, { bytes: false });
  await recordVerdict(store, verdict);
  return {
    ...repaired,
    healed: repaired.healed + units,
    unhealed: countMissing(verdict.findings),
    findings: [
      ...repaired.findings.filter((one) => !isDamageFinding(one)),
      ...verdict.findings,
      ...findings.filter((one) => !isDamageFinding(one)),
    ],
  };
}

function wouldFetch(findings: readonly Finding[], from: string): Finding[] {
  return findings
    .filter(({ code }) => code === 'snapshot_damaged')
    .map(({ object, count }) =>
      finding('would_fetch', Severity_Value.INFO, object, {
        message: `${from} would be asked for at least ${count} units of this snapshot`,
        count,
        snapshots: [object],
      }),
    );
}

/** A peer to be asked, which was found to be there. */
interface PreparedPeer {
  readonly reception: UnitReception;
  readonly openSources: (graphId: string) => readonly UnitSource[];
}

/** Finds the peer of a request, and asks one at a URL whether it serves this store's graphs. */
async function preparedPeer(request: RepairStoreRequest, parts: RepairParts): Promise<PreparedPeer> {
  const { from } = request;
  const { store, peers } = parts;
  const graphs = await store.index.graphs();
  const reception = peers?.reception ?? new UnitReception(store);
  if (/^https?:\/\//i.test(from)) {
    const dial = await dialOptions(request, peers);
    const agent = peers?.agent ?? NAMELESS;
    const { receive } = reception;
    // gRPC is loaded only here: no other call of a command that opens its own store needs it.
    const { dialledSource } = await import('../peer/fetch-units.ts');
    const openSources = (graphId: string) => [dialledSource(from, { dial, graphId, agent, receive })];
    // A peer that cannot be reached, or refuses, must not be found out after an hour of reading.
    for (const source of graphs.slice(0, 1).flatMap(openSources)) {
      try {
        await source.request([]);
      } finally {
        source.close();
      }
    }
    return { reception, openSources };
  }
  const named = (graphId: string) =>
    (peers?.peersOf(graphId) ?? []).filter(({ name, isSource }) =>
      from === 'source' ? isSource : name === from,
    );
  if (!graphs.some((graphId) => named(graphId).length > 0)) throw unknownPeer(from, peers !== undefined);
  return { reception, openSources: (graphId) => named(graphId).map((peer) => peer.open()) };
}

async function dialOptions(
  { tlsCert: cert, tlsKey: key, tlsCa: ca }: RepairStoreRequest,
  peers: RepairPeers | undefined,
): Promise<DialOptions> {
  if (cert + key + ca === '') return peers?.dial ?? {};
  if (cert === '' || key === '' || ca === '') {
    throw new LightkeeperError(
      'INVALID_ARGUMENT',
      'Cannot repair from a peer: the certificate is incomplete',
      {
        hint: 'give --cert, --key and --ca',
      },
    );
  }
  return { tls: fixedTls(await loadTls({ cert, key, ca })) };
}

function unknownPeer(from: string, hasAgent: boolean): LightkeeperError {
  const state = hasAgent ? 'no peer of that name is connected' : 'no agent runs on this store';
  return new LightkeeperError('NOT_FOUND', `Cannot repair from "${from}": ${state}`, {
    hint: 'name the URL of an agent that holds the graph, like http://host:9702; see the names of peers with lightkeeper status',
  });
}
