import { warning } from '../../core/finding.ts';
import { CutMethod_Value, type Finding, type Instance } from '../../gen/lightkeeper/v1/types_pb.ts';
import { monotonic, now } from '../../host/clock.ts';
import { type CaptureHooks, runHooks } from '../instance/hooks.ts';
import type { InstanceWatch } from '../instance/instance-watch.ts';
import { InstanceProbe, type InstanceReport, type InstanceSettings } from '../instance/probe.ts';
import { checkStorages, instanceFinding } from '../instance/report.ts';
import { firstDifference, type Scan } from '../watch/scan.ts';
import type { SeenScan } from '../watch/watcher.ts';

/** Most milliseconds that a capture waits for the instance to be idle. */
// After them the capture goes on with the quiet window alone.
const IDLE_WAIT_MS = 30_000;

/** Most milliseconds that a capture without a watch waits for the first response of an instance. */
const FIRST_RESPONSE_MS = 3000;

/** Milliseconds without a change after which a directory is at rest whatever its writer does. */
const REST_MS = 60_000;

/** What can bring a directory to rest for a capture: its instance and its hooks. */
export interface QuiesceSettings {
  readonly graphId: string;
  readonly dir: Uint8Array;
  readonly instance?: InstanceSettings | undefined;
  /** The watch of the instance, if an agent has one. */
  readonly watch?: InstanceWatch | undefined;
  readonly hooks?: CaptureHooks | undefined;
  /** Whether the operator has stated that the instance is stopped. */
  readonly instanceStopped?: boolean | undefined;
  /** The scan of a watcher that led to the capture; undefined without a watcher. */
  readonly seen?: SeenScan | undefined;
  /** Milliseconds after which the capture demands less rest; undefined for the default. */
  readonly patienceMs?: number | undefined;
  readonly settleTimeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** How consistent one cut of a directory is known to be. */
export interface Cut {
  readonly cutMethod: CutMethod_Value;
  /** Whether the directory was known to be at rest at the cut. */
  readonly atRest: boolean;
}

/** Quiesces the instance of a directory for one capture. */
export class Quiesce {
  readonly findings: Finding[] = [];
  /** Time of the monotonic clock at which the wait for rest began, in milliseconds. */
  readonly beganMs = monotonic();
  /** Whether the instance has reported that it is idle. */
  isIdle = false;
  /** Version and settings of the instance; undefined without one, or if it says nothing about this directory. */
  instance: Instance | undefined;
  readonly #settings: QuiesceSettings;
  readonly #probe: InstanceProbe | undefined;
  #paused = false;
  #idleBefore = false;
  /** Whether something responds although the operator has stated that the instance is stopped. */
  #isRunning = false;

  private constructor(settings: QuiesceSettings) {
    this.#settings = settings;
    const { instance, dir } = settings;
    this.#probe = instance === undefined ? undefined : new InstanceProbe(instance, dir);
  }

  /**
   * Queries the instance, waits until it is idle and runs the pre-capture hooks. REFUSED if a part of the graph is
   * stored elsewhere. The caller must call `end` afterwards.
   */
  static async begin(settings: QuiesceSettings): Promise<Quiesce> {
    const quiesce = new Quiesce(settings);
    const { hooks } = settings;
    await quiesce.#waitForInstance();
    if (hooks !== undefined && hooks.preCapture.length > 0) {
      const failure = await quiesce.#run(hooks.preCapture, hooks.timeoutMs);
      if (failure !== undefined) quiesce.findings.push(failure);
      quiesce.#paused = failure === undefined;
    }
    return quiesce;
  }

  async #waitForInstance(): Promise<void> {
    const { instance, watch, instanceStopped, signal } = this.#settings;
    if (instance === undefined || this.#probe === undefined) return;
    const report =
      watch === undefined
        ? await this.#probe.report({ timeoutMs: FIRST_RESPONSE_MS, signal })
        : await watch.current(signal);
    if (report === undefined) return;
    if (instanceStopped === true) this.#checkStopped(report, instance.url);
    const finding = instanceFinding(report, instance);
    // An instance that was stopped does not respond.
    const isExpected = instanceStopped === true && report.kind === 'no-response';
    if (finding !== undefined && !isExpected) this.findings.push(finding);
    if (report.kind !== 'own') return;
    this.instance = report.instance;
    this.findings.push(...checkStorages(report.instance, instance.allowPartial));
    this.isIdle = report.isIdle || (await this.#probe.waitUntilIdle(this.#idleWaitMs(), signal));
  }

  #checkStopped({ kind }: InstanceReport, url: string): void {
    if (kind !== 'own' && kind !== 'key-needed') return;
    this.#isRunning = true;
    this.findings.push(
      warning('instance_running', url, {
        message:
          'the instance responds, although it was stated that it is stopped; the statement was not used',
        hint: 'stop the instance, or leave --instance-stopped out',
      }),
    );
  }

  // Half of the patience is left for the files.
  #idleWaitMs(): number {
    const { patienceMs, settleTimeoutMs } = this.#settings;
    return patienceMs === undefined ? Math.min(IDLE_WAIT_MS, settleTimeoutMs) : patienceMs / 2;
  }

  /** Records whether the instance is idle before the files are read. */
  async beforeRead(): Promise<void> {
    this.#idleBefore = await this.#isIdleNow();
  }

  /** Returns the cut of a directory that was scanned as `scan` before and after it was read. */
  async cut(scan: Scan): Promise<Cut> {
    if (this.#paused) return { cutMethod: CutMethod_Value.PAUSED, atRest: true };
    if (this.#idleBefore && (await this.#isIdleNow()))
      return { cutMethod: CutMethod_Value.IDLE, atRest: true };
    const { instanceStopped, seen } = this.#settings;
    const isStopped = instanceStopped === true && !this.#isRunning;
    const atRest = isStopped || restedMs(scan, seen) >= REST_MS;
    return { cutMethod: CutMethod_Value.SETTLED, atRest };
  }

  async #isIdleNow(): Promise<boolean> {
    if (this.#probe === undefined || this.instance === undefined) return false;
    return (await this.#probe.isIdle({ signal: this.#settings.signal })) === true;
  }

  /** Runs the post-capture hooks. Returns a finding if one fails. */
  async end(): Promise<Finding | undefined> {
    const { hooks } = this.#settings;
    return hooks === undefined ? undefined : await this.#run(hooks.postCapture, hooks.timeoutMs);
  }

  async #run(lines: readonly string[], timeoutMs: number): Promise<Finding | undefined> {
    const { graphId, dir } = this.#settings;
    const env = {
      LIGHTKEEPER_GRAPH: graphId,
      // The raw bytes, as a hook uses it as a path.
      LIGHTKEEPER_DIR: Buffer.from(dir).toString(),
    };
    return await runHooks(lines, { timeoutMs, env });
  }
}

/** Returns the milliseconds for which a directory is known not to have changed. */
// A watcher has seen it, so a wrong clock does not matter. Without one the newest change time decides, and one in the
// future proves nothing.
function restedMs(scan: Scan, seen: SeenScan | undefined): number {
  if (seen === undefined) return now() - Number(scan.newestNs / 1_000_000n);
  const isSame = seen.scan.newestNs === scan.newestNs && firstDifference(seen.scan, scan) === undefined;
  return isSame ? monotonic() - seen.sameSinceMs : 0;
}
