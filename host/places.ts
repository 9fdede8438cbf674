import { homedir } from 'node:os';
import { join, resolve } from 'node:path';

/** Returns the default state folder: under /var/lib for root, else in the home of the user. */
export function homeState(env: NodeJS.ProcessEnv): string {
  if (process.getuid?.() === 0) return '/var/lib/lightkeeper';
  const xdg = env.XDG_STATE_HOME;
  return xdg !== undefined && xdg !== ''
    ? join(xdg, 'lightkeeper')
    : join(homedir(), '.local', 'state', 'lightkeeper');
}

/** Variables that name the store; the first that is set wins. The original system has the last two. */
export const STORE_VARIABLES = [
  'LIGHTKEEPER_STORE',
  'LIGHTRAG_BACKUP_STORAGE_PATH',
  'LIGHTRAG_BACKUP_STORAGE',
] as const;

/** Variables of the original system for copies in an object store. */
export const BUCKET_VARIABLES = [
  'LIGHTRAG_BACKUP_S3_BUCKET',
  'LIGHTRAG_BACKUP_S3_REGION',
  'LIGHTRAG_BACKUP_S3_KEY_PREFIX',
] as const;

// A set variable is refused, so that nobody believes in copies that do not exist.
/** Returns the hint for a variable of an object store. */
export function bucketHint(name: string): string {
  return `unset ${name} and name a folder with --store or LIGHTRAG_BACKUP_STORAGE_PATH`;
}

/** Returns the store that the variables name; undefined if none does. */
export function storeVariable(env: NodeJS.ProcessEnv): { name: string; path: string } | undefined {
  for (const name of STORE_VARIABLES) {
    const value = env[name];
    if (value !== undefined && value !== '') return { name, path: resolve(value) };
  }
  return undefined;
}
