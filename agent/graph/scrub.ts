import { normalise } from '../../core/errors.ts';
import { type ScrubbedPack, scrubCoverage, scrubOrder, scrubWaitMs } from '../../core/scrub-schedule.ts';
import { hex } from '../../core/unit.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { now, waited } from '../../host/clock.ts';
import type { PackReport } from '../pack/verify-pack.ts';
import { graphsOfSnapshots, recordDamage } from '../snapshots/damage.ts';
import type { Store } from '../store/store.ts';
import { isolatePacks } from '../store/upkeep/isolate-packs.ts';
import { recordVerdict } from '../store/upkeep/record-verdict.ts';
import { verifyStore } from '../store/upkeep/verify.ts';
import type { GraphEvents } from './graph.ts';

/** Longest wait before the packs are listed again, in milliseconds. */
const LIST_EVERY_MS = 10 * 60 * 1000;
/** Shortest time between two reads, in milliseconds. */
const READ_EVERY_MS = 20;
/** Wait after a failure, in milliseconds. */
const FAILED_MS = 60 * 1000;

/** The parts of a scrub. */
export interface ScrubParts {
  readonly store: Store;
  /** Time in which every pack is read again, in milliseconds; 0 for never. */
  readonly periodMs: number;
  readonly events: Pick<GraphEvents, 'warned' | 'failed'>;
  /** Graph to which findings belong that concern none. */
  readonly defaultGraphId: () => string;
}

/** Reads the packs of a store again and again, one at a time at low priority, and records what is damaged. */
export class Scrub {
  readonly #parts: ScrubParts;
  #queue: ScrubbedPack[] = [];
  #totalBytes = 0;

  constructor(parts: ScrubParts) {
    this.#parts = parts;
  }

  /** Returns the share of the packs' bytes that was read within the period. */
  async coverage(): Promise<number> {
    const { periodMs } = this.#parts;
    return periodMs === 0 ? 0 : scrubCoverage(await this.#list(), { periodMs, nowMs: now() });
  }

  /** Reads packs until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted && this.#parts.periodMs > 0) {
      try {
        await this.#setAsideLost();
        await this.#readAll(signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#parts.events.failed(this.#parts.defaultGraphId(), normalise(error));
        await waited(FAILED_MS, signal);
      }
    }
  }

  /** Sets packs aside that were found missing or damaged when the store was opened. */
  async #setAsideLost(): Promise<void> {
    const { store } = this.#parts;
    const packIds = store.health.findings
      .filter(({ code }) => code === 'pack_missing' || code === 'pack_damaged')
      .map(({ object }) => object);
    for (const number of store.health.lostPacks()) {
      const record = await store.index.pack(number);
      if (record !== undefined) packIds.push(hex(record.packId));
    }
    if (packIds.length > 0) await this.#setAside([...new Set(packIds)]);
  }

  async #readAll(signal: AbortSignal): Promise<void> {
    const { store, periodMs } = this.#parts;
    while (!signal.aborted) {
      if (this.#queue.length === 0) await this.#fill();
      const next = this.#queue.shift();
      if (next === undefined) {
        await waited(Math.min(periodMs, LIST_EVERY_MS), signal);
        continue;
      }
      const lastMs = (await store.index.local.scrubbedAt()) ?? (await this.#begin());
      const pace = { periodMs, totalBytes: this.#totalBytes, lastMs, nowMs: now() };
      const waitMs = scrubWaitMs(next.bytes, pace);
      if (waitMs > LIST_EVERY_MS) {
        this.#queue = [];
        await waited(LIST_EVERY_MS, signal);
        continue;
      }
      if (await waited(Math.max(READ_EVERY_MS, waitMs), signal)) await this.#read(next.packId);
    }
  }

  /** Records that the scrub of this store begins now. Returns that time. */
  async #begin(): Promise<number> {
    const { index } = this.#parts.store;
    const nowMs = now();
    const batch = index.batch();
    index.local.putScrubbedAt(batch, nowMs);
    await index.write('index:scrub', batch);
    return nowMs;
  }

  async #fill(): Promise<void> {
    const packs = await this.#list();
    this.#queue = scrubOrder(packs);
    this.#totalBytes = packs.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Lists the packs with the times of their last reads. Records those that are new, and forgets those that are gone. */
  async #list(): Promise<ScrubbedPack[]> {
    const { index } = this.#parts.store;
    const times = await index.local.scrubTimes();
    const sinceMs = now();
    const batch = index.batch();
    const found: ScrubbedPack[] = [];
    for await (const [, { packId: id, size }] of index.packs()) {
      const packId = hex(id);
      const time = times.get(packId) ?? { sinceMs, isRead: false };
      if (!times.delete(packId)) index.local.putScrubTime(batch, packId, time);
      found.push({ packId, bytes: Number(size), ...time });
    }
    for (const packId of times.keys()) index.local.removeScrubTime(batch, packId);
    if (batch.length > 0) await index.write('index:scrub', batch);
    return found;
  }

  async #read(packId: string): Promise<void> {
    const { store } = this.#parts;
    const report = await this.#verify(packId);
    if (report === undefined) return;
    const { index } = store;
    const batch = index.batch();
    const nowMs = now();
    index.local.putScrubTime(batch, packId, { sinceMs: nowMs, isRead: true });
    index.local.putScrubbedAt(batch, nowMs);
    await index.write('index:scrub', batch);
    const number = await index.packNumber(Buffer.from(packId, 'hex'));
    const isLost = number !== undefined && store.health.isLost(number);
    if (report.state === 'damaged' || report.state === 'missing' || isLost) await this.#setAside([packId]);
  }

  /** Reads a pack and checks every byte; undefined if it was removed meanwhile. */
  async #verify(packId: string): Promise<PackReport | undefined> {
    const { store } = this.#parts;
    const endRead = store.beginRead();
    try {
      const number = await store.index.packNumber(Buffer.from(packId, 'hex'));
      const record = number === undefined ? undefined : await store.index.pack(number);
      if (record === undefined) return undefined;
      const workers = store.workers.open(Number(record.size), { gentle: true, sequential: true });
      try {
        return await workers.run({ op: 'verify-pack', reference: store.packs.reference(packId), packId });
      } finally {
        await workers.close();
      }
    } finally {
      endRead();
    }
  }

  /** Sets bad packs aside, records which snapshots are damaged by that, and reports both. */
  async #setAside(packIds: readonly string[]): Promise<void> {
    const { store } = this.#parts;
    const isolated = await store.exclusively(() => isolatePacks(store, packIds));
    if (isolated.findings.length === 0) return;
    this.#queue = [];
    const verdict = await verifyStore(store, { bytes: false });
    await recordVerdict(store, verdict);
    await recordDamage(store, { findings: verdict.findings, bytes: false });
    const damaged = verdict.findings.filter(({ code }) => code === 'snapshot_damaged');
    const snapshots = damaged.flatMap((finding) => finding.snapshots);
    const graphs = await graphsOfSnapshots(store, snapshots);
    const concerned = new Set(graphs.values());
    for (const finding of isolated.findings) this.#warn([...concerned], { ...finding, snapshots });
    for (const finding of damaged) this.#warn([graphs.get(finding.object) ?? ''], finding);
  }

  #warn(graphIds: readonly string[], finding: Finding): void {
    const { events, defaultGraphId } = this.#parts;
    for (const graphId of graphIds.length > 0 ? graphIds : [defaultGraphId()])
      events.warned(graphId, finding);
  }
}
