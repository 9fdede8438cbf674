import { parseArgs } from 'node:util';
import { LightkeeperError } from '../../core/errors.ts';
import { parseDuration } from '../../host/quantity.ts';
import type { Style } from '../files.ts';
import { NEWEST, styleOf, VERSIONS, type Version } from '../version.ts';

/** Options of the stand-in instance; times are in milliseconds. */
export interface InstanceOptions {
  /** LightRAG's WORKING_DIR. */
  readonly dir: string;
  /** Name of the subfolder with its files; empty for none. */
  readonly workspace: string;
  readonly host: string;
  /** Port; 0 for any free one. */
  readonly port: number;
  /** API key; empty for none. */
  readonly apiKey: string;
  /** Version of LightRAG to imitate. */
  readonly version: Version;
  readonly style: Style;
  /** Storage that `/health` reports. */
  readonly storage: 'file' | 'postgres';
  /** Interval of ingests; 0 for never. */
  readonly ingestEveryMs: number;
  /** Interval of queries; 0 for never. */
  readonly queryEveryMs: number;
  /** Pause between the files of a flush. */
  readonly pauseMs: number;
  /** Time in which embeddings are computed, in the middle of a flush since 1.5. */
  readonly embeddingMs: number;
  /** Pause between the pieces of a file. */
  readonly piecePauseMs: number;
  readonly seed: number;
  /** Number of documents to generate if the directory is absent or empty. */
  readonly documents: number;
  /** Dimension of the vectors; undefined for that of the loaded ones, else 1024. */
  readonly dimension: number | undefined;
}

export const USAGE = `node instance.js --dir DIR [--workspace NAME] [--host ADDRESS] [--port N] [--api-key KEY]
  [--core-version ${VERSIONS.join('|')}] [--api old|new] [--style inplace|rename] [--storage file|postgres]
  [--ingest-every DURATION] [--query-every DURATION]
  [--pause DURATION] [--embedding DURATION] [--piece-pause DURATION]
  [--seed N] [--documents N] [--dimension N]`;

const FLAGS = {
  dir: { type: 'string' },
  workspace: { type: 'string', default: '' },
  host: { type: 'string', default: '127.0.0.1' },
  port: { type: 'string', default: '0' },
  'api-key': { type: 'string', default: '' },
  'core-version': { type: 'string' },
  api: { type: 'string' },
  style: { type: 'string' },
  storage: { type: 'string', default: 'file' },
  'ingest-every': { type: 'string', default: '5s' },
  'query-every': { type: 'string', default: '2s' },
  pause: { type: 'string', default: '300ms' },
  embedding: { type: 'string' },
  'piece-pause': { type: 'string', default: '0ms' },
  seed: { type: 'string', default: '1' },
  documents: { type: 'string', default: '10' },
  dimension: { type: 'string' },
  help: { type: 'boolean', default: false },
} as const;

const PORT_MAX = 65_535;
const SEED_MAX = 2 ** 32 - 1;
const DOCUMENTS_MAX = 30_000;
const DIMENSION_MAX = 65_536;
/** Longest wait of a Node timer in milliseconds. */
const WAIT_MS_MAX = 2 ** 31 - 1;

/** Parses the options in `args`; undefined if help is requested. Throws INVALID_ARGUMENT. */
export function parseOptions(args: readonly string[]): InstanceOptions | undefined {
  const values = parsed(args);
  if (values.help) return undefined;
  if (values.dir === undefined || values.dir === '') {
    throw new LightkeeperError('INVALID_ARGUMENT', 'Cannot run without --dir', { hint: 'add --dir DIR' });
  }
  if (!/^[\w-]*$/.test(values.workspace)) {
    throw wrong('--workspace', values.workspace, 'use letters, digits, "_" and "-"');
  }
  const version = versionOf(values['core-version'], values.api);
  return {
    dir: values.dir,
    workspace: values.workspace,
    host: values.host,
    port: whole('--port', values.port, 0, PORT_MAX),
    apiKey: values['api-key'],
    version,
    style: values.style === undefined ? styleOf(version) : styleNamed(values.style),
    storage: oneOf('--storage', values.storage, ['file', 'postgres']),
    ingestEveryMs: wait('--ingest-every', values['ingest-every']),
    queryEveryMs: wait('--query-every', values['query-every']),
    pauseMs: wait('--pause', values.pause),
    // By default it takes as long as a pause.
    embeddingMs: wait('--embedding', values.embedding ?? values.pause),
    piecePauseMs: wait('--piece-pause', values['piece-pause']),
    seed: whole('--seed', values.seed, 0, SEED_MAX),
    documents: whole('--documents', values.documents, 0, DOCUMENTS_MAX),
    dimension:
      values.dimension === undefined ? undefined : whole('--dimension', values.dimension, 1, DIMENSION_MAX),
  };
}

/** Returns the version of `--core-version`, or of `--api`, its short form; the newest if neither is given. */
function versionOf(core: string | undefined, api: string | undefined): Version {
  const versions = { new: NEWEST, old: '1.4.9.11' } as const;
  const short = api === undefined ? undefined : versions[oneOf('--api', api, ['old', 'new'])];
  const version = core === undefined ? (short ?? NEWEST) : oneOf('--core-version', core, VERSIONS);
  if (short !== undefined && short !== version) {
    throw wrong('--api', String(api), `leave it out: --core-version is ${version}`);
  }
  return version;
}

function parsed(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: FLAGS, strict: true, allowPositionals: false }).values;
  } catch (error) {
    const [state = ''] = (error instanceof Error ? error.message : String(error)).split('. ');
    throw new LightkeeperError('INVALID_ARGUMENT', `Cannot run: ${state}`, {
      hint: 'run it with --help',
      cause: error,
    });
  }
}

function wrong(flag: string, value: string, hint: string): LightkeeperError {
  return new LightkeeperError('INVALID_ARGUMENT', `Cannot use "${value}" as ${flag}`, { hint });
}

function styleNamed(value: string): Style {
  return oneOf('--style', value, ['inplace', 'rename']) === 'inplace' ? 'in-place' : 'rename';
}

function oneOf<T extends string>(flag: string, value: string, allowed: readonly T[]): T {
  const found = allowed.find((one) => one === value);
  if (found === undefined) throw wrong(flag, value, `use one of: ${allowed.join(', ')}`);
  return found;
}

function whole(flag: string, value: string, min: number, max: number): number {
  const number = /^[0-9]{1,10}$/.test(value) ? Number(value) : -1;
  if (number < min || number > max) throw wrong(flag, value, `give a whole number from ${min} to ${max}`);
  return number;
}

function wait(flag: string, value: string): number {
  const ms = parseDuration(value);
  if (ms > WAIT_MS_MAX) throw wrong(flag, value, 'give a time below 24 days');
  return ms;
}
