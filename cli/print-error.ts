import type { ErrorCode, LightkeeperError } from '../core/errors.ts';
import { escapeControls, escapeJson } from '../host/control-characters.ts';

/** Hints for errors without one of their own. */
const DEFAULT_HINTS: Readonly<Record<ErrorCode, string>> = {
  INVALID_ARGUMENT: 'run lightkeeper --help',
  NOT_FOUND: 'check the name',
  REFUSED: 'do what the message asks for, then run it again',
  IN_USE: 'wait until the other process is done, or stop it',
  DAMAGED: 'run lightkeeper verify --level bytes to list the damage, then lightkeeper repair',
  TOO_NEW: 'use the version of Lightkeeper that wrote it, or a newer one',
  TOO_OLD: 'use the version of Lightkeeper that wrote it',
  UNIMPLEMENTED: 'run lightkeeper --help to list the commands',
  IO: 'check the disk and the permissions of this user',
  CANCELLED: 'run it again: nothing unfinished was stored',
  DEADLINE: 'run it again with a longer time limit',
  UNAVAILABLE: 'check that the other process runs and can be reached',
  PEER_INVALID: 'check the version and the store of the other agent; run lightkeeper verify there',
  INTERNAL: 'this is a fault in Lightkeeper: run it with LIGHTKEEPER_DEBUG=1 and report the output',
};

/** Prints an error on standard error; with `json` also as a JSON document on standard output. */
export function printError({ code, message, hint, details }: LightkeeperError, json: boolean): void {
  const remedy = hint === '' ? DEFAULT_HINTS[code] : hint;
  const lines = details.length === 0 ? [message] : message.split('\n');
  const text = lines.map((line, i) => `${i === 0 ? 'error: ' : '  '}${escapeControls(line)}\n`).join('');
  process.stderr.write(`${text}hint: ${escapeControls(remedy)}\n`);
  if (json)
    process.stdout.write(`${escapeJson(JSON.stringify({ error: { code, message, hint: remedy } }))}\n`);
}
