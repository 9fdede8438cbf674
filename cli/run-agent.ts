import type { ReadSettings } from '../agent/main.ts';
import { abortOnStopSignals, exitAfter } from '../host/lifecycle.ts';
import { ignoreWriteErrors } from '../host/line-sink.ts';
import { loggedEvents } from './agent-log.ts';
import { printedEvents } from './agent-print.ts';
import { escapeControls, printLine } from './print.ts';

/** Longest time for the last lines to be read, in milliseconds. */
const LAST_LINES_MS = 2000;

/** How an agent runs, beside its settings. */
export interface RunOptions {
  readonly output: 'print' | 'log';
  /** Whether to go on with graphs that other stores captured. */
  readonly takeOver: boolean;
}

/** Runs an agent with these settings until SIGINT or SIGTERM. `up` prints for people, `agent` logs. */
export async function runUntilStopped(
  { settings: given, log: logSettings, warnings, error }: ReadSettings,
  { output, takeOver }: RunOptions,
): Promise<void> {
  if (given === undefined) throw error;
  const settings = { ...given, graphs: given.graphs.map((graph) => ({ ...graph, takeOver })) };
  // A reader that has gone, or a full disk, does not end an agent.
  for (const stream of [process.stdout, process.stderr]) ignoreWriteErrors(stream);
  const { runAgent } = await import('../agent/main.ts');
  if (output === 'print') {
    // A terminal that closes must not cost the last snapshot.
    const signal = abortOnStopSignals(
      () => printLine('stopping: taking a last snapshot if the directory has changed'),
      ['SIGINT', 'SIGTERM', 'SIGHUP'],
    );
    for (const warning of warnings) printLine(`warning: ${escapeControls(warning)}`);
    await runAgent(settings, printedEvents(), signal);
    printLine('stopped');
  } else {
    const { createLog } = await import('../host/log.ts');
    const log = createLog(logSettings);
    const signal = abortOnStopSignals(() =>
      log.info('stopping: taking a last snapshot if the directory has changed'),
    );
    process.on('SIGHUP', () => log.info('certificates are read again; other settings need a restart'));
    for (const warning of warnings) log.warn(warning);
    await runAgent(settings, loggedEvents(log), signal);
    log.info('stopped');
  }
  exitAfter(LAST_LINES_MS);
}
