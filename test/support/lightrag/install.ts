// Installs of real LightRAG servers, one folder a version in the user's cache: a second run costs nothing.
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { installVocabularies } from './vocabularies.ts';

const run = promisify(execFile);
const PIP_MS = 15 * 60_000;
const PROBE_MS = 60_000;
const OUTPUT_MAX = 1 << 24;
const PACKAGE = 'lightrag-hku';
/** What a server would install itself at its start, without asking, if it were not there. */
const AT_START = ['uvicorn', 'tiktoken', 'fastapi'];

/** The last version that writes in place, the first with ids of chunks by document, and the one that CI gets. */
export const WRITES_IN_PLACE = '1.4.9.11';
export const CI_VERSION = '1.5.7';
export const VERSIONS = [WRITES_IN_PLACE, '1.5.0', CI_VERSION] as const;

/** An installed server. */
export interface Installed {
  readonly version: string;
  readonly python: string;
  /** Folder for TIKTOKEN_CACHE_DIR. */
  readonly vocabularies: string;
}

/** Returns the folder that holds the installs, after the XDG rules. */
export function cacheFolder(): string {
  const cache = process.env.XDG_CACHE_HOME;
  const base = cache === undefined || cache === '' ? join(homedir(), '.cache') : cache;
  return join(base, 'lightkeeper/lightrag');
}

async function firstThatRuns(
  commands: readonly string[],
  args: readonly string[],
): Promise<string | undefined> {
  for (const command of commands) {
    const runs = await run(command, args, { timeout: PROBE_MS }).then(
      () => true,
      () => false,
    );
    if (runs) return command;
  }
  return undefined;
}

/** Returns a Python that LightRAG runs on and that can make virtual environments. */
function findPython(): Promise<string | undefined> {
  const probe = 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))';
  return firstThatRuns(['python3', 'python3.13', 'python3.12', 'python3.11', 'python3.10'], ['-c', probe]);
}

/** Returns the versions in pip's registry, the newest first; none if it does not reply. */
async function registryVersions(python: string): Promise<string[]> {
  const words = ['-m', 'pip', 'index', 'versions', PACKAGE, '--disable-pip-version-check'];
  const listed = await run(python, words, { timeout: PROBE_MS }).catch(() => undefined);
  const [, versions = ''] = /^Available versions: (.*)$/m.exec(listed?.stdout ?? '') ?? [];
  return versions.split(', ').filter((version) => version !== '');
}

/** Returns the newest release in pip's registry; undefined without Python or registry. */
export async function newestVersion(): Promise<string | undefined> {
  const python = await findPython();
  return python === undefined ? undefined : (await registryVersions(python))[0];
}

function folderOf(version: string): string {
  return join(cacheFolder(), version);
}

/** Returns what a machine lacks to install a version, for the `skip` of a test; false if it lacks nothing. */
export async function lackingFor(version: string): Promise<string | false> {
  if (existsSync(folderOf(version))) return false;
  const python = await findPython();
  if (python === undefined) return 'needs Python 3.10 with venv';
  if (!(await registryVersions(python)).includes(version))
    return `needs pip's registry with LightRAG ${version}`;
  return (await firstThatRuns(['npm'], ['--version'])) === undefined ? 'needs npm' : false;
}

/** Installs a version, if it is not in the cache, and returns its place. */
export async function installLightRag(
  version: string,
  log: (line: string) => void = () => {},
): Promise<Installed> {
  const vocabularies = await installVocabularies(cacheFolder());
  const folder = folderOf(version);
  if (!existsSync(folder)) await install(version, folder, log);
  return { version, python: join(folder, 'venv/bin/python'), vocabularies };
}

async function install(version: string, folder: string, log: (line: string) => void): Promise<void> {
  const python = await findPython();
  if (python === undefined) throw new Error('there is no Python 3.10 with venv');
  const began = performance.now();
  // Renamed when it is whole, which works because only `bin/python` is ever started, no script with a path in it.
  const unfinished = `${folder}.${process.pid}.tmp`;
  await rm(unfinished, { recursive: true, force: true });
  await mkdir(unfinished, { recursive: true });
  try {
    await run(python, ['-m', 'venv', join(unfinished, 'venv')], { timeout: PIP_MS });
    const own = join(unfinished, 'venv/bin/python');
    const wanted = [`${PACKAGE}[api]==${version}`, ...AT_START];
    const pip = [
      '-m',
      'pip',
      'install',
      '--quiet',
      '--disable-pip-version-check',
      '--prefer-binary',
      '--no-compile',
      ...wanted,
    ];
    await run(own, pip, { timeout: PIP_MS, maxBuffer: OUTPUT_MAX });
    const { stdout } = await run(own, ['-m', 'pip', 'freeze'], { timeout: PIP_MS });
    await writeFile(join(unfinished, 'packages.txt'), stdout);
    await rename(unfinished, folder);
  } catch (error) {
    await rm(unfinished, { recursive: true, force: true });
    // Another process may have been quicker.
    if (!existsSync(folder)) throw error;
  }
  log(`LightRAG ${version} installed in ${Math.round((performance.now() - began) / 1000)} s`);
}

/** Returns the packages that were installed with a version, by name. */
export async function installedPackages(version: string): Promise<ReadonlyMap<string, string>> {
  const text = await readFile(join(folderOf(version), 'packages.txt'), 'utf8');
  const lines = text.split('\n').map((line) => line.split('=='));
  return new Map(lines.map(([name = '', release = '']) => [name.toLowerCase(), release]));
}
