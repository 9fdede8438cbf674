import { readFileSync, readlinkSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { LightkeeperError } from '../core/errors.ts';
import { BUCKET_VARIABLES, bucketHint, homeState, storeVariable } from '../host/places.ts';
import { parseDuration, parseSize } from '../host/quantity.ts';

/** Returns the store of the environment variables, or STATE/store. */
function defaultStore(env: NodeJS.ProcessEnv): string {
  const bucket = BUCKET_VARIABLES.find((name) => env[name]);
  if (bucket !== undefined) {
    throw new LightkeeperError(
      'INVALID_ARGUMENT',
      `Cannot use ${bucket}: object stores are not in this version`,
      { hint: bucketHint(bucket) },
    );
  }
  const { LIGHTKEEPER_STATE: state = '' } = env;
  return storeVariable(env)?.path ?? join(state === '' ? homeState(env) : resolve(state), 'store');
}

/** Values of the options that most commands share. */
export interface CommonOptions {
  readonly store?: string;
  readonly state?: string;
  readonly graph?: string;
  readonly json?: boolean;
}

/** Returns the path of the store that a command uses. */
export function storePath({ store, state }: CommonOptions): string {
  if (store !== undefined) return resolve(store);
  return state === undefined ? defaultStore(process.env) : join(resolve(state), 'store');
}

/** Adds `--store`, `--state`, `--graph` and `--json` to a command. */
export function addCommonOptions(command: Command): Command {
  return addStoreOptions(command).option('--json', 'print exactly one JSON document');
}

/** Adds the options that name a store and a graph. */
export function addStoreOptions(command: Command): Command {
  return command
    .option('--store <dir>', 'folder of the store (default: STATE/store)')
    .option('--state <dir>', 'state folder of an agent, in place of --store: the store in it')
    .option('--graph <id>', 'graph id; needed if the store holds several graphs');
}

/** Returns the option `--disk-reserve`. */
export function reserveOption(): Option {
  return new Option('--disk-reserve <size>', 'free space that must remain; 0 turns the check off').argParser(
    (text) => BigInt(parseSize(text)),
  );
}

/** Appends a value of an option that may be repeated. */
export function collectValue(value: string, previous: readonly string[] | undefined): string[] {
  return [...(previous ?? []), value];
}

/** Parses a whole number of 0 or more. */
export function countArgument(text: string): number {
  if (/^[0-9]{1,9}$/.test(text)) return Number(text);
  throw new LightkeeperError('INVALID_ARGUMENT', `Cannot use "${text}" as a number`, {
    hint: 'give a whole number, 0 or more',
  });
}

/** Parses a duration. Returns milliseconds. */
export function durationArgument(text: string): number {
  return parseDuration(text);
}

// The field of the request has 32 bits.
/** Longest time to wait, in milliseconds. */
const WAIT_MS_MAX = 2 ** 32 - 1;

/** Parses a time to wait. Returns milliseconds. */
export function waitArgument(text: string): number {
  const ms = parseDuration(text);
  if (ms <= WAIT_MS_MAX) return ms;
  throw new LightkeeperError('INVALID_ARGUMENT', `Cannot wait "${text}": it is longer than 49 days`, {
    hint: 'give a shorter time, for instance 30s',
  });
}

/** Parses `key=value` pairs. */
export function tagMap(pairs: readonly string[] | undefined): Record<string, string> {
  const tags: Record<string, string> = {};
  for (const pair of pairs ?? []) {
    const at = pair.indexOf('=');
    if (at < 1) {
      throw new LightkeeperError('INVALID_ARGUMENT', `Cannot use "${pair}" as a tag: it is not key=value`, {
        hint: 'write it like --tag release=1.4',
      });
    }
    tags[pair.slice(0, at)] = pair.slice(at + 1);
  }
  return tags;
}

/** Returns an absolute path as its bytes. */
export function pathArgument(path: string): Uint8Array {
  const bytes = argumentBytes(path).toString('latin1');
  // One character per byte, as a name need not be UTF-8.
  return Buffer.from(resolve(workingFolder().toString('latin1'), bytes), 'latin1');
}

/** Returns the bytes of a path in a snapshot, which may have `\xNN` for bytes. */
export function snapshotPathArgument(path: string): Uint8Array {
  const bytes = argumentBytes(path).toString('latin1');
  const plain = bytes.replace(/\\x([0-9a-f]{2})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 16)),
  );
  return Buffer.from(plain, 'latin1');
}

// Node decodes arguments and the working folder as UTF-8 and puts this character for other bytes.
const REPLACED = '\ufffd';

/** Returns the bytes of an argument, or of the value in `--flag=value`. Refuses one that is ambiguous. */
function argumentBytes(text: string): Buffer {
  if (!text.includes(REPLACED)) return Buffer.from(text);
  const found = new Set<string>();
  for (const word of commandLine()) {
    for (const bytes of [word, word.slice(word.indexOf('=') + 1)])
      if (Buffer.from(bytes, 'latin1').toString() === text) found.add(bytes);
  }
  const [bytes, ...others] = found;
  if (bytes !== undefined && others.length === 0) return Buffer.from(bytes, 'latin1');
  throw new LightkeeperError('INVALID_ARGUMENT', `Cannot use the path "${text}": its bytes are not known`, {
    hint: 'name it by a symlink or a path that is UTF-8',
  });
}

/** Returns the words of this process, with one character per byte. */
function commandLine(): string[] {
  return readFileSync('/proc/self/cmdline', 'latin1').split('\0');
}

function workingFolder(): Buffer {
  const text = process.cwd();
  return text.includes(REPLACED) ? readlinkSync('/proc/self/cwd', { encoding: 'buffer' }) : Buffer.from(text);
}

/** Returns the value of a required option. */
export function requireValue(value: string | undefined, flag: string): string {
  if (value !== undefined && value !== '') return value;
  throw new LightkeeperError('INVALID_ARGUMENT', `Cannot run without ${flag}`, { hint: `add ${flag}` });
}
