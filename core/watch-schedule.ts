/** Milliseconds between two scans while the directory changes. */
const SCAN_BUSY_MS = 500;
/** Milliseconds between two scans of an unchanged directory without filesystem events. */
const SCAN_IDLE_MS = 1000;
/** Milliseconds between two scans of an unchanged directory with filesystem events. */
const SCAN_WATCHED_MS = 5000;
/** Least milliseconds between two scans, however many events arrive. */
const SCAN_SPACING_MIN_MS = 50;
/** Most milliseconds without events after events that no change followed. */
const REWATCH_WAIT_MAX_MS = 60_000;
/** Scans start this many times the last scan's duration apart, at least. */
const SCAN_SPACING_FACTOR = 20;
/** Captures start this many times the last capture's duration apart, at least. */
const CAPTURE_SPACING_FACTOR = 5;
/** Milliseconds between two captures that are enough, unless a capture takes more than a third of them. */
const CAPTURE_SPACING_ENOUGH_MS = 10_000;
const CAPTURE_SPACING_FACTOR_MIN = 3;
/** Milliseconds from the start of a capture to that of one for minor changes alone. */
const MINOR_CAPTURE_SPACING_MS = 60_000;
/** Most milliseconds between two attempts after failures. */
const FAILURE_WAIT_MAX_MS = 60_000;
const FAILURE_DOUBLINGS_MAX = 10;

/** The next step of a watcher. Times are milliseconds of the monotonic clock. */
export type WatchStep =
  /** Scan the directory at `atMs`, or at once if that has passed. */
  | { readonly next: 'scan'; readonly atMs: number }
  /** Confirm that the newest point is still current, then call `confirmed`. */
  | { readonly next: 'confirm' }
  /** Capture the directory, then call `captured`. */
  | { readonly next: 'capture' }
  /** Subscribe to the next filesystem event, then call `watchBegan` or `watchNotBegun`. */
  | { readonly next: 'begin-watching' }
  /** Close the subscription, then call `watchStopped`. */
  | { readonly next: 'stop-watching' };

/** A step that waits for the next scan. */
export type ScanStep = Extract<WatchStep, { next: 'scan' }>;

/** What a scan found. */
export interface ScanResult {
  /** Whether the directory differs from its newest point. */
  readonly isChanged: boolean;
  /** Whether all changes can wait. */
  readonly isMinor?: boolean;
  /** Duration of the scan in milliseconds. */
  readonly tookMs: number;
}

/**
 * Decides when a watched directory is scanned and captured, and when filesystem events are worth a subscription.
 *
 * The caller performs each step and reports its outcome, which returns the next step.
 */
// Scans are the truth and events are hints: the kernel drops events when its queue overflows, and reports nothing.
export class WatchSchedule {
  readonly #minIntervalMs: number;
  /** Earliest start of the next capture; 0 before the first. */
  #captureFromMs = 0;
  /** Earliest start of the next capture for minor changes alone; 0 before the first capture. */
  #minorFromMs = 0;
  /** Earliest start of the next scan that an event causes; 0 before the first scan. */
  #scanFromMs = 0;
  /** Earliest start of the next subscription; 0 before the first event. */
  #watchFromMs = 0;
  /** Milliseconds that the duration of the last scan demands between two scans. */
  #scanSpacingMs = 0;
  /** Consecutive failures since the last capture. */
  #failures = 0;
  /** Events since the last change that a scan found. */
  #vainEvents = 0;
  #isWatching = false;
  #canWatch = true;
  /** Whether an event has arrived since the last scan started. */
  #hasEvent = false;

  /** Captures start at least `minIntervalMs` milliseconds apart. */
  constructor(minIntervalMs: number) {
    this.#minIntervalMs = minIntervalMs;
  }

  /** Records that a scan starts. */
  scanStarted(): void {
    this.#hasEvent = false;
  }

