import { normalise } from '../../core/errors.ts';
import { snapshotIdOf } from '../../core/manifest.ts';
import { idOf, isDamaged, isStored, type StoredSnapshot } from '../../core/snapshot.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { monotonic, waited } from '../../host/clock.ts';
import type { UnitReception } from '../peer/unit-reception.ts';
import type { UnitPeer } from '../peer/unit-source.ts';
import { damagedSnapshots } from '../snapshots/damage.ts';
import type { Store } from '../store/store.ts';
import type { GraphEvents } from './graph.ts';
import { type HealedStore, healStore } from './heal-store.ts';

/** Time after which the same is tried again, in milliseconds; it doubles while that is in vain. */
const RETRY_MS = 10 * 60 * 1000;
const RETRY_LONGEST_MS = 6 * 60 * 60 * 1000;
/** The same after a peer could not be asked to the end. */
const RETRY_FAILED_MS = 30 * 1000;
/** Time between two looks at the peers while there is damage, in milliseconds. */
const PEERS_EVERY_MS = 1000;
/** Time that damage waits for more of it to be found, in milliseconds. */
const GATHER_MS = 200;

/** The peers of an agent, as healing sees them. */
export interface HealingPeers {
  readonly reception: UnitReception;
  /** Returns the peers that can be asked for the units of a graph now. */
  readonly peersOf: (graphId: string) => readonly UnitPeer[];
}

/** The parts of a healer. */
export interface HealerParts {
  readonly store: Store;
  readonly peers: HealingPeers;
  readonly events: Pick<GraphEvents, 'healed' | 'warned' | 'failed'>;
}

/** Heals damaged snapshots until the signal: at the start, and whenever damage or a peer is new. */
// Whoever finds damage records it, which is a change of the store.
export async function runHealer(parts: HealerParts, signal: AbortSignal): Promise<void> {
  await new Healer(parts, signal).run();
}

class Healer {
  readonly #parts: HealerParts;
  readonly #signal: AbortSignal;
  #damaged: readonly StoredSnapshot[] = [];
  /** Change of the store up to which `#damaged` is known. */
  #version = 0;
  /** Snapshots and peers that were tried with each other, and when all are tried again. */
  readonly #tried = new Set<string>();
  #againMs = Number.POSITIVE_INFINITY;
  /** Attempts since one that helped. */
  #inVain = 0;
  /** Findings that were reported, so that each is reported once. */
  readonly #reported = new Set<string>();

  constructor(parts: HealerParts, signal: AbortSignal) {
    this.#parts = parts;
    this.#signal = signal;
  }

  async run(): Promise<void> {
    while (!this.#signal.aborted) {
      try {
        await this.#list();
        await this.#healAll();
      } catch (error) {
        if (this.#signal.aborted) return;
        this.#parts.events.failed(this.#damaged[0]?.manifest.graphId ?? '', normalise(error));
        await waited(RETRY_FAILED_MS, this.#signal);
      }
    }
  }

  async #healAll(): Promise<void> {
    while (!this.#signal.aborted) {
      if (monotonic() >= this.#againMs) this.#tried.clear();
      const pairs = this.#pairs();
      if (pairs.some((pair) => !this.#tried.has(pair))) await this.#attempt(pairs);
      await this.#changed();
    }
  }

  async #list(): Promise<void> {
    this.#version = this.#parts.store.changes.version;
    this.#damaged = await damagedSnapshots(this.#parts.store);
  }

  /** Returns each damaged snapshot with no peer, and with each one that can be asked for its units now. */
  // Without a peer a bad pack is still found and set aside, and later captures may store its units again.
  #pairs(): string[] {
    const { peers } = this.#parts;
    return this.#damaged.flatMap((snapshot) => [
      idOf(snapshot),
      ...peers.peersOf(snapshot.manifest.graphId).map(({ name }) => `${idOf(snapshot)} ${name}`),
    ]);
  }

  async #attempt(pairs: readonly string[]): Promise<void> {
    const { store, peers, events } = this.#parts;
    let retryMs = Math.min(RETRY_LONGEST_MS, RETRY_MS * 2 ** this.#inVain);
    this.#inVain += 1;
    try {
      const { reception } = peers;
      const openSources = (graphId: string) => peers.peersOf(graphId).map((peer) => peer.open());
      const signal = this.#signal;
      const healed = await reception.alone(() => healStore({ store, reception, openSources, signal }));
      this.#report(healed);
      if (healed.whole.length > 0) this.#inVain = 0;
      if (healed.failed.some(({ error }) => error.code !== 'PEER_INVALID')) retryMs = RETRY_FAILED_MS;
    } catch (error) {
      if (this.#signal.aborted) return;
      retryMs = RETRY_FAILED_MS;
      events.failed(this.#damaged[0]?.manifest.graphId ?? '', normalise(error));
    }
    for (const pair of pairs) this.#tried.add(pair);
    this.#againMs = monotonic() + retryMs;
    await this.#list();
    if (this.#damaged.length === 0) this.#reported.clear();
  }

  #report({ whole, units, from, left, findings }: HealedStore): void {
    const { events } = this.#parts;
    const byGraph = new Map<string, string[]>();
    for (const snapshot of whole) {
      const { graphId } = snapshot.manifest;
      byGraph.set(graphId, [...(byGraph.get(graphId) ?? []), idOf(snapshot)]);
    }
    for (const [graphId, snapshotIds] of byGraph) events.healed(graphId, { snapshotIds, units, from });
    const graphOf = new Map(left.map((snapshot) => [idOf(snapshot), snapshot.manifest.graphId]));
    const [first = ''] = [...graphOf.values(), ...byGraph.keys()];
    for (const one of findings) {
      const name = textOf(one);
      if (this.#reported.has(name)) continue;
      this.#reported.add(name);
      events.warned(graphOf.get(one.snapshots[0] ?? '') ?? first, one);
    }
  }

  /** Resolves when damage may be new, or after a while where there is some and peers may be. */
  async #changed(): Promise<void> {
    const { store } = this.#parts;
    while (!this.#signal.aborted) {
      const ended = new AbortController();
      const signal = AbortSignal.any([this.#signal, ended.signal]);
      const change = store.changes.after(this.#version, signal);
      const late = this.#damaged.length === 0 ? [] : [waited(PEERS_EVERY_MS, signal)];
      await Promise.race([change, ...late]);
      ended.abort();
      if (store.changes.version === this.#version) return;
      const isNew = await this.#isNewDamage();
      if (!isNew) {
        if (this.#damaged.length > 0) return;
        continue;
      }
      await waited(GATHER_MS, this.#signal);
      await this.#list();
      return;
    }
  }

  /** Reports whether the damage of any snapshot may have changed, and goes on to the present version. */
  async #isNewDamage(): Promise<boolean> {
    const { store } = this.#parts;
    const since = this.#version;
    this.#version = store.changes.version;
    const digests = store.changes.factsSince(since);
    if (digests === undefined) return true;
    const known = new Set(this.#damaged.map(idOf));
    for (const digest of digests) {
      const state = (await store.index.find(digest))?.state;
      const isNow = state !== undefined && isStored(state) && isDamaged(state);
      if (isNow !== known.has(snapshotIdOf(digest))) return true;
    }
    return false;
  }
}

function textOf({ code, object, message }: Finding): string {
  return `${code} ${object} ${message}`;
}
