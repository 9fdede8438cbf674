import { join } from 'node:path';
import { run } from './measure.ts';

/** The built program. */
export const OURS = [process.execPath, 'dist/lightkeeper.js'] as const;

/** Where a bench puts its files: on the disk of the temporary folder, or `LIGHTKEEPER_BENCH_DIR`. */
export const PLACE = process.env.LIGHTKEEPER_BENCH_DIR ?? '/tmp/lightkeeper-bench';

const borgEnv = {
  BORG_BASE_DIR: join(PLACE, 'borg-base'),
  BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK: 'yes',
  BORG_RELOCATED_REPO_ACCESS_IS_OK: 'yes',
} as const;
const resticEnv = { RESTIC_PASSWORD: 'bench', RESTIC_CACHE_DIR: join(PLACE, 'restic-cache') } as const;

/** What a tool must be able to do to be compared with. */
export interface Peer {
  readonly name: string;
  readonly env: Readonly<Record<string, string>>;
  /** Its cache folder, and the variable that names it. */
  readonly cache: string;
  readonly cacheVariable: string;
  init(repo: string): Promise<void>;
  create(repo: string, name: string, dir: string): readonly string[];
  /** Writes the named point into the present folder. */
  extract(repo: string, name: string, to: string): readonly string[];
  check(repo: string): readonly string[];
}

export const borg: Peer = {
  name: 'borg',
  env: borgEnv,
  cache: borgEnv.BORG_BASE_DIR,
  cacheVariable: 'BORG_BASE_DIR',
  init: async (repo) =>
    void (await run('borg', ['init', '-e', 'none', repo], { env: { ...process.env, ...borgEnv } })),
  create: (repo, name, dir) => ['borg', 'create', '-C', 'zstd,3', `${repo}::${name}`, dir],
  extract: (repo, name) => ['borg', 'extract', `${repo}::${name}`],
  check: (repo) => ['borg', 'check', '--verify-data', repo],
};

export const restic: Peer = {
  name: 'restic',
  env: resticEnv,
  cache: resticEnv.RESTIC_CACHE_DIR,
  cacheVariable: 'RESTIC_CACHE_DIR',
  init: async (repo) =>
    void (await run('restic', ['-r', repo, 'init'], { env: { ...process.env, ...resticEnv } })),
  create: (repo, name, dir) => ['restic', '-r', repo, 'backup', '--tag', name, '--host', 'bench', dir],
  extract: (repo, name, to) => ['restic', '-r', repo, 'restore', 'latest', '--tag', name, '--target', to],
  check: (repo) => ['restic', '-r', repo, 'check', '--read-data'],
};

/** Refuses to begin without the tools to compare with. */
export async function checkPeers(): Promise<Record<string, string>> {
  const versions: Record<string, string> = { node: process.version };
  for (const [name, args] of [
    ['borg', ['--version']],
    ['restic', ['version']],
  ] as const) {
    const { stdout } = await run(name, [...args]).catch(() => {
      throw new Error(`Cannot run the benchmarks: ${name} is missing (apt-get install borgbackup restic)`);
    });
    versions[name] = stdout.trim();
  }
  return versions;
}
