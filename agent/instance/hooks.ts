import { spawn } from 'node:child_process';
import { warning } from '../../core/finding.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';

/** Output of a hook that is kept for its finding. */
const OUTPUT_KEPT_BYTES = 2000;

/** Shell lines that are run around a capture. */
export interface CaptureHooks {
  readonly preCapture: readonly string[];
  readonly postCapture: readonly string[];
  /** For each line. */
  readonly timeoutMs: number;
}

/**
 * Runs shell lines one after another, and ends at the first that fails; answers the finding of that. A line that
 * takes too long is ended with all that it has started.
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

/** Answers how the line failed; undefined if it did not. */
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
  const keep = (data: Buffer) => {
    output = (output + data.toString()).slice(-OUTPUT_KEPT_BYTES);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  let late = false;
  return await new Promise((resolve) => {
    const timer = setTimeout(() => {
      late = true;
      endGroup(child.pid);
      // What left the group may still hold the pipes; nobody waits for it.
      child.stdout.destroy();
      child.stderr.destroy();
    }, timeoutMs);
    child.once('error', (error) => {
      clearTimeout(timer);
      resolve(`could not be started: ${error.message}`);
    });
    child.once('exit', (code, signal) => {
      clearTimeout(timer);
      const said = output.trim() === '' ? '' : `: ${output.trim()}`;
      if (late) resolve(`took longer than ${timeoutMs} ms and was ended${said}`);
      else resolve(code === 0 ? undefined : `ended with ${code ?? signal}${said}`);
    });
  });
}

function endGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // It has just ended by itself.
  }
}
