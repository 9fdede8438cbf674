import type { ReadSettings } from '../agent/main.ts';
import { abortOnStopSignals, exitAfter } from '../host/lifecycle.ts';
import { ignoreWriteErrors } from '../host/line-sink.ts';
import { loggedEvents } from './agent-log.ts';
import { printedEvents } from './agent-print.ts';
import { escapeControls, printLine } from './print.ts';

/** Longest time for the last lines to be read, in milliseconds. */
const LAST_LINES_MS = 2000;

/** Runs an agent with these settings until SIGINT or SIGTERM. `up` prints for people, `agent` logs. */
export async function runUntilStopped(
  { settings, log: logSettings, warnings, error }: ReadSettings,
  output: 'print' | 'log',
): Promise<void> {
  if (settings === undefined) throw error;
  // A reader that has gone, or a full disk, does not end an agent.
  for (const stream of [process.stdout, process.stderr]) ignoreWriteErrors(stream);
  const { runAgent } = await import('../agent/main.ts');
  if (output === 'print') {
    const signal = abortOnStopSignals(() =>
      printLine('stopping: taking a last snapshot if the directory has changed'),
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
    for (const warning of warnings) log.warn(warning);
    await runAgent(settings, loggedEvents(log), signal);
    log.info('stopped');
  }
  exitAfter(LAST_LINES_MS);
}
