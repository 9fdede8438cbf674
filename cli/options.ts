import { join, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { LightkeeperError } from '../core/errors.ts';
import { BUCKET_VARIABLES, bucketHint, homeState, storeVariable } from '../host/places.ts';
import { parseDuration, parseSize } from '../host/quantity.ts';

/** The store where none is named: that of the variables, then STATE/store. */
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

/** The options that most commands share. */
export interface CommonOptions {
  readonly store?: string;
  readonly graph?: string;
  readonly json?: boolean;
}

/** The store that a command means. */
export function storeOf({ store }: CommonOptions): string {
  return store === undefined ? defaultStore(process.env) : resolve(store);
}

/** Adds `--store`, `--graph` and `--json` to a command. */
export function withCommon(command: Command): Command {
  return command
    .option('--store <dir>', 'the store (default: STATE/store)')
    .option('--graph <id>', 'the graph, where the store holds several')
    .option('--json', 'print exactly one JSON document');
}

/** `--disk-reserve`, for commands that write a lot. */
export function reserveOption(): Option {
  return new Option('--disk-reserve <size>', 'free space that must remain; 0 turns the check off').argParser(
    (text) => BigInt(parseSize(text)),
  );
}

/** A repeatable option's values. */
export function collect(value: string, previous: readonly string[] | undefined): string[] {
  return [...(previous ?? []), value];
}

/** A whole number of at least 0. */
export function wholeNumber(text: string): number {
  if (/^[0-9]{1,9}$/.test(text)) return Number(text);
  throw new LightkeeperError('INVALID_ARGUMENT', `Cannot use "${text}" as a number`, {
    hint: 'give a whole number, 0 or more',
  });
}

/** Milliseconds of a duration. */
export function duration(text: string): number {
  return parseDuration(text);
}

/** What a wait can be at most: its milliseconds travel as 32 bits. */
const WAIT_MS_MAX = 2 ** 32 - 1;

/** Milliseconds of a time to wait. */
export function waitDuration(text: string): number {
  const ms = parseDuration(text);
  if (ms <= WAIT_MS_MAX) return ms;
  throw new LightkeeperError('INVALID_ARGUMENT', `Cannot wait "${text}": it is longer than 49 days`, {
    hint: 'give a shorter time, for instance 30s',
  });
}

/** `key=value` pairs as a map. */
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

/** A path as its bytes, absolute. */
export function pathArgument(path: string): Uint8Array {
  return Buffer.from(resolve(path));
}

/** The value of an option that the command cannot do without. */
export function required(value: string | undefined, flag: string): string {
  if (value !== undefined && value !== '') return value;
  throw new LightkeeperError('INVALID_ARGUMENT', `Cannot run without ${flag}`, { hint: `add ${flag}` });
}
