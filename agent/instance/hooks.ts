import { spawn } from 'node:child_process';
import { warning } from '../../core/finding.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';

/** Most bytes of a hook's output in its finding. */
const OUTPUT_BYTES_MAX = 2000;

/** Shell lines run before and after a capture. */
export interface CaptureHooks {
  readonly preCapture: readonly string[];
  readonly postCapture: readonly string[];
  /** Most milliseconds of each line. */
  readonly timeoutMs: number;
}

/**
 * Runs shell lines in order up to the first that fails. Returns a finding of that one. A line that takes too long is
 * killed with all processes it has started.
 */
export async function runHooks(
  lines: readonly string[],
  options: { timeoutMs: number; env: Readonly<Record<string, string>> },
): Promise<Finding | undefined> {
  for (const line of lines) {
    const failure = await runLine(line, options);
    if (failure === undefined) continue;
    return warning('hook_failed', line, {
      message: `the hook ${failure}`,
      hint: 'run it by hand as the user of the agent',
    });
  }
  return undefined;
}

/** Runs a shell line. Returns how it failed; undefined if it did not. */
async function runLine(
  line: string,
  { timeoutMs, env }: { timeoutMs: number; env: Readonly<Record<string, string>> },
): Promise<string | undefined> {
  const child = spawn('/bin/sh', ['-c', line], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  let output = '';
  const append = (data: Buffer) => {
    output = (output + data.toString()).slice(-OUTPUT_BYTES_MAX);
  };
  child.stdout.on('data', append);
  child.stderr.on('data', append);
  let late = false;
  return await new Promise((resolve) => {
    const timer = setTimeout(() => {
      late = true;
      killGroup(child.pid);
      // A process that left the group may hold the pipes open, and is not waited for.
      child.stdout.destroy();
      child.stderr.destroy();
    }, timeoutMs);
    child.once('error', (error) => {
      clearTimeout(timer);
      resolve(`could not be started: ${error.message}`);
    });
    child.once('exit', (code, signal) => {
      clearTimeout(timer);
      const detail = output.trim() === '' ? '' : `: ${output.trim()}`;
      if (late) resolve(`took longer than ${timeoutMs} ms and was killed${detail}`);
      else resolve(code === 0 ? undefined : `ended with ${code ?? signal}${detail}`);
    });
  });
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // It has just exited.
  }
}
