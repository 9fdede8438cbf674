import { closeSync, openSync, readSync, realpathSync } from 'node:fs';
import { hostname } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { homeState } from '../places.ts';
import { emptyMap, type Mapping } from './node.ts';
import type { ProblemReport } from './problem.ts';

/** What reading settings needs of the machine. */
export interface SettingsMachine {
  readonly cwd: string;
  /** Default state folder. */
  readonly state: string;
  readonly hostName: string;
  /** Returns a file's text; throws the error of the system. */
  readonly readText: (path: string, bytesMax: number) => string;
  /** Returns a path without links, as far as it exists. */
  readonly realPath: (path: string) => string;
}

/** Returns the machine that this process runs on. */
export function settingsMachine(env: NodeJS.ProcessEnv): SettingsMachine {
  return { cwd: process.cwd(), state: homeState(env), hostName: hostname(), readText, realPath };
}

/** Longest settings file, in bytes. */
const FILE_BYTES_MAX = 1 << 20;

/** Reads a settings file. Returns undefined if it cannot be read, which is reported. */
export async function readSettingsFile(
  file: string,
  machine: SettingsMachine,
  report: ProblemReport,
): Promise<Mapping | undefined> {
  const at = { origin: { kind: 'environment', name: file } as const, path: '' };
  let text: string;
  try {
    text = machine.readText(resolve(machine.cwd, file), FILE_BYTES_MAX);
  } catch (error) {
    report.problem(at, `the file cannot be read: ${error instanceof Error ? error.message : String(error)}`);
    return undefined;
  }
  const { parseYaml } = await import('./yaml.ts');
  const before = report.problems.length;
  const node = parseYaml(text, { kind: 'file', name: file }, report);
  if (node?.kind === 'map') return node;
  if (node === undefined || (node.kind === 'scalar' && node.value === null))
    return report.problems.length > before ? undefined : emptyMap();
  report.problem(at, 'the file holds no map of settings');
  return undefined;
}

/** Reads the text of a file or pipe, up to `bytesMax` bytes. */
function readText(path: string, bytesMax: number): string {
  const descriptor = openSync(path, 'r');
  try {
    const bytes = Buffer.alloc(bytesMax + 1);
    let length = 0;
    for (let read = -1; read !== 0 && length < bytes.length; length += read)
      read = readSync(descriptor, bytes, length, bytes.length - length, null);
    if (length > bytesMax) throw new Error(`it is longer than ${bytesMax} bytes`);
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(0, length));
  } finally {
    closeSync(descriptor);
  }
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    // The path does not exist yet, or cannot be read: a folder above it may still be a link.
    const above = dirname(path);
    return above === path ? path : join(realPath(above), basename(path));
  }
}
