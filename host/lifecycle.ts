import { monotonic } from './clock.ts';

// `timeout` signals the process and its group, so one stop arrives twice.
/** Time in which a repeated signal is the same one, in milliseconds. */
const SAME_SIGNAL_MS = 1000;

const STOP_SIGNALS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM'];

/** Returns a signal that aborts at the first of these signals. The same one again, later, ends the process. */
export function abortOnStopSignals(onStop: () => void, names = STOP_SIGNALS): AbortSignal {
  const stop = new AbortController();
  for (const name of names) {
    let firstMs: number | undefined;
    const onSignal = () => {
      firstMs ??= monotonic();
      if (!stop.signal.aborted) {
        onStop();
        stop.abort();
      } else if (monotonic() - firstMs >= SAME_SIGNAL_MS) {
        // Without this listener the program's own one ends the process.
        process.off(name, onSignal);
        process.emit(name, name);
      }
    };
    process.on(name, onSignal);
  }
  return stop.signal;
}

/** Ends the process if output that nobody reads still holds it after `graceMs` milliseconds. */
export function exitAfter(graceMs: number): void {
  setTimeout(() => process.exit(), graceMs).unref();
}
