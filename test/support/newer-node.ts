import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** A release of Node that has zstd. */
const RELEASE = '24.21.0';
const PACKAGE = `node-${process.platform}-${process.arch}`;
const INSTALL_MS = 120_000;

const CACHE = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'lightkeeper-test');
const PLACE = join(CACHE, `${PACKAGE}-${RELEASE}`);
const PROGRAM = join('node_modules', PACKAGE, 'bin/node');

/** Reason for which a test is skipped if `npmInstall` or `newerNode` returns false or undefined. */
export const NO_REGISTRY = 'the npm registry cannot be reached';

/** Installs packages below a folder, without their scripts. Returns false if the registry cannot be reached. */
export async function npmInstall(folder: string, packages: readonly string[]): Promise<boolean> {
  const flags = '--ignore-scripts --omit=dev --prefer-offline --no-audit --no-fund --fetch-retries=0'.split(
    ' ',
  );
  try {
    await run('npm', ['install', ...flags, '--prefix', folder, ...packages], {
      cwd: folder,
      timeout: INSTALL_MS,
    });
    return true;
  } catch (error) {
    const unreachable =
      /\b(?:ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|ENOTCACHED)\b/;
    if (unreachable.test(String(error))) return false;
    throw error;
  }
}

/** Returns the path of a Node that has zstd, which npm installs once, or undefined without a registry. */
export async function newerNode(): Promise<string | undefined> {
  if (existsSync(join(PLACE, PROGRAM))) return join(PLACE, PROGRAM);
  await mkdir(CACHE, { recursive: true });
  const fresh = await mkdtemp(`${PLACE}-`);
  try {
    if (!(await npmInstall(fresh, [`${PACKAGE}@${RELEASE}`]))) return undefined;
    // Another test may have been faster; its copy is as good.
    await rename(fresh, PLACE).catch((error: unknown) => {
      if (!existsSync(join(PLACE, PROGRAM))) throw error;
    });
  } finally {
    await rm(fresh, { recursive: true, force: true });
  }
  return join(PLACE, PROGRAM);
}
