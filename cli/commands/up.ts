import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { ioError, LightkeeperError } from '../../core/errors.ts';
import {
  collect,
  defaultState,
  defaultStore,
  duration,
  pathArgument,
  required,
  reserveOption,
} from '../options.ts';
import { say } from '../print.ts';
import { agentEvents } from './telling.ts';

interface UpFlags {
  readonly dir?: string;
  readonly graph?: string;
  readonly state?: string;
  readonly store?: string;
  readonly http?: string;
  readonly exclude?: string[];
  readonly diskReserve?: bigint;
  readonly quiet?: number;
  readonly minInterval?: number;
  readonly instanceUrl?: string;
  readonly apiKeyFile?: string;
  readonly allowPartial?: boolean;
  readonly split?: boolean;
}

const DEFAULT_HTTP = { host: '127.0.0.1', port: 9701 };

/** `up`: protect a directory until stopped. */
export function addUp(program: Command): void {
  program
    .command('up')
    .description('protect a directory until stopped: the main job')
    .option('--dir <dir>', 'the directory (required)')
    .option('--graph <id>', "the graph's name (default: the directory's)")
    .option('--state <dir>', 'where this agent keeps what is its own')
    .option('--store <dir>', 'where the points are kept (default: STATE/store)')
    .option('--http <host:port>', 'metrics and probes (default: 127.0.0.1:9701, or a free port)')
    .option('--exclude <pattern>', 'names to leave out; may be given several times', collect)
    .option(
      '--quiet <duration>',
      'the least time without a change (default: 300ms; longer where learned)',
      duration,
    )
    .option('--min-interval <duration>', 'captures start this far apart, at least (default: 1s)', duration)
    .option('--instance-url <url>', 'where the instance serves: it is asked whether it is idle')
    .option('--api-key-file <file>', 'its key (default: LIGHTRAG_API_KEY)')
    .option('--allow-partial', 'guard the files of an instance that keeps a part of the graph elsewhere')
    .option('--no-split', 'take workspaces below the directory as a part of it')
    .addOption(reserveOption())
    .action(run);
}

function httpOf(text: string | undefined): { host: string; port: number; fallback: boolean } {
  if (text === undefined) return { ...DEFAULT_HTTP, fallback: true };
  const [, host, port] = /^(.*):([0-9]{1,5})$/.exec(text) ?? [];
  if (host === undefined || port === undefined || Number(port) > 65535) {
    throw new LightkeeperError('INVALID_ARGUMENT', `Cannot listen on "${text}": it is no host:port`, {
      hint: 'write it like 127.0.0.1:9701',
    });
  }
  if (!/^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])$/.test(host)) {
    throw new LightkeeperError(
      'REFUSED',
      `Cannot listen on "${text}" without TLS and keys: only loopback addresses`,
      {
        hint: 'listen on 127.0.0.1 and let a proxy that has TLS forward to it',
      },
    );
  }
  return { host: host.replace(/^\[|\]$/g, ''), port: Number(port), fallback: false };
}

function instanceOf({ instanceUrl, apiKeyFile, allowPartial = false }: UpFlags) {
  if (instanceUrl === undefined) return undefined;
  if (!/^https?:/i.test(instanceUrl) || !URL.canParse(instanceUrl)) {
    throw new LightkeeperError(
      'INVALID_ARGUMENT',
      `Cannot ask the instance at "${instanceUrl}": it is no URL`,
      {
        hint: 'write it like http://127.0.0.1:9621',
      },
    );
  }
  return { url: instanceUrl, apiKey: apiKeyOf(apiKeyFile), allowPartial };
}

function apiKeyOf(file: string | undefined): string {
  if (file === undefined) return process.env.LIGHTRAG_API_KEY ?? '';
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (error) {
    throw ioError('read', file, error);
  }
}

async function run(flags: UpFlags): Promise<void> {
  const dir = pathArgument(required(flags.dir, '--dir'));
  const state = flags.state === undefined ? defaultState(process.env) : resolve(flags.state);
  const store =
    flags.store === undefined
      ? flags.state === undefined
        ? defaultStore(process.env, state)
        : `${state}/store`
      : resolve(flags.store);
  const stop = new AbortController();
  const stopNow = () => {
    say('stopping: a last look at the directory');
    stop.abort();
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, stopNow);
  const { up } = await import('../../agent/main.ts');
  await up(
    {
      dir,
      graphId: flags.graph ?? '',
      store,
      http: httpOf(flags.http),
      exclude: flags.exclude ?? [],
      reserveBytes: flags.diskReserve,
      instance: instanceOf(flags),
      split: flags.split ?? true,
      ...(flags.quiet === undefined ? {} : { quietMs: flags.quiet }),
      ...(flags.minInterval === undefined ? {} : { minIntervalMs: flags.minInterval }),
    },
    agentEvents(),
    stop.signal,
  );
  say('stopped');
}
