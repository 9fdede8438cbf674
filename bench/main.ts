import { rm } from 'node:fs/promises';
import { compareWith } from './against.ts';
import { checks } from './check.ts';
import { following } from './following.ts';
import { idle } from './idle.ts';
import { live } from './live.ts';
import { checkPeers, PLACE } from './peers.ts';
import { Report } from './report.ts';
import { bigMemory, captures, restores } from './speed.ts';
import { stored } from './stored.ts';

const GB = 1e9;

/**
 * `npm run bench [-- --quick] [--live | --following] [--against CHECKOUT]`: all claims of docs/benchmarks.md. `--quick`
 * takes a tenth of the size, `--live` only the part of a running agent and of the checks, `--following` only that of
 * following, `--against` compares with the build in another checkout; these write nothing.
 */
async function main(args: readonly string[]): Promise<void> {
  const quick = args.includes('--quick');
  const against = args.indexOf('--against');
  if (against >= 0) {
    const log = (line: string) => void process.stdout.write(`${line}\n`);
    const slower = await compareWith(args[against + 1] ?? '', quick ? 0.1 * GB : 1.09 * GB, log);
    await rm(PLACE, { recursive: true, force: true });
    if (slower > 0) process.exitCode = 1;
    return;
  }
  const versions = await checkPeers();
  const report = new Report();
  const bytes = quick ? 0.1 * GB : 1.09 * GB;
  const part = args.includes('--live') || args.includes('--following');
  if (!part) {
    const { dir } = await captures(bytes, report);
    await restores(dir, report);
    await stored(report);
    await bigMemory(4 * bytes, report.rssOf('First snapshot'), report);
    await idle(bytes, report);
  }
  if (!args.includes('--following')) {
    await live(bytes, report);
    await checks(bytes, report);
  }
  if (!args.includes('--live')) await following(bytes, report);
  await rm(PLACE, { recursive: true, force: true });
  const missed = await report.write(quick || part ? '/dev/stdout' : 'docs/benchmarks.md', versions);
  if (missed > 0) {
    process.stderr.write(`${missed} floors missed\n`);
    process.exitCode = 1;
  }
}

await main(process.argv.slice(2));
