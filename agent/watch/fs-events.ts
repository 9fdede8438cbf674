import { readFileSync, statfsSync } from 'node:fs';
import { systemCode } from '../../core/errors.ts';
import { warning } from '../../core/finding.ts';
import { bytesText } from '../../core/path.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';

/** Most names in a watched directory. */
// With more, the subscription costs more memory than it saves time.
const NAMES_MAX = 2000;
/** Milliseconds that a subscription may take to begin. */
// It never begins on a directory that disappears meanwhile.
const BEGINS_WITHIN_MS = 5000;
/** Filesystems without events for changes by other machines: NFS, CIFS, SMB2, FUSE, Ceph, 9p, AFS. */
const REMOTE = new Set([0x6969, 0xff534d42, 0xfe534d42, 0x65735546, 0x00c36400, 0x01021997, 0x5346414f]);

/** A subscription to the next filesystem event of a directory. */
export interface EventSubscription {
  close(): Promise<void>;
}

/** Settings and handlers of a subscription. */
export interface SubscribeOptions {
  /** Names in the directory at the last scan. */
  readonly names: number;
  /** Handles the event, which has ended the subscription. Called at most once. */
  readonly onEvent: () => void;
  /** Handles a subscription that cannot begin or go on. Called at most once. */
  readonly onGaveUp: (finding: Finding) => void;
}

/**
 * Subscribes to the next event of a directory and ends with it. Returns undefined if no subscription is open.
 *
 * Events are hints only: some are lost when the kernel's queue overflows, and changes before the promise resolves may
 * cause none. If a subscription is impossible or too expensive, `onGaveUp` has received the reason.
 */
// A busy directory is scanned anyway, and the stream of its events would cost more than the scans.
export async function subscribeOnce(
  dir: Uint8Array,
  options: SubscribeOptions,
): Promise<EventSubscription | undefined> {
  const path = Buffer.from(dir).toString();
  const name = bytesText(dir);
  const giveUp = (why: string, hint: string) =>
    options.onGaveUp(
      warning('watch_given_up', name, { message: `changes are found by scans alone: ${why}`, hint }),
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
  // Closed from within an event handler, the library would leave open a watch that it is about to begin.
  const close = async () => {
    await new Promise((resolve) => setImmediate(resolve));
    await watcher.close();
  };
  let isOver = false;
  await new Promise<void>((resolve) => {
    const late = setTimeout(() => end(() => {}), BEGINS_WITHIN_MS);
    const began = () => {
      clearTimeout(late);
      resolve();
    };
    // A partial watch would miss changes at random: the first failure ends it too.
    const end = (report: () => void) => {
      if (isOver) return;
      isOver = true;
      void close();
      report();
      began();
    };
    watcher.once('ready', began);
    watcher.on('all', () => end(options.onEvent));
    watcher.on('error', (error) => {
      const code = systemCode(error) ?? 'unknown';
      end(() => giveUp(`the system refuses to watch it (${code})`, hintOf(code)));
    });
  });
  return isOver ? undefined : { close };
}

function isRemote(path: string): boolean {
  try {
    return REMOTE.has(statfsSync(path).type);
  } catch {
    // The directory is gone: the next scan reports that.
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
    return 'not readable here';
  }
}
