import { Waiters } from '../../host/waiters.ts';

/** Most changed facts that are remembered for readers that are behind. */
const FACTS_MAX = 10_000;

/** Tells readers of a store that it has changed, and which snapshots have new facts. */
export class StoreChanges {
  #version = 0;
  /** Digests of snapshots with new facts, by the version that brought them, oldest first. */
  readonly #facts: { readonly version: number; readonly digest: Uint8Array }[] = [];
  #forgottenVersion = 0;
  readonly #waiters = new Waiters();

  /** Number of the newest change. */
  get version(): number {
    return this.#version;
  }

  /** Announces a change of the store. */
  announce(): void {
    this.#version += 1;
    this.#waiters.wake();
  }

  /** Records that snapshots have new facts. The next `announce` tells it. */
  addFacts(digests: readonly Uint8Array[]): void {
    for (const digest of digests) this.#facts.push({ version: this.#version + 1, digest });
    for (const old of this.#facts.splice(0, this.#facts.length - FACTS_MAX))
      this.#forgottenVersion = old.version;
  }

  /** Returns the snapshots with new facts since a version; undefined if that is too long ago. */
  factsSince(version: number): Uint8Array[] | undefined {
    if (version < this.#forgottenVersion) return undefined;
    return this.#facts.filter((fact) => fact.version > version).map(({ digest }) => digest);
  }

  /** Resolves at the first change after `version`, or when the signal aborts. */
  async after(version: number, signal: AbortSignal): Promise<void> {
    if (this.#version === version) await this.#waiters.next(signal);
  }
}
