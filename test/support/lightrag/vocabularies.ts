// The vocabularies that a server's tokenizer wants at its start, without the host that it would fetch them from.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const NPM_MS = 5 * 60_000;
/** An npm package that has them in a layout of its own. */
const SOURCE = 'js-tiktoken@1.0.21';
/** SHA-256 of each file, as tiktoken itself checks it. */
const SHA256 = {
  cl100k_base: '223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7',
  o200k_base: '446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d',
} as const;

type Name = keyof typeof SHA256;
const NAMES = Object.keys(SHA256) as Name[];

/** Returns the name under which tiktoken caches a vocabulary: the SHA-1 of its URL. */
function cacheName(name: Name): string {
  const url = `https://openaipublic.blob.core.windows.net/encodings/${name}.tiktoken`;
  return createHash('sha1').update(url).digest('hex');
}

/** Returns a vocabulary in tiktoken's layout, a line for each token with its rank, from the package's. */
function toTiktoken(ranks: string): string {
  const lines: [rank: number, token: string][] = [];
  for (const line of ranks.split('\n')) {
    const [, first, ...tokens] = line.split(' ');
    for (const [i, token] of tokens.entries()) lines.push([Number(first) + i, token]);
  }
  lines.sort(([a], [b]) => a - b);
  return lines.map(([rank, token]) => `${token} ${rank}\n`).join('');
}

async function unpack(place: string): Promise<string> {
  await run('npm', ['pack', SOURCE, '--silent'], { cwd: place, timeout: NPM_MS });
  await run('sh', ['-c', 'tar xzf js-tiktoken-*.tgz'], { cwd: place });
  return join(place, 'package/dist/ranks');
}

/** Makes the folder for TIKTOKEN_CACHE_DIR below `cache`, if it is not there, and returns it. */
export async function installVocabularies(cache: string): Promise<string> {
  const folder = join(cache, 'tiktoken');
  if (NAMES.every((name) => existsSync(join(folder, cacheName(name))))) return folder;
  await mkdir(folder, { recursive: true });
  const place = await mkdtemp(join(tmpdir(), 'lightkeeper-npm-'));
  try {
    const ranks = await unpack(place);
    for (const name of NAMES) {
      const source = await readFile(join(ranks, `${name}.cjs`), 'utf8');
      // A module that exports one literal.
      const literal = source.slice(source.indexOf('{'), source.lastIndexOf('}') + 1);
      const made = toTiktoken((JSON.parse(literal) as { bpe_ranks: string }).bpe_ranks);
      const sha256 = createHash('sha256').update(made).digest('hex');
      if (sha256 !== SHA256[name]) throw new Error(`${SOURCE} has another ${name}: ${sha256}`);
      const path = join(folder, cacheName(name));
      await writeFile(`${path}.${process.pid}`, made);
      await rename(`${path}.${process.pid}`, path);
    }
  } finally {
    await rm(place, { recursive: true, force: true });
  }
  return folder;
}
