import { CutMethod_Value, type Finding, type Instance } from '../../gen/lightkeeper/v1/types_pb.ts';
import { type CaptureHooks, runHooks } from '../instance/hooks.ts';
import { checkInstance, InstanceProbe, type InstanceSettings, silent } from '../instance/probe.ts';

/** A capture waits so long for the instance to be idle, and then goes on: the quiet window still counts. */
const IDLE_WAIT_MS = 30_000;

/** What may be asked or told beside the directory to find a moment at which it is one state. */
export interface QuiesceSettings {
  readonly graphId: string;
  readonly dir: Uint8Array;
  readonly instance?: InstanceSettings | undefined;
  readonly hooks?: CaptureHooks | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The moment of one capture: what is known of it beside the files themselves. */
export class Quiesce {
  readonly findings: Finding[] = [];
  /** The instance has said that it is idle. */
  isIdle = false;
  /** What the instance said of itself, if there is one and it answered. */
  instance: Instance | undefined;
  readonly #settings: QuiesceSettings;
  readonly #probe: InstanceProbe | undefined;
  #paused = false;
  #idleBefore = false;

  private constructor(settings: QuiesceSettings) {
    this.#settings = settings;
    this.#probe = settings.instance === undefined ? undefined : new InstanceProbe(settings.instance);
  }

  /**
   * Asks the instance what it is, waits until it is idle, runs the pre-capture hooks. REFUSED if a part of the
   * graph is kept elsewhere. Whoever began a moment ends it.
   */
  static async begin(settings: QuiesceSettings): Promise<Quiesce> {
    const moment = new Quiesce(settings);
    const { instance, dir, hooks, signal } = settings;
    if (moment.#probe !== undefined && instance !== undefined) {
      moment.instance = await moment.#probe.describe(signal);
      if (moment.instance === undefined) moment.findings.push(silent(instance));
      else {
        moment.findings.push(...checkInstance(moment.instance, dir, instance.allowPartial));
        moment.isIdle = (await moment.#probe.waitUntilIdle(IDLE_WAIT_MS, signal)) === true;
      }
    }
    if (hooks !== undefined && hooks.preCapture.length > 0) {
      const failure = await moment.#run(hooks.preCapture, hooks.timeoutMs);
      if (failure !== undefined) moment.findings.push(failure);
      moment.#paused = failure === undefined;
    }
    return moment;
  }

  /** To be called before the files are read. */
  async readingBegins(): Promise<void> {
    this.#idleBefore = await this.#idle();
  }

  /** How good the cut is, if nothing has changed while it was read. */
  async cutMethod(): Promise<CutMethod_Value> {
    if (this.#paused) return CutMethod_Value.PAUSED;
    return this.#idleBefore && (await this.#idle()) ? CutMethod_Value.IDLE : CutMethod_Value.SETTLED;
  }

  async #idle(): Promise<boolean> {
    if (this.#probe === undefined || this.instance === undefined) return false;
    return (await this.#probe.idle(this.#settings.signal)) === true;
  }

  /** Runs the post-capture hooks, whatever happened before; answers the finding of one that failed. */
  async end(): Promise<Finding | undefined> {
    const { hooks } = this.#settings;
    return hooks === undefined ? undefined : await this.#run(hooks.postCapture, hooks.timeoutMs);
  }

  async #run(lines: readonly string[], timeoutMs: number): Promise<Finding | undefined> {
    const { graphId, dir } = this.#settings;
    const env = {
      LIGHTKEEPER_GRAPH: graphId,
      // The bytes as they are, not as people read them: it is a path to use.
      LIGHTKEEPER_DIR: Buffer.from(dir).toString(),
    };
    return await runHooks(lines, { timeoutMs, env });
  }
}
