import { lookup } from 'node:dns/promises';
import { constants } from 'node:fs';
import { lstat, open, readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { ioError, systemCode } from '../../core/errors.ts';
import { type BytePath, pathText } from '../../core/path.ts';
import type { RestoreSnapshotRequest } from '../../gen/lightkeeper/v1/agent_pb.ts';
import { flushFiles } from '../watch/flush.ts';
import { below } from '../watch/names.ts';
import { type Entry, firstDifference, type Scan, type ScanOptions, sameEntry, scan } from '../watch/scan.ts';
import { TempWriters } from '../watch/temp-writers.ts';
import { parseInstanceUrl } from './url.ts';

/** Milliseconds for which a directory is watched for changes. */
const CHANGE_WATCH_MS = 2000;

/** Most milliseconds of a name look-up or a connection attempt. */
const PROBE_TIMEOUT_MS = 5000;

/** Evidence that an instance is down: its URL, which must refuse connections, or the operator's statement. */
export type DownEvidence = RestoreSnapshotRequest['evidence'];

/**
 * Returns why the instance of a directory may still run; undefined if there is evidence that it does not and no sign
 * against it. Takes two seconds.
 */
export async function whyNotDown(
  dir: Uint8Array,
  evidence: DownEvidence,
  options: ScanOptions,
): Promise<string | undefined> {
  if (evidence.case === undefined || evidence.value === false)
    return 'there is no evidence that the instance is down';
  const served = await whyNotRefused(urlOf(evidence));
  if (served !== undefined) return served;
  // The evidence holds for a writer that this machine does not show, not for one that it shows alive.
  const before = await scan(dir, { ...options, writers: new TempWriters(() => true) });
  const alive = (await whyHeld(dir, before)) ?? whyFlushing(before);
  if (alive !== undefined) return alive;
  await sleep(CHANGE_WATCH_MS, undefined, options.signal === undefined ? {} : { signal: options.signal });
  return whyChanged(before, await scan(dir, options));
}

/** Returns a sign that the instance runs since the scan `before`, without a wait; undefined if there is none. */
export async function whyNotDownSince(
  dir: Uint8Array,
  before: Scan,
  evidence: DownEvidence,
  options: ScanOptions,
): Promise<string | undefined> {
  const served = await whyNotRefused(urlOf(evidence));
  if (served !== undefined) return served;
  const after = await scan(dir, options);
  return whyChanged(before, after) ?? (await whyHeld(dir, after));
}

function urlOf(evidence: DownEvidence): string {
  return evidence.case === 'instanceUrl' ? evidence.value : '';
}

/** Returns which lock file of LightRAG a process holds, as a sentence; undefined if none is held. */
export async function whyHeld(dir: Uint8Array, { transient }: Scan): Promise<string | undefined> {
  const locks = transient.filter(({ path }) => path.endsWith('lock'));
  if (locks.length === 0) return undefined;
  const held = await heldLocks();
  if (held.length === 0) return undefined;
  for (const { path } of locks) {
    const [devices, inode] = await identitiesOf(below(dir, path));
    const lock = held.find((one) => one.inode === inode && devices.has(one.device));
    if (lock === undefined) continue;
    const who = lock.pid > 0 ? `process ${lock.pid}` : 'a process';
    return `${who} holds its lock "${pathText(path)}"`;
  }
  return undefined;
}

/** Returns which temporary file means a flush under way, as a sentence; undefined if none does. */
function whyFlushing(scan: Scan): string | undefined {
  const [file] = flushFiles(scan);
  if (file === undefined) return undefined;
  const writer = file.writer === 'alive' ? 'and the process in its name runs' : 'and its writer may run';
  return `a flush may be under way: "${pathText(file.path)}" is younger than a minute, ${writer}`;
}

function whyChanged(before: Scan, after: Scan): string | undefined {
  const changed = firstDifference(before, after) ?? firstChanged(before.transient, after.transient);
  return changed === undefined
    ? undefined
    : `"${pathText(changed)}" has just changed: something writes there`;
}

function firstChanged(before: readonly Entry[], after: readonly Entry[]): BytePath | undefined {
  const known = new Map(before.map((entry) => [entry.path, entry]));
  for (const entry of after) {
    const old = known.get(entry.path);
    if (old === undefined || !sameEntry(old, entry)) return entry.path;
    known.delete(entry.path);
  }
  return known.keys().next().value;
}

interface HeldLock {
  readonly pid: number;
  /** Major and minor number. */
  readonly device: string;
  readonly inode: bigint;
}

/** Lists the file locks of the kernel; empty where it has no list. */
async function heldLocks(): Promise<HeldLock[]> {
  const text = await readFile('/proc/locks', 'latin1').catch((error: unknown) => {
    if (systemCode(error) === 'ENOENT') return '';
    throw ioError('read', '/proc/locks', error);
  });
  const locks: HeldLock[] = [];
  for (const line of text.split('\n')) {
    // A process that waits for a lock ("->") does not match.
    const [, pid, major, minor, inode] =
      /^\d+: \w+ +\S+ +\S+ +(-?\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) /.exec(line) ?? [];
    if (pid === undefined || major === undefined || minor === undefined || inode === undefined) continue;
    const device = `${Number.parseInt(major, 16)}:${Number.parseInt(minor, 16)}`;
    locks.push({ pid: Number(pid), device, inode: BigInt(inode) });
  }
  return locks;
}

/** Returns the inode of a file and the devices by which the kernel's list of locks may name it. */
async function identitiesOf(path: Buffer): Promise<[devices: Set<string>, inode: bigint | undefined]> {
  try {
    const { dev, ino } = await lstat(path, { bigint: true });
    const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
    const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn);
    const devices = new Set([`${major}:${minor}`]);
    const mounted = await deviceOfMount(path);
    if (mounted !== undefined) devices.add(mounted);
    return [devices, ino];
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return [new Set(), undefined];
    throw ioError('read', path.toString(), error);
  }
}

