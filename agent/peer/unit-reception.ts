import { normalise } from '../../core/errors.ts';
import { FrameReceiver, type ReceiverOptions } from '../store/receive/frame-receiver.ts';
import type { Store } from '../store/store.ts';

/** Reports whether a unit was asked for. */
export type UnitFilter = (id: Buffer) => boolean;

/** Stores a frame that a peer sent. Resolves with the ids of its units; none if nothing waits for them. */
export type FrameStorer = (frame: Buffer, wanted: UnitFilter) => Promise<readonly Buffer[]>;

/** Stores the units that this agent asks its peers for. */
export class UnitReception {
  readonly #store: Store;
  readonly #options: ReceiverOptions;
  #receiver: FrameReceiver | undefined;
  #running: Promise<unknown> = Promise.resolve();

  constructor(store: Store, options: ReceiverOptions = {}) {
    this.#store = store;
    this.#options = options;
  }

  /** Runs one repair or healing at a time, in the order of the calls. */
  async alone<T>(run: () => Promise<T>): Promise<T> {
    const running = this.#running.then(run);
    // The next call waits for this one even if it fails; the caller receives the error.
    this.#running = running.catch(() => {});
    return await running;
  }

  /** Runs `use` with a receiver. Frames are stored meanwhile, and ignored at other times. To be called in `alone`. */
  async during<T>(use: (receiver: FrameReceiver) => Promise<T>): Promise<T> {
    const receiver = await FrameReceiver.open(this.#store, this.#options);
    this.#receiver = receiver;
    try {
      return await use(receiver);
    } finally {
      this.#receiver = undefined;
      await receiver.close();
    }
  }

  /** Checks a frame and stores it. PEER_INVALID if it breaks a rule, has no wanted unit or does not hash to its ids. */
  readonly receive: FrameStorer = async (frame, wanted) => {
    const receiver = this.#receiver;
    if (receiver === undefined) return [];
    try {
      return (await receiver.receive(frame, wanted)).ids;
    } catch (error) {
      // The call that asked for it has ended meanwhile.
      if (receiver !== this.#receiver && normalise(error).code === 'CANCELLED') return [];
      throw error;
    }
  };
}
