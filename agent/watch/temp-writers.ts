import { readFileSync } from 'node:fs';
import { systemCode } from '../../core/errors.ts';
import { type BytePath, pathText } from '../../core/path.ts';

/**
 * State of the process that a temporary file is named after.
 *
 * `unseen` is a process that this machine does not show: it has ended, or it runs in another container.
 */
export type WriterState = 'alive' | 'gone' | 'unseen';

/** Remembers which writers of temporary files were seen alive, so that their end can be told from a container's wall. */
export class TempWriters {
  readonly #seenAlive = new Set<number>();
  readonly #isInstanceDown: () => boolean;

  /** `isInstanceDown` reports whether there is evidence that the instance does not run. */
  constructor(isInstanceDown: () => boolean = () => false) {
    this.#isInstanceDown = isInstanceDown;
  }

  /** Returns the state of the process that a temporary file is named after. */
  stateOf(path: BytePath): WriterState {
    const pid = pidOf(path);
    if (pid === undefined) return 'unseen';
    if (isRunning(pid)) {
      this.#seenAlive.add(pid);
      return 'alive';
    }
    return this.#seenAlive.has(pid) || this.#isInstanceDown() ? 'gone' : 'unseen';
  }
}

/** Returns the process id in the name of a temporary file. */
function pidOf(path: BytePath): number | undefined {
  const [, pid] = /\.tmp\.([0-9]{1,10})\.[^/]*$/.exec(pathText(path)) ?? [];
  return pid === undefined ? undefined : Number(pid);
}

/** Reports whether this machine shows a process that has not ended. */
function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    // EPERM: it belongs to another user.
    if (systemCode(error) !== 'EPERM') return false;
  }
  // A process that has ended but was not waited for takes signals too.
  return !/^[ZX]/.test(processState(pid));
}

/** Returns the letter of a process's state; empty where the system does not show it. */
function processState(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3);
  } catch {
    // It has just ended, or there is no such folder on this system.
    return '';
  }
}
