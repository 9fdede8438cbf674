import { type HealedSnapshots, readSettings, runAgent } from '../agent/main.ts';
import { LightkeeperError } from '../core/errors.ts';
import type { Snapshot } from '../gen/lightkeeper/v1/agent_pb.ts';

/** Milliseconds within which a settled change must become a snapshot. */
const WAIT_MS = 20_000;

/** Collects the snapshots of an agent and waits for the next one. */
export class SnapshotLog {
  readonly all: Snapshot[] = [];
  #wake: () => void = () => {};

  add(snapshot: Snapshot): void {
    this.all.push(snapshot);
    this.#wake();
  }

  /** Waits until there are so many snapshots. */
  async atLeast(count: number): Promise<void> {
    await this.#when(() => this.all.length >= count);
  }

  /** Waits for a snapshot after the first `seen` that satisfies `fits`. */
  async until(seen: number, fits: (snapshot: Snapshot) => boolean): Promise<void> {
    await this.#when(() => this.all.slice(seen).some(fits));
  }

  async #when(holds: () => boolean): Promise<void> {
    const deadline = AbortSignal.timeout(WAIT_MS);
    while (!holds()) {
      await Promise.race([new Promise<void>((resolve) => (this.#wake = resolve)), aborted(deadline)]);
    }
  }
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener('abort', () =>
      reject(
        new LightkeeperError('DEADLINE', 'Cannot run the demo: what it waits for did not happen in time'),
      ),
    );
  });
}

/** An agent of the demo, in this process. */
export class DemoAgent {
  readonly log = new SnapshotLog();
  readonly #healed: Promise<HealedSnapshots>;
  #heal: (healed: HealedSnapshots) => void = () => {};
  /** URL for calls of other agents. */
  url = '';
  readonly #stop = new AbortController();
  #failure: LightkeeperError | undefined;
  #running: Promise<void> = Promise.resolve();

  private constructor() {
    this.#healed = new Promise((resolve) => {
      this.#heal = resolve;
    });
  }

  /** Starts an agent with these flags, and waits until it serves. */
  static async start(flags: Readonly<Record<string, string>>): Promise<DemoAgent> {
    const agent = new DemoAgent();
    const common = { '--http': '127.0.0.1:0', '--grpc': '127.0.0.1:0', '--disk-reserve': '0' };
    const { settings, error } = await readSettings({ flags: { ...common, ...flags }, env: {} });
    if (settings === undefined) throw error;
    await new Promise<void>((serving, failed) => {
      agent.#running = runAgent(
        settings,
        {
          started: ({ grpc }) => {
            agent.url = grpc ?? '';
            serving();
          },
          guarding: () => {},
          snapshot: (snapshot) => agent.log.add(snapshot),
          pruned: () => {},
          waiting: () => {},
          warned: () => {},
          instance: () => {},
          certificate: () => {},
          settled: () => {},
          healed: (graphId, healed) => {
            if (graphId === flags['--graph']) agent.#heal(healed);
          },
          failed: (_, failure) => {
            agent.#failure = failure;
          },
        },
        agent.#stop.signal,
      );
      agent.#running.catch(failed);
    });
    return agent;
  }

  /** Waits until damaged snapshots of its graph are whole again. */
  async untilHealed(): Promise<HealedSnapshots> {
    return await Promise.race([this.#healed, aborted(AbortSignal.timeout(WAIT_MS))]);
  }

  /** Ends the agent. Rejects if it has failed. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
    if (this.#failure !== undefined) throw this.#failure;
  }
}
