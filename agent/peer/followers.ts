import { LightkeeperError } from '../../core/errors.ts';
import type { HeldPosition } from '../../core/following/schedule.ts';
import { RateMeter } from '../../core/rate.ts';
import { monotonic } from '../../host/clock.ts';
import { Waiters } from '../../host/waiters.ts';
import type { TargetSettings } from '../config/settings.ts';
import type { Holdings } from './holdings.ts';

/** One follower of one graph, connected or not. */
export interface Follower {
  readonly name: string;
  readonly graphId: string;
  readonly target: TargetSettings | undefined;
  readonly address: string;
  /** Store of the follower, in hex. */
  readonly storeId: string;
  readonly version: string;
  isConnected: boolean;
  /** Newest snapshot that it acknowledged. */
  held: HeldPosition | undefined;
  /** Monotonic time of its last acknowledgement, in milliseconds; undefined before the first. */
  acknowledgedMs: number | undefined;
  /** Bytes of frames that were sent to it. */
  sentBytes: number;
  lastError: string;
  /** Asks it for units; undefined while it is not connected. */
  requestUnits: ((ids: readonly Buffer[]) => Promise<Buffer[]>) | undefined;
  /** Asks it what it holds; undefined while it is not connected. */
  requestHoldings: (() => Promise<Holdings>) | undefined;
  /** Ends its stream with an error; undefined while it is not connected. */
  end: ((error: LightkeeperError) => void) | undefined;
}

/** Most streams of one graph at once: of one name, and of all callers without a target. */
// Each holds frames until they are read, also after it was ended.
const STREAMS_OF_NAME_MAX = 4;
const STREAMS_WITHOUT_TARGET_MAX = 12;
/** Most followers without a target that are remembered after they have left. */
const LEFT_MAX = 100;

/** The followers of all graphs of an agent. */
export class Followers {
  readonly #followers = new Map<string, Follower>();
  readonly #rates = new Map<string, RateMeter>();
  readonly #waiters = new Waiters();
  readonly #connected = new Set<Follower>();
  readonly #onAcknowledged: (follower: Follower) => void;

  /** `onAcknowledged` receives every follower that has acknowledged a snapshot. */
  constructor(onAcknowledged: (follower: Follower) => void = () => {}) {
    this.#onAcknowledged = onAcknowledged;
  }

  /** Adds a follower of an earlier run, which is not connected. */
  remember({
    name,
    graphId,
    storeId,
    target,
    held,
  }: Pick<Follower, 'name' | 'graphId' | 'storeId' | 'target' | 'held'>): void {
    const nothing = { requestUnits: undefined, requestHoldings: undefined, end: undefined };
    const about = {
      address: '',
      version: '',
      acknowledgedMs: undefined,
      sentBytes: 0,
      lastError: '',
    };
    const follower = { name, graphId, storeId, target, held, isConnected: false, ...about, ...nothing };
    this.#followers.set(keyOf(follower), follower);
  }

  /**
   * Adds a follower that connects, in place of its earlier entry, and returns it. Ends an earlier stream of the same
   * store. REFUSED if there are too many streams.
   */
  connect(follower: Omit<Follower, 'isConnected' | 'sentBytes' | 'lastError'>): Follower {
    this.#makeRoom(follower);
    const known = this.#followers.get(keyOf(follower));
    // Another store under the same name holds nothing yet.
    const before = known?.storeId === follower.storeId ? known : undefined;
    const connected = {
      ...follower,
      isConnected: true,
      held: follower.held ?? before?.held,
      sentBytes: before?.sentBytes ?? 0,
      lastError: '',
    };
    this.#followers.set(keyOf(follower), connected);
    this.#connected.add(connected);
    this.announce();
    return connected;
  }

  #makeRoom({
    graphId,
    name,
    storeId,
    target,
  }: Pick<Follower, 'graphId' | 'name' | 'storeId' | 'target'>): void {
    const ofGraph = [...this.#connected].filter((other) => other.graphId === graphId);
    const ofName = ofGraph.filter((other) => other.name === name);
    const untargeted = ofGraph.filter((other) => other.target === undefined);
    if (
      ofName.length >= STREAMS_OF_NAME_MAX ||
      (target === undefined && untargeted.length >= STREAMS_WITHOUT_TARGET_MAX)
    )
      throw streamRefused(name, 'there are too many already');
    // It has dialled again before this side has noticed that it was gone.
    for (const one of ofName)
      if (one.storeId === storeId) one.end?.(streamRefused(name, 'its store has opened another one'));
  }

  /** Marks a follower as gone, unless it has connected again. */
  disconnect(follower: Follower, reason: string): void {
    follower.isConnected = false;
    follower.requestUnits = undefined;
    follower.requestHoldings = undefined;
    follower.end = undefined;
    follower.lastError = reason;
    this.#connected.delete(follower);
    this.#forgetLeft();
    this.announce();
  }

  #forgetLeft(): void {
    const left = [...this.#followers.values()].filter(
      ({ isConnected, target }) => !isConnected && target === undefined,
    );
    for (const one of left.slice(0, -LEFT_MAX)) {
      this.#followers.delete(keyOf(one));
      this.#rates.delete(keyOf(one));
    }
  }

  /** Records frames as sent to a follower. */
  sent(follower: Follower, bytes: number): void {
    follower.sentBytes += bytes;
    const meter = this.#rates.get(keyOf(follower)) ?? new RateMeter();
    this.#rates.set(keyOf(follower), meter);
    meter.add(bytes, monotonic());
  }

  /** Returns the bytes per second that were sent to a follower in the last seconds. */
  throughput(follower: Follower): number {
    return this.#rates.get(keyOf(follower))?.bytesPerSecond(monotonic()) ?? 0;
  }

  /** Records what a follower holds. */
  acknowledge(follower: Follower, held: HeldPosition): void {
    follower.held = held;
    follower.acknowledgedMs = monotonic();
    this.#onAcknowledged(follower);
    this.announce();
  }

  /** Returns the followers of a graph, or of all graphs. */
  list(graphId?: string): Follower[] {
    const all = [...this.#followers.values()];
    return graphId === undefined ? all : all.filter((follower) => follower.graphId === graphId);
  }

  /** Forgets the followers of a target that was removed, and ends their streams. */
  remove(name: string, error: LightkeeperError): void {
    for (const [key, follower] of this.#followers) {
      if (follower.name !== name) continue;
      this.#followers.delete(key);
      this.#rates.delete(key);
      follower.end?.(error);
    }
    this.announce();
  }

  /** Wakes those who wait for a change. */
  announce(): void {
    this.#waiters.wake();
  }

  /** Resolves at the next change of any follower, or when the signal aborts. */
  async changed(signal: AbortSignal): Promise<void> {
    await this.#waiters.next(signal);
  }
}

function keyOf({ graphId, name }: Pick<Follower, 'graphId' | 'name'>): string {
  return `${graphId}\n${name}`;
}

function streamRefused(name: string, state: string): LightkeeperError {
  return new LightkeeperError('REFUSED', `Cannot serve a stream of follower "${name}": ${state}`, {
    hint: 'give each agent a name and a store of its own',
  });
}
