import type { Writable } from 'node:stream';
import { pino } from 'pino';
import type { LogLevel, LogSettings } from './config/log-settings.ts';
import { escapeJson } from './control-characters.ts';
import { LineSink } from './line-sink.ts';
import { logText } from './log-text.ts';

/** What a log line says besides its message. */
export type LogFields = Readonly<Record<string, unknown>>;

/** The log of a process: one line per event. A line that cannot be written is lost; nothing else fails. */
export type Log = { readonly [L in LogLevel]: (message: string, fields?: LogFields) => void };

/** Creates the log of a process on a stream: standard error, unless another one is given. */
export function createLog({ level, format }: LogSettings, stream: Writable = process.stderr): Log {
  const render = format === 'json' ? escapeJson : (json: string) => logText(JSON.parse(json));
  const sink = new LineSink(stream, (lines) => {
    const time = new Date().toISOString();
    return render(`${JSON.stringify({ level: 'warn', time, message: 'log lines were lost', lines })}\n`);
  });
  const logger = pino(
    {
      level,
      base: null,
      messageKey: 'message',
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    { write: (json: string) => sink.write(render(json)) },
  );
  const at =
    (level: LogLevel) =>
    (message: string, fields: LogFields = {}) =>
      logger[level](fields, message);
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}
