import { execFile, spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);
/** Often enough for a high-water mark, and rare enough not to take a share of the cores. */
const RSS_EVERY_MS = 100;

/** One run of a command. */
export interface Run {
  readonly seconds: number;
  /** Largest resident set of the process, in bytes. */
  readonly rssBytes: number;
  readonly stdout: string;
}

/** A command with what must be done before and after it, outside the measured time. */
export interface Contender {
  readonly name: string;
  readonly prepare?: () => Promise<void>;
  readonly command: readonly string[];
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
}

async function peakRss(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024;
}

/** Runs a command to its end; throws if it fails. */
export async function measure(contender: Contender): Promise<Run> {
  const [program = '', ...args] = contender.command;
  const started = process.hrtime.bigint();
  const child = spawn(program, args, {
    cwd: contender.cwd,
    env: { ...process.env, ...contender.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (data: Buffer) => (stdout += data.toString()));
  child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
  let rssBytes = 0;
  const { pid } = child;
  const poll = setInterval(async () => {
    if (pid !== undefined) rssBytes = Math.max(rssBytes, await peakRss(pid));
  }, RSS_EVERY_MS);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  }).finally(() => clearInterval(poll));
  const seconds = Number(process.hrtime.bigint() - started) / 1e9;
  if (code !== 0)
    throw new Error(`${contender.name}: ${contender.command.join(' ')} ended with ${code}: ${stderr}`);
  return { seconds, rssBytes, stdout };
}

/** The middle value. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** What several runs of one contender gave. */
export interface Series {
  readonly name: string;
  readonly seconds: readonly number[];
  readonly median: number;
  readonly rssBytes: number;
}

/** Runs the contenders in turn, `rounds` times, all data on disk before each run. */
export async function alternate(
  contenders: readonly Contender[],
  rounds: number,
  log: (line: string) => void,
): Promise<Series[]> {
  const runs = new Map<string, Run[]>(contenders.map(({ name }) => [name, []]));
  for (let round = 1; round <= rounds; round++) {
    for (const contender of contenders) {
      await contender.prepare?.();
      await run('sync');
      const result = await measure(contender);
      runs.get(contender.name)?.push(result);
      log(
        `  round ${round} ${contender.name}: ${result.seconds.toFixed(2)} s, ${(result.rssBytes / 1e6).toFixed(0)} MB`,
      );
    }
  }
  return contenders.map(({ name }) => {
    const mine = runs.get(name) ?? [];
    const seconds = mine.map((one) => one.seconds);
    return { name, seconds, median: median(seconds), rssBytes: Math.max(...mine.map((one) => one.rssBytes)) };
  });
}

/** Sum of the sizes of the files below a folder, in bytes. */
export async function filesBytes(folder: string, exclude = 'no-such-name'): Promise<number> {
  const { stdout } = await run(
    'find',
    [folder, '-type', 'f', '-not', '-path', `*/${exclude}/*`, '-printf', '%s\n'],
    {
      maxBuffer: 1 << 28,
    },
  );
  return stdout.split('\n').reduce((sum, line) => sum + Number(line), 0);
}

export { run };
