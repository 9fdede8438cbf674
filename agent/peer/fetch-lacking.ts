import { type LightkeeperError, normalise } from '../../core/errors.ts';
import { idOf, type StoredSnapshot } from '../../core/snapshot.ts';
import type { FrameReceiver } from '../store/receive/frame-receiver.ts';
import { fetchSnapshot } from './fetch-snapshot.ts';
import type { UnitSource } from './unit-source.ts';

/** A peer that could not be asked to the end. */
export interface FailedSource {
  readonly name: string;
  readonly error: LightkeeperError;
}

/** What peers sent for snapshots that lacked units. */
export interface FetchedUnits {
  /** Units that arrived. */
  readonly units: number;
  /** Names of the peers that sent some. */
  readonly from: ReadonlySet<string>;
  /** Units that no peer had, by the ids of the snapshots; those of graphs without a peer are left out. */
  readonly missing: ReadonlyMap<string, number>;
  readonly failed: readonly FailedSource[];
}

/** What fetching needs. */
export interface FetchLackingParts {
  readonly receiver: FrameReceiver;
  /** Returns the peers that can be asked for the units of a graph, in order. The caller closes them. */
  readonly sourcesOf: (graphId: string) => readonly UnitSource[];
  readonly signal?: AbortSignal | undefined;
}

/** Fetches every unit that snapshots lack. A peer that fails is not asked again. */
export async function fetchLacking(
  snapshots: readonly StoredSnapshot[],
  parts: FetchLackingParts,
): Promise<FetchedUnits> {
  const fetch = new LackingFetch(parts);
  for (const snapshot of snapshots) {
    parts.signal?.throwIfAborted();
    await fetch.add(snapshot);
  }
  return fetch;
}

class LackingFetch implements FetchedUnits {
  units = 0;
  readonly from = new Set<string>();
  readonly missing = new Map<string, number>();
  readonly failed: FailedSource[] = [];
  readonly #parts: FetchLackingParts;
  readonly #failedSources = new Set<UnitSource>();
  /** List pieces below which nothing is missing, by their ids in latin1. */
  readonly #complete = new Set<string>();

  constructor(parts: FetchLackingParts) {
    this.#parts = parts;
  }

  /** Fetches what one snapshot lacks, level by level: a missing list piece hides what is below it. */
  async add(snapshot: StoredSnapshot): Promise<void> {
    const { receiver, sourcesOf } = this.#parts;
    const sources = sourcesOf(snapshot.manifest.graphId);
    const seen = new Set<string>();
    const missing = await fetchSnapshot(
      {
        has: (id) => receiver.has(id),
        piece: async (id, kind) => {
          seen.add(nameOf(id));
          return await receiver.piece(id, kind);
        },
        isComplete: (id) => this.#complete.has(nameOf(id)),
        request: (ids) => this.#request(ids, sources),
      },
      snapshot.manifest,
    );
    if (missing > 0 && sources.length > 0) this.missing.set(idOf(snapshot), missing);
    if (missing > 0) return;
    for (const name of seen) this.#complete.add(name);
  }

  /** Asks one source after the other for what those before it lack. Returns what all of them lack. */
  async #request(ids: readonly Buffer[], sources: readonly UnitSource[]): Promise<Buffer[]> {
    let open = [...ids];
    for (const source of sources) {
      if (open.length === 0) break;
      if (this.#failedSources.has(source)) continue;
      try {
        const asked = open.length;
        open = await source.request(open);
        this.units += asked - open.length;
        if (open.length < asked) this.from.add(source.name);
      } catch (error) {
        this.#failedSources.add(source);
        this.failed.push({ name: source.name, error: normalise(error) });
        // Some may have arrived.
        const before = open.length;
        open = open.filter((id) => !this.#parts.receiver.has(id));
        this.units += before - open.length;
      }
    }
    return open;
  }
}

function nameOf(id: Uint8Array): string {
  return Buffer.from(id.buffer, id.byteOffset, id.byteLength).toString('latin1');
}
