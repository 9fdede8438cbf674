// Bundles the program: one start file, its lazily loaded parts, and the worker. Start-up time is why
// it is a bundle: resolving some two hundred small modules costs more than the program itself.
import { chmod, readFile, rm } from 'node:fs/promises';
import { build } from 'esbuild';

const { version, dependencies } = JSON.parse(await readFile('package.json', 'utf8'));
const native = Object.keys(dependencies).filter((name) => ['level', 'zstd-napi'].includes(name));

await rm('dist', { recursive: true, force: true });
await build({
  entryPoints: { lightkeeper: 'cli/main.ts', worker: 'agent/worker.ts' },
  outdir: 'dist',
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
await chmod('dist/lightkeeper.js', 0o755);
