// Bundles the program: one start file, its lazily loaded parts, and the worker; beside it the stand-in instance.
// Start-up time is why it is a bundle: resolving some two hundred small modules costs more than the program itself.
import { chmod, readFile, rename, rm } from 'node:fs/promises';
import { build } from 'esbuild';

const { version, dependencies } = JSON.parse(await readFile('package.json', 'utf8'));
const native = Object.keys(dependencies).filter((name) => ['level', 'zstd-napi'].includes(name));

// Built beside and then swapped, so that a program that starts meanwhile finds the old files or the new.
const fresh = `.dist-new-${process.pid}`;
const stale = `.dist-old-${process.pid}`;
await build({
  entryPoints: {
    lightkeeper: 'cli/main.ts',
    worker: 'agent/workers/thread.ts',
    instance: 'demo/instance/main.ts',
  },
  outdir: fresh,
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node20.19',
  sourcemap: 'linked',
  external: [...native, 'zstd-napi/binding.js'],
  define: { LIGHTKEEPER_VERSION: JSON.stringify(version) },
  // Bundled CommonJS libraries call require for Node's own modules.
  banner: {
    js: "import { createRequire as $createRequire } from 'node:module'; const require = $createRequire(import.meta.url);",
  },
  logLevel: 'warning',
});
await chmod(`${fresh}/lightkeeper.js`, 0o755);
await rename('dist', stale).catch((error) => {
  if (error.code !== 'ENOENT') throw error;
});
await rename(fresh, 'dist');
await rm(stale, { recursive: true, force: true });
