// Bundles the program (one start file, its lazily loaded parts, the worker) and the stand-in instance into dist/.
// Start-up time is the reason: to resolve some two hundred small modules takes longer than the program itself.
import { execFile } from 'node:child_process';
import { chmod, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { build } from 'esbuild';
import { thirdPartyNotices } from './notices.mjs';

const { version, dependencies, optionalDependencies } = JSON.parse(await readFile('package.json', 'utf8'));

// A package from an archive has no history, and a folder above it may have a foreign one.
/** Returns the commit of the sources; empty if there is no git or no history. */
async function sourceCommit() {
  if ((await stat('.git').catch(() => undefined)) === undefined) return '';
  const asked = promisify(execFile)('git', ['rev-parse', '--short=12', 'HEAD']);
  return await asked.then(
    ({ stdout }) => stdout.trim(),
    () => '',
  );
}

// Built beside dist/ and swapped, so that a program that starts meanwhile finds the old files or the new ones.
const fresh = `.dist-new-${process.pid}`;
const stale = `.dist-old-${process.pid}`;
const { metafile } = await build({
  entryPoints: {
    lightkeeper: 'cli/main.ts',
    worker: 'agent/workers/thread-main.ts',
    instance: 'demo/instance/main.ts',
  },
  outdir: fresh,
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node20.19',
  metafile: true,
  // Native packages are installed. All others are devDependencies, and their code goes into the bundle.
  external: Object.keys({ ...dependencies, ...optionalDependencies }),
  define: {
    LIGHTKEEPER_VERSION: JSON.stringify(version),
    LIGHTKEEPER_COMMIT: JSON.stringify(await sourceCommit()),
  },
  // Bundled CommonJS libraries call require for Node's own modules.
  banner: {
    js: "import { createRequire as $createRequire } from 'node:module'; const require = $createRequire(import.meta.url);",
  },
  logLevel: 'warning',
});
await chmod(`${fresh}/lightkeeper.js`, 0o755);
await writeFile(`${fresh}/THIRD_PARTY_NOTICES`, await thirdPartyNotices(metafile));
await rename(`${fresh}/THIRD_PARTY_NOTICES`, 'THIRD_PARTY_NOTICES');
await rename('dist', stale).catch((error) => {
  if (error.code !== 'ENOENT') throw error;
});
await rename(fresh, 'dist');
await rm(stale, { recursive: true, force: true });
