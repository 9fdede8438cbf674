import type { ReceivedPacks } from './received-packs.ts';

/** What a store knows of the packs that were received from peers and that no snapshot refers to yet. */
export class Reception {
  /** Number of reservations of each pack, by its name. */
  readonly #reserved = new Map<string, number>();
  /** Packs of closed receivers, with which the next receiver goes on. */
  readonly #parked: ReceivedPacks[] = [];
  #adopted: string[] = [];

  /** Prevents a pack from being removed or rewritten. */
  reserve(packId: string): void {
    this.#reserved.set(packId, (this.#reserved.get(packId) ?? 0) + 1);
  }

  /** Ends one reservation of a pack. */
  free(packId: string): void {
    const count = this.#reserved.get(packId) ?? 0;
    if (count > 1) this.#reserved.set(packId, count - 1);
    else this.#reserved.delete(packId);
  }

  /** Reports whether a pack must be neither removed nor rewritten. */
  isReserved(packId: string): boolean {
    return this.#reserved.has(packId);
  }

  /** Reserves packs that an earlier process received, for the first receiver of this one. */
  adopt(packIds: readonly string[]): void {
    for (const packId of packIds) this.reserve(packId);
    this.#adopted.push(...packIds);
  }

  /** Returns the packs that an earlier process received. The caller ends their reservations. */
  takeAdopted(): string[] {
    const adopted = this.#adopted;
    this.#adopted = [];
    return adopted;
  }

  /** Leaves the unpublished packs of a receiver to the next one. */
  park(packs: ReceivedPacks): void {
    this.#parked.push(packs);
  }

  /** Returns unpublished packs of a receiver that was closed; undefined if there are none. */
  unpark(): ReceivedPacks | undefined {
    return this.#parked.pop();
  }

  /** Leaves the unpublished packs to the next owner of the store. Never rejects. */
  async release(): Promise<void> {
    for (const packs of this.#parked.splice(0)) await packs.release();
  }
}
