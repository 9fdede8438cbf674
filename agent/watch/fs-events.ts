import { readFileSync, statfsSync } from 'node:fs';
import { systemCode } from '../../core/errors.ts';
import { warning } from '../../core/finding.ts';
import { bytesText } from '../../core/path.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';

/** With more names, watching costs more memory than it saves time. */
const NAMES_MAX = 2000;
/** A watch that takes longer to begin is not waited for: the directory may have gone away. */
const BEGINS_WITHIN_MS = 5000;
/** Filesystems that tell nothing of what other machines do: NFS, CIFS, SMB2, FUSE, Ceph, 9p, AFS. */
const REMOTE = new Set([0x6969, 0xff534d42, 0xfe534d42, 0x65735546, 0x00c36400, 0x01021997, 0x5346414f]);

/** A watch for the next event of a directory, a hint that looking at it now may be worth while. */
export interface Nudge {
  close(): Promise<void>;
}

/** What watching is told. */
export interface NudgeOptions {
  /** Names in the directory when it was last looked at. */
  readonly names: number;
  /** Something may have changed: said once, and the watch has ended. */
  readonly nudge: () => void;
  /** Events will not come, or no more: said once. */
  readonly gaveUp: (finding: Finding) => void;
}

/**
 * Watches a directory until its next event: a directory in which much happens is looked at anyway, and hearing of all
 * of it costs more than the looks. Nothing may depend on it: events get lost when the kernel's queue overflows, and
 * nobody is told. What changed before the promise resolves may go unheard. Undefined where it is not worth it or not
 * possible; `gaveUp` has then said why.
 */
export async function watchOnce(dir: Uint8Array, options: NudgeOptions): Promise<Nudge | undefined> {
  const path = Buffer.from(dir).toString();
  const name = bytesText(dir);
  const giveUp = (why: string, hint: string) =>
    options.gaveUp(
      warning('watch_given_up', name, { message: `changes are found by looking alone: ${why}`, hint }),
    );
  if (!Buffer.from(path).equals(Buffer.from(dir))) {
    giveUp('its name is not UTF-8', 'rename it, or leave it: changes are found a little later');
    return undefined;
  }
  if (options.names > NAMES_MAX) {
    giveUp(`it has more than ${NAMES_MAX} names`, 'leave it: changes are found a little later');
    return undefined;
  }
  if (isRemote(path)) {
    giveUp('it is on a network filesystem', 'leave it: changes are found a little later');
    return undefined;
  }
  const { watch } = await import('chokidar');
  const watcher = watch(path, { ignoreInitial: true, persistent: true, ignorePermissionErrors: true });
  // In the middle of what the library does for an event it would forget a watch that it is about to begin.
  const close = async () => {
    await new Promise((resolve) => setImmediate(resolve));
    await watcher.close();
  };
  let over = false;
  await new Promise<void>((resolve) => {
    const late = setTimeout(() => end(() => {}), BEGINS_WITHIN_MS);
    const began = () => {
      clearTimeout(late);
      resolve();
    };
    // Half of a watch would make changes look as if they came late at random: the first failure ends it too.
    const end = (say: () => void) => {
      if (over) return;
      over = true;
      void close();
      say();
      began();
    };
    watcher.once('ready', began);
    watcher.on('all', () => end(options.nudge));
    watcher.on('error', (error) => {
      const code = systemCode(error) ?? 'unknown';
      end(() => giveUp(`the system refuses to watch it (${code})`, hintOf(code)));
    });
  });
  return over ? undefined : { close };
}

function isRemote(path: string): boolean {
  try {
    return REMOTE.has(statfsSync(path).type);
  } catch {
    // Gone again: the next look will say so.
    return false;
  }
}

function hintOf(code: string): string {
  if (code === 'EMFILE') return 'raise the limit of open files, or of inotify instances';
  if (code !== 'ENOSPC') return 'leave it: changes are found a little later';
  return `raise fs.inotify.max_user_watches, which is ${currentWatches()}`;
}

function currentWatches(): string {
  try {
    return readFileSync('/proc/sys/fs/inotify/max_user_watches', 'utf8').trim();
  } catch {
    return 'not to be read here';
  }
}
