import { LightkeeperError } from '../../core/errors.ts';
import { splitUnitIds, UNIT_ID_BYTES } from '../../core/unit.ts';

/** Most units of one request. */
export const REQUEST_UNITS_MAX = 4096;
/** Most frames of a stream that are ignored because their units came with others. */
const SUPERFLUOUS_MAX = 64;

interface OpenRequest {
  /** Ids that have not arrived, in latin1. */
  readonly open: Set<string>;
  readonly missing: Buffer[];
  readonly settle: (missing: Buffer[]) => void;
  readonly reject: (error: unknown) => void;
}

/** The units that were asked for on one stream and have not arrived yet. */
export class UnitRequests {
  readonly #send: (wantId: bigint, ids: Buffer) => Promise<void>;
  readonly #requests = new Map<bigint, OpenRequest>();
  /** Requests that wait for a unit, by its id in latin1. */
  readonly #waiting = new Map<string, Set<bigint>>();
  #lastId = 0n;
  #superfluous = 0;
  #failure: { readonly error: unknown } | undefined;

  /** `send` sends a request. */
  constructor(send: (wantId: bigint, ids: Buffer) => Promise<void>) {
    this.#send = send;
  }

  /** Asks for units, at most 4,096. Resolves with those that the other side lacks, once all others have arrived. */
  async request(ids: readonly Buffer[]): Promise<Buffer[]> {
    if (ids.length === 0) return [];
    if (this.#failure !== undefined) throw this.#failure.error;
    this.#lastId += 1n;
    const wantId = this.#lastId;
    const arrived = new Promise<Buffer[]>((settle, reject) => {
      const open = new Set(ids.map((id) => id.toString('latin1')));
      this.#requests.set(wantId, { open, missing: [], settle, reject });
      for (const name of open) {
        const wants = this.#waiting.get(name);
        if (wants === undefined) this.#waiting.set(name, new Set([wantId]));
        else wants.add(wantId);
      }
    });
    // The caller gets the error from `arrived`, whichever fails first.
    this.#send(wantId, Buffer.concat(ids)).catch((error: unknown) =>
      this.#requests.get(wantId)?.reject(error),
    );
    return await arrived;
  }

  /** Number of requests that are not answered in full. */
  get open(): number {
    return this.#requests.size;
  }

  /** Reports whether a unit is waited for. */
  isWanted(id: Buffer): boolean {
    return this.#waiting.has(id.toString('latin1'));
  }

  /** Checks a frame by the request that it answers. Returns whether it is needed. PEER_INVALID if none asked for it. */
  admit(wantId: bigint): boolean {
    if (wantId < 1n || wantId > this.#lastId) throw unasked(`there is no request ${wantId}`);
    if (this.#requests.has(wantId)) return true;
    // Its units have come with the frames of another request.
    this.#superfluous += 1;
    if (this.#superfluous > SUPERFLUOUS_MAX) throw unasked('its units have arrived before');
    return false;
  }

  /** Records units as arrived. */
  arrived(ids: readonly Buffer[]): void {
    for (const id of ids) this.#settle(id, false);
  }

  /** Records that the other side lacks units of a request. PEER_INVALID for ids that were not asked for. */
  missing(wantId: bigint, ids: Uint8Array): void {
    if (ids.length % UNIT_ID_BYTES !== 0) throw unasked('its ids are cut');
    if (!this.admit(wantId)) return;
    // A view would hold the whole message.
    for (const id of splitUnitIds(ids)) this.#settle(Buffer.from(id), true);
  }

  #settle(id: Buffer, isMissing: boolean): void {
    const name = id.toString('latin1');
    const wants = this.#waiting.get(name);
    this.#waiting.delete(name);
    for (const wantId of wants ?? []) {
      const request = this.#requests.get(wantId);
      if (request === undefined) continue;
      request.open.delete(name);
      if (isMissing) request.missing.push(id);
      if (request.open.size > 0) continue;
      this.#requests.delete(wantId);
      request.settle(request.missing);
    }
  }

  /** Rejects all requests, and every later one. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    for (const { reject } of this.#requests.values()) reject(error);
    this.#requests.clear();
    this.#waiting.clear();
  }
}

function unasked(state: string): LightkeeperError {
  return new LightkeeperError('PEER_INVALID', `Cannot use a frame that was not asked for: ${state}`);
}
