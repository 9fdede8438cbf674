import { execFile } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const FOLDER = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'lightkeeper', 'go');
/** A first build takes this long at most. */
const INSTALL_MS = 300_000;

/** Returns the path of a Go program, which is installed at its first use; undefined where there is no Go. */
export async function goTool(module: string): Promise<string | undefined> {
  const [path = ''] = module.split('@');
  const program = join(FOLDER, path.split('/').at(-1) ?? '');
  if (existsSync(program)) return program;
  const hasGo = await run('go', ['version']).then(
    () => true,
    () => false,
  );
  if (!hasGo) return undefined;
  mkdirSync(FOLDER, { recursive: true });
  // Where there is no network either, the program is not there.
  await run('go', ['install', module], {
    env: { ...process.env, GOBIN: FOLDER },
    timeout: INSTALL_MS,
  }).catch(() => {});
  return existsSync(program) ? program : undefined;
}
