import { execFile } from 'node:child_process';
import { chmod, mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Removes a folder whatever is in it: paths beyond PATH_MAX, folders that their owner may not enter. */
export async function removeAll(path: string): Promise<void> {
  const attempt = () => run('rm', ['-rf', '--one-file-system', path]);
  // What was unreadable for its owner is made readable once; a second failure is the test's.
  await attempt().catch(async () => {
    await run('chmod', ['-R', 'u+rwx', path]).catch(() => {});
    await attempt();
  });
}

/** A test, or whatever else ends and then undoes what it did. */
export interface Scope {
  after(undo: () => Promise<void>): void;
}

const undone = new WeakMap<Scope, (() => unknown)[]>();

/** Has something undone when the test ends, the last first: what writes to a folder ends before that is removed. */
export function atEnd(t: Scope, undo: () => unknown): void {
  const steps = undone.get(t) ?? [];
  if (steps.push(undo) > 1) return;
  undone.set(t, steps);
  t.after(async () => {
    for (const step of steps.reverse()) await step();
  });
}

/** A new folder that is removed when the test ends. Other users may enter it. */
export async function tempFolder(t: Scope, parent = tmpdir()): Promise<string> {
  const place = await mkdtemp(join(parent, 'lightkeeper-test-'));
  await chmod(place, 0o755);
  atEnd(t, () => removeAll(place));
  return place;
}

/** Waits until something is true, looking again and again. */
export async function until(what: string, holds: () => boolean | Promise<boolean>, ms = 20_000) {
  const end = performance.now() + ms;
  for (;;) {
    const began = performance.now();
    if (await holds()) return;
    if (performance.now() > end) throw new Error(`waited ${ms} ms in vain for: ${what}`);
    // Looking must not take the machine from what is waited for.
    const pauseMs = Math.max(20, Math.min(4 * (performance.now() - began), 200));
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
}
