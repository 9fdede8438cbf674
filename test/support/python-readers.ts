import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

/** The readers of `python-readers.py`. */
export type PythonKind = 'json' | 'record-json' | 'xml' | 'graph' | 'matrix';

/** What Python read, or why it refused the input. */
export type PythonReading = { readonly value: unknown } | { readonly error: string };

const PYTHON = process.env.LIGHTKEEPER_PYTHON ?? 'python3';
const SCRIPT = join(import.meta.dirname, 'python-readers.py');
const OUTPUT_MAX = 1 << 30;

/** Why Python cannot be asked, with the modules that are needed; false if it can. */
export function lacksPython(...modules: readonly string[]): string | false {
  const { status } = spawnSync(PYTHON, [
    '-c',
    ['pass', ...modules.map((name) => `import ${name}`)].join('\n'),
  ]);
  return status === 0 ? false : `there is no python3${modules.map((name) => ` with ${name}`).join('')}`;
}

/** Reads inputs with Python, all in one process. */
export function readWithPython(kind: PythonKind, inputs: readonly Buffer[]): PythonReading[] {
  const lines = inputs.map((bytes) => JSON.stringify({ kind, bytes: bytes.toString('base64') }));
  const { status, stdout, stderr } = spawnSync(PYTHON, [SCRIPT], {
    input: `${lines.join('\n')}\n`,
    maxBuffer: OUTPUT_MAX,
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`python failed: ${stderr.slice(-500)}`);
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as PythonReading);
}