  /** Records the result of a scan and returns the next step. */
  scanned({ isChanged, isMinor = false, tookMs }: ScanResult, nowMs: number): WatchStep {
    this.#scanSpacingMs = SCAN_SPACING_FACTOR * tookMs;
    this.#scanFromMs = nowMs + Math.max(SCAN_SPACING_MIN_MS, this.#scanSpacingMs);
    if (!isChanged) return { next: 'confirm' };
    // Their events are not worth a subscription until then.
    if (isMinor && nowMs < this.#minorFromMs) return this.#waitForMinor(nowMs);
    this.#vainEvents = 0;
    // The directory may be another one by now, and scans are frequent while it changes.
    return this.#isWatching ? { next: 'stop-watching' } : this.#captureOrWait(nowMs);
  }

  /** Records that the newest point was confirmed and returns the next step. */
  confirmed(nowMs: number): WatchStep {
    if (this.#canWatch && !this.#isWatching && nowMs >= this.#watchFromMs) return { next: 'begin-watching' };
    return this.#idle(nowMs);
  }

  /** Records a capture and its duration in milliseconds, and returns the next step. */
  captured(durationMs: number, nowMs: number): ScanStep {
    this.#failures = 0;
    const enoughMs = Math.max(CAPTURE_SPACING_ENOUGH_MS, CAPTURE_SPACING_FACTOR_MIN * durationMs);
    const spacingMs = Math.max(this.#minIntervalMs, Math.min(CAPTURE_SPACING_FACTOR * durationMs, enoughMs));
    this.#captureFromMs = nowMs - durationMs + spacingMs;
    this.#minorFromMs = nowMs - durationMs + MINOR_CAPTURE_SPACING_MS;
    return this.#scanAt(nowMs + Math.max(SCAN_BUSY_MS, this.#scanSpacingMs), nowMs);
  }

  /** Records a failure and returns the next step. An absent directory has never been there. */
  failed(kind: 'absent' | 'error', nowMs: number): ScanStep {
    if (kind === 'absent') return this.#scanAt(nowMs + SCAN_IDLE_MS, nowMs);
    this.#failures += 1;
    const waitMs = SCAN_IDLE_MS * 2 ** Math.min(this.#failures, FAILURE_DOUBLINGS_MAX);
    return this.#scanAt(nowMs + Math.min(FAILURE_WAIT_MAX_MS, waitMs), nowMs);
  }

  /** Records that a subscription began and returns the next step. */
  watchBegan(nowMs: number): ScanStep {
    this.#isWatching = true;
    // A change before the subscription began caused no event.
    return this.#scanAt(this.#earliestMs(nowMs), nowMs);
  }

  /** Records that no subscription is open after an attempt to begin one, and returns the next step. */
  watchNotBegun(nowMs: number): ScanStep {
    return this.#idle(nowMs);
  }

  /** Records that the subscription was closed on request and returns the next step. */
  watchStopped(nowMs: number): WatchStep {
    this.#isWatching = false;
    return this.#captureOrWait(nowMs);
  }

  /** Records that events are not available, now or later. */
  watchGaveUp(): void {
    this.#isWatching = false;
    this.#canWatch = false;
  }

  /** Records an event, which ends its subscription. Returns the time of the scan that it causes. */
  event(nowMs: number): number {
    this.#isWatching = false;
    this.#hasEvent = true;
    // An excluded file may change all the time: then scans without events are cheaper.
    this.#watchFromMs = nowMs + Math.min(REWATCH_WAIT_MAX_MS, SCAN_IDLE_MS * this.#vainEvents);
    this.#vainEvents += 1;
    return this.#earliestMs(nowMs);
  }

  #captureOrWait(nowMs: number): WatchStep {
    return this.#captureFromMs > nowMs ? this.#scanAt(this.#captureFromMs, nowMs) : { next: 'capture' };
  }

  /** Returns the next scan while minor changes wait; another change ends the wait. */
  #waitForMinor(nowMs: number): ScanStep {
    const atMs = nowMs + Math.max(SCAN_IDLE_MS, this.#scanSpacingMs);
    return this.#scanAt(Math.min(atMs, Math.max(this.#minorFromMs, this.#scanFromMs)), nowMs);
  }

  #idle(nowMs: number): ScanStep {
    const everyMs = this.#isWatching ? SCAN_WATCHED_MS : SCAN_IDLE_MS;
    return this.#scanAt(nowMs + Math.max(everyMs, this.#scanSpacingMs), nowMs);
  }

  /** Returns a scan at `atMs`, or earlier if an event has arrived since the last scan started. */
  #scanAt(atMs: number, nowMs: number): ScanStep {
    return { next: 'scan', atMs: this.#hasEvent ? Math.min(atMs, this.#earliestMs(nowMs)) : atMs };
  }

  /** Returns the first time at which a scan could lead to a capture. */
  #earliestMs(nowMs: number): number {
    return Math.max(nowMs, this.#captureFromMs, this.#scanFromMs);
  }
}
