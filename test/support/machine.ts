import { execFile, execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { atEnd, type Scope } from './place.ts';

const run = promisify(execFile);

/** A user without rights, whose name every machine knows. */
export const NOBODY = 65534;
const FAKETIME = [
  '/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1',
  '/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1',
].find((path) => existsSync(path));

const isRoot = () => process.getuid?.() === 0;
const PROBES = {
  root: isRoot,
  setpriv: () => answers('setpriv', '--version'),
  // Some containers have the program and forbid what it does.
  strace: () => answers('strace', '-f', '-o', '/dev/null', 'true'),
  prlimit: () => answers('prlimit', '--version'),
  faketime: () => FAKETIME !== undefined,
  mount: () => isRoot() && answers('unshare', '--mount', 'mount', '-t', 'tmpfs', 'none', '/mnt'),
  mknod: () => isRoot() && answers('unshare', '--mount', 'sh', '-c', MAKE_DEVICE),
} satisfies Record<string, () => boolean>;
const MAKE_DEVICE = 'd=$(mktemp -d) && mknod $d/null c 1 3; r=$?; rm -rf $d; exit $r';

/** What a test may need of the machine. */
export type Need = keyof typeof PROBES;

const known = new Map<Need, boolean>();

function answers(command: string, ...args: string[]): boolean {
  try {
    execFileSync(command, args, { stdio: 'ignore', timeout: 10_000 });
    return true;
  } catch {
    return false;
  }
}

function has(need: Need): boolean {
  const answer = known.get(need) ?? PROBES[need]();
  known.set(need, answer);
  return answer;
}

/** The `skip` option of a test: false where the machine has all that it needs, else what is lacking. */
export function needing(...needs: Need[]): { skip: string | false } {
  const lacking = needs.filter((need) => !has(need));
  return { skip: lacking.length === 0 ? false : `needs ${lacking.join(', ')}` };
}

/** Words before a command that make it run as another user. */
export function asUser(uid = NOBODY): string[] {
  return ['setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups'];
}

/** Variables that shift the wall clock of a process by some seconds; its monotonic clock runs on. */
export function clockShifted(seconds: number): Record<string, string> {
  return {
    LD_PRELOAD: FAKETIME ?? '',
    FAKETIME: `${seconds >= 0 ? '+' : ''}${seconds}s`,
    DONT_FAKE_MONOTONIC: '1',
    NO_FAKE_STAT: '1',
  };
}

/**
 * Variables that shift the wall clock of a process by what a file says (`-1d`), looked at once a second; its
 * monotonic clock runs on.
 */
export function clockShiftedBy(file: string): Record<string, string> {
  const { FAKETIME: _, ...shifted } = clockShifted(0);
  return { ...shifted, FAKETIME_TIMESTAMP_FILE: file, FAKETIME_CACHE_DURATION: '1' };
}

/** A small disk of its own, gone when the test ends. */
export interface Disk {
  readonly path: string;
  remount(options: string): Promise<void>;
}

/** Mounts a memory disk of so many bytes; needs `mount`. */
export async function smallDisk(t: Scope, bytes: number): Promise<Disk> {
  const path = await mkdtemp(join(tmpdir(), 'lightkeeper-disk-'));
  await run('mount', ['-t', 'tmpfs', '-o', `size=${bytes},mode=0755`, 'none', path]);
  atEnd(t, async () => {
    await run('umount', ['-l', path]);
    await rmdir(path);
  });
  return {
    path,
    remount: async (options) => {
      await run('mount', ['-o', `remount,${options}`, path]);
    },
  };
}

/** Shows a folder at a second place, until the test ends; needs `mount`. */
export async function boundFolder(t: Scope, source: string): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'lightkeeper-bound-'));
  const unbind = await bind(source, path);
  atEnd(t, async () => {
    await unbind();
    await rmdir(path);
  });
  return path;
}

/** Shows a folder at another place too; answers what ends that. */
export async function bind(source: string, path: string): Promise<() => Promise<void>> {
  await run('mount', ['--bind', source, path]);
  return async () => {
    await run('umount', ['-l', path]);
  };
}
