import { setTimeout as sleep } from 'node:timers/promises';
import { waited } from '../../host/clock.ts';
import { InstanceProbe, type InstanceReport, type InstanceSettings, RESPONSE_TIMEOUT_MS } from './probe.ts';
import { type InstanceLine, instanceLine } from './report.ts';

/** Times of a watch, in milliseconds. */
export interface WatchTimes {
  /** Time between two reports. */
  readonly everyMs: number;
  /** Time limit of a request. */
  readonly timeoutMs: number;
}

const TIMES: WatchTimes = { everyMs: 5000, timeoutMs: RESPONSE_TIMEOUT_MS };
/** Milliseconds between two reports of an instance that serves none of the graphs that inherit it. */
// There may be hundreds of workspaces below one directory.
const REPORT_INHERITED_EVERY_MS = 60_000;
/** Most milliseconds of a request for the first report, so that the log has it soon. */
const FIRST_TIMEOUT_MS = 2500;
/** Most milliseconds that a capture waits for the first report. */
const FIRST_REPORT_MS = 1000;
/** Late responses in a row after which an instance that responded before counts as silent. */
// A busy server may be late once.
const LATE_MAX = 2;

/** Options of a watch. */
export interface WatchOptions {
  /** Receives a line at the first report and at each change. */
  readonly onChange: (line: InstanceLine) => void;
  readonly times?: WatchTimes;
}

/** Watches the instance of a graph and reports every change of what is known of it. */
export class InstanceWatch {
  readonly settings: InstanceSettings;
  readonly #probe: InstanceProbe;
  readonly #onChange: (line: InstanceLine) => void;
  readonly #times: WatchTimes;
  #last: InstanceReport | undefined;
  #first: Promise<InstanceReport> | undefined;
  /** Last line that was reported; empty before the first. */
  #reported = '';
  #late = 0;

  constructor(settings: InstanceSettings, dir: Uint8Array, options: WatchOptions) {
    this.settings = settings;
    this.#probe = new InstanceProbe(settings, dir);
    this.#onChange = options.onChange;
    this.#times = options.times ?? TIMES;
  }

  /** Queries the instance at intervals until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    do {
      await this.#query(signal).catch((error: unknown) => {
        if (!signal.aborted) throw error;
      });
    } while (await waited(this.#everyMs(), signal));
  }

  #everyMs(): number {
    const isOwn = this.#last?.kind === 'own';
    return this.settings.isInherited === true && !isOwn ? REPORT_INHERITED_EVERY_MS : this.#times.everyMs;
  }

  /**
   * Returns what is known of the instance for a capture; undefined before the first report. Never waits for an
   * instance that did not respond, or not as LightRAG does.
   */
  async current(signal?: AbortSignal): Promise<InstanceReport | undefined> {
    if (this.#last?.kind === 'own') return await this.#query(signal);
    if (this.#last !== undefined || this.#first === undefined) return this.#last;
    await Promise.race([this.#first, sleep(FIRST_REPORT_MS, undefined, { ref: false })]).catch(() => {
      // The agent stops; the capture goes on without a report.
    });
    return this.#last;
  }

  async #query(signal: AbortSignal | undefined): Promise<InstanceReport> {
    const isFirst = this.#last === undefined;
    const timeoutMs = Math.min(this.#times.timeoutMs, isFirst ? FIRST_TIMEOUT_MS : Number.POSITIVE_INFINITY);
    const report = this.#probe.report({ timeoutMs, signal });
    this.#first ??= report;
    return this.#learn(await report);
  }

  #learn(report: InstanceReport): InstanceReport {
    const wasOwn = this.#last?.kind === 'own';
    this.#late = report.kind === 'no-response' && report.isLate ? this.#late + 1 : 0;
    const isOnceLate = wasOwn && this.#late > 0 && this.#late < LATE_MAX;
    // The capture that was late once does not wait, the next one asks again.
    if (isOnceLate) return report;
    this.#last = report;
    const line = instanceLine(report, this.settings);
    const key = report.kind === 'no-response' ? report.kind : line.message;
    if (key === this.#reported) return report;
    this.#reported = key;
    // An instance that is inherited from the directory above is reported there.
    if (line.isWell || this.settings.isInherited !== true) this.#onChange(line);
    return report;
  }
}
