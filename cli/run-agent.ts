import type { ReadSettings } from '../agent/main.ts';
import { abortOnStopSignals, exitAfter } from '../host/lifecycle.ts';
import { ignoreWriteErrors } from '../host/line-sink.ts';
import { loggedEvents } from './agent-log.ts';
import { printedEvents } from './agent-print.ts';
import { plain, say } from './print.ts';

/** Time that a slow reader of the last lines has, in milliseconds. */
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
    const signal = abortOnStopSignals(() => say('stopping: a last look at the directory'));
    for (const warning of warnings) say(`warning: ${plain(warning)}`);
    await runAgent(settings, printedEvents(), signal);
    say('stopped');
  } else {
    const { createLog } = await import('../host/log.ts');
    const log = createLog(logSettings);
    const signal = abortOnStopSignals(() => log.info('stopping: a last look at the directory'));
    for (const warning of warnings) log.warn(warning);
    await runAgent(settings, loggedEvents(log), signal);
    log.info('stopped');
  }
  exitAfter(LAST_LINES_MS);
}
