// `npm run prove -- NAME [COUNT [SEED]]` runs one of the long proofs; without a name it lists them. Some take flags.
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { basename, join } from 'node:path';

/** A proof: logs what it does and how much of it, and throws if something does not hold. */
interface Proof {
  run(log: (line: string) => void, flags: readonly string[]): Promise<void>;
}

const names = readdirSync(import.meta.dirname)
  .filter((file) => file.endsWith('.ts') && file !== basename(import.meta.filename))
  .filter((file) =>
    /^export async function run\(/m.test(readFileSync(join(import.meta.dirname, file), 'utf8')),
  )
  .map((file) => basename(file, '.ts'))
  .sort();

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** Returns the commit that the sources are of, and whether they have been changed since. */
function commit(): string {
  const git = (...words: string[]) =>
    execFileSync('git', words, { cwd: import.meta.dirname, encoding: 'utf8', stdio: 'pipe' }).trim();
  try {
    const isChanged = git('status', '--porcelain', '--untracked-files=no') !== '';
    return `commit ${git('rev-parse', 'HEAD')}${isChanged ? ' with changes' : ''}`;
  } catch {
    // The sources may have been unpacked without their history.
    return 'an unknown commit';
  }
}

async function prove(name: string, flags: readonly string[]): Promise<void> {
  const proof = (await import(`./${name}.ts`)) as Proof;
  const started = performance.now();
  say(
    `proof "${name}" of ${commit()}, on Node ${process.version}, ${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GiB`,
  );
  try {
    await proof.run(say, flags);
    say(`0 failures, proven in ${Math.round((performance.now() - started) / 1000)} s`);
  } catch (error) {
    say(error instanceof Error ? (error.stack ?? String(error)) : String(error));
    if (error instanceof Error && error.cause !== undefined) say(`because of ${String(error.cause)}`);
    say('NOT PROVEN');
    process.exitCode = 1;
  }
}

const [name, ...words] = process.argv.slice(2);
const firstFlag = words.findIndex((word) => word.startsWith('-'));
const [count, seed] = firstFlag === -1 ? words : words.slice(0, firstFlag);
const flags = firstFlag === -1 ? [] : words.slice(firstFlag);
if (count !== undefined) process.env.LIGHTKEEPER_COUNT = count;
if (seed !== undefined) process.env.LIGHTKEEPER_SEED = seed;
if (name !== undefined && names.includes(name)) await prove(name, flags);
else {
  say(`proofs: ${names.join(', ')}`);
  if (name !== undefined) {
    say(`there is no proof "${name}"`);
    process.exitCode = 2;
  }
}