/** Returns the device of a file's mount; undefined if the file cannot be opened. */
// On btrfs and overlay, stat returns another device than the kernel's lists contain.
async function deviceOfMount(path: Buffer): Promise<string | undefined> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(
    (error: unknown) => {
      if (['EACCES', 'ELOOP'].includes(systemCode(error) ?? '')) return undefined;
      throw error;
    },
  );
  if (file === undefined) return undefined;
  try {
    const info = await readFile(`/proc/self/fdinfo/${file.fd}`, 'latin1');
    const [, mount] = /^mnt_id:\s*(\d+)/m.exec(info) ?? [];
    const mounts = await readFile('/proc/self/mountinfo', 'latin1');
    return mounts
      .split('\n')
      .map((line) => line.split(' '))
      .find(([id]) => id === mount)?.[2];
  } finally {
    await file.close();
  }
}

/** Returns why a URL is no evidence; undefined if all its addresses refuse connections. */
async function whyNotRefused(text: string): Promise<string | undefined> {
  if (text === '') return undefined;
  const { host, port } = addressOf(text);
  const late = new Promise<'late'>((resolve) => setTimeout(() => resolve('late'), PROBE_TIMEOUT_MS).unref());
  const found = await Promise.race([lookup(host, { all: true }), late]).catch((error: unknown) => {
    const code = systemCode(error);
    if (code === undefined) throw error;
    return code;
  });
  if (found === 'late') return `the name of "${text}" was not resolved in time, which is no evidence`;
  if (typeof found === 'string') return `the name of "${text}" is not known (${found}), which is no evidence`;
  let refused = false;
  for (const { address } of found) {
    const state = await connectTo(address, port);
    if (state === 'ECONNREFUSED') refused = true;
    // The name may have an address of a family that this machine lacks, where nothing can listen.
    if (['ECONNREFUSED', 'EADDRNOTAVAIL', 'EAFNOSUPPORT'].includes(state)) continue;
    if (state === 'connected') return `something listens at "${text}" (${address})`;
    return `"${text}" (${address}) does not refuse connections (${state}), which is no evidence`;
  }
  return refused ? undefined : `"${text}" has no address that can be reached, which is no evidence`;
}

function addressOf(text: string): { host: string; port: number } {
  const url = parseInstanceUrl(text);
  const port = url.protocol === 'https:' ? 443 : 80;
  return {
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port === '' ? port : Number(url.port),
  };
}

function connectTo(host: string, port: number): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const end = (state: string) => {
      socket.destroy();
      resolve(state);
    };
    socket.setTimeout(PROBE_TIMEOUT_MS, () => end('no response'));
    socket.once('connect', () => end('connected'));
    socket.on('error', (error) => end(systemCode(error) ?? error.message));
  });
}
