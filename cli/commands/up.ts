import { resolve } from 'node:path';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import type { Command } from 'commander';
import { LightkeeperError } from '../../core/errors.ts';
import type { Snapshot } from '../../gen/lightkeeper/v1/agent_pb.ts';
import { Grade_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { now } from '../../host/clock.ts';
import { durationText, sizeText } from '../../host/quantity.ts';
import { collect, defaultState, defaultStore, pathArgument, required, reserveOption } from '../options.ts';
import { plain, printError, printFindings, say, timeText } from '../print.ts';
import { snapshotLine } from './snapshot.ts';

interface UpFlags {
  readonly dir?: string;
  readonly graph?: string;
  readonly state?: string;
  readonly store?: string;
  readonly http?: string;
  readonly exclude?: string[];
  readonly diskReserve?: bigint;
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
  let since: Snapshot | undefined;
  let failing = '';
  await up(
    {
      dir,
      graphId: flags.graph ?? '',
      store,
      http: httpOf(flags.http),
      exclude: flags.exclude ?? [],
      reserveBytes: flags.diskReserve,
    },
    {
      started: ({ graphId, store: place, port, socket }) => {
        say(`protecting ${plain(Buffer.from(dir).toString())} as graph "${graphId}"`);
        say(`points are kept in ${plain(place)}`);
        say(
          `metrics and probes: http://127.0.0.1:${port}/metrics /health /readiness /liveness · socket: ${socket}`,
        );
      },
      snapshot: (snapshot) => {
        failing = '';
        if (snapshot.grade !== Grade_Value.TORN) since ??= snapshot;
        const protectedSince =
          since === undefined
            ? 'not protected yet'
            : `protected since ${timeText(since.capturedAt)}, RPO ${rpoText(snapshot)}`;
        say(`${timeText(snapshot.capturedAt)} ${snapshotLine(snapshot)} · ${protectedSince}`);
      },
      pruned: ({ remove, keep, bytesFreed }) => {
        say(
          `retention: ${remove.length} points removed, ${keep.length} kept, ${sizeText(Number(bytesFreed))} freed`,
        );
      },
      settled: (findings) => printFindings(findings),
      failed: (error) => {
        // Said once, and again only when it changes: it is tried again by itself.
        if (error.message !== failing) printError(error, false);
        failing = error.message;
      },
    },
    stop.signal,
  );
  say('stopped');
}

/** What a loss of the directory would cost at this moment. */
function rpoText(snapshot: Snapshot): string {
  return snapshot.confirmedAt === undefined
    ? '-'
    : durationText(Math.max(0, now() - timestampMs(snapshot.confirmedAt)));
}
