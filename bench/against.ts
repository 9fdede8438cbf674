import { rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { alternate, type Contender, type Series } from './measure.ts';
import { OURS, PLACE } from './peers.ts';
import { fresh, ground } from './speed.ts';

const ROUNDS = 9;
/** Medians may differ by this share; beyond it the ranges must overlap. */
const TOLERANCE = 0.03;

/** A build of the program that is measured. */
interface Build {
  readonly name: 'before' | 'now';
  readonly program: readonly string[];
  readonly store: string;
}

function range({ seconds }: Series): [number, number] {
  return [Math.min(...seconds), Math.max(...seconds)];
}

function rangeText(series: Series): string {
  const [least, most] = range(series);
  return `${series.median.toFixed(3)} s (${least.toFixed(3)} to ${most.toFixed(3)})`;
}

/** Returns whether `now` is not slower than `before`: within the tolerance, or with ranges that overlap. */
function isNoSlower(before: Series, now: Series): boolean {
  const [leastNow] = range(now);
  const [, mostBefore] = range(before);
  return now.median <= before.median * (1 + TOLERANCE) || leastNow <= mostBefore;
}

/** What each part of the comparison runs, for one build. */
function parts(dir: string, more: string): Readonly<Record<string, (build: Build) => Contender>> {
  const snapshot = ({ program }: Build, from: string, store: string, ...flags: string[]) => [
    ...program,
    'snapshot',
    ...['--dir', from, '--graph', 'g', '--store', store],
    ...flags,
  ];
  const one = (build: Build, ...words: string[]): Contender => ({
    name: build.name,
    command: [...build.program, ...words, '--store', build.store],
  });
  return {
    'start: --version': ({ name, program }) => ({ name, command: [...program, '--version'] }),
    'first snapshot': (build) => ({
      name: build.name,
      prepare: () => fresh(build.store),
      command: snapshot(build, dir, build.store, '--no-grade'),
    }),
    'first snapshot, graded': (build) => ({
      name: build.name,
      prepare: () => fresh(build.store),
      command: snapshot(build, dir, build.store),
    }),
    'nothing changed': (build) => ({ name: build.name, command: snapshot(build, dir, build.store) }),
    'one percent more, graded': (build) => ({
      name: build.name,
      prepare: async () => {
        await fresh(`${build.store}-more`, build.store);
      },
      command: snapshot(build, more, `${build.store}-more`),
    }),
    restore: (build) => ({
      name: build.name,
      prepare: () => fresh(`${build.store}-restored`),
      command: [
        ...build.program,
        ...['restore', '--snapshot', 'latest', '--to', `${build.store}-restored`, '--store', build.store],
      ],
    }),
    'check of all bytes': (build) => one(build, 'verify', '--level', 'bytes'),
    'check of the directory': ({ name, program }) => ({
      name,
      command: [...program, 'validate', '--dir', dir],
    }),
    list: (build) => one(build, 'list'),
  };
}

/**
 * Compares this build with the one in another checkout, run by run in turn, and logs medians and ranges.
 * Returns the number of parts that have become slower.
 */
export async function compareWith(
  checkout: string,
  bytes: number,
  log: (line: string) => void,
): Promise<number> {
  const { dir, more } = await ground(bytes, log);
  const builds: Build[] = [
    {
      name: 'before',
      program: [process.execPath, join(resolve(checkout), 'dist/lightkeeper.js')],
      store: join(PLACE, 'store-before'),
    },
    { name: 'now', program: OURS, store: join(PLACE, 'store-now') },
  ];
  let slower = 0;
  for (const [part, contender] of Object.entries(parts(dir, more))) {
    log(part);
    const [before, now] = await alternate(builds.map(contender), ROUNDS, () => {});
    if (before === undefined || now === undefined) continue;
    const verdict = isNoSlower(before, now) ? 'no slower' : 'SLOWER';
    if (verdict === 'SLOWER') slower += 1;
    const ratio = now.median / before.median;
    log(`  before ${rangeText(before)}, now ${rangeText(now)}, ratio ${ratio.toFixed(3)}: ${verdict}`);
    log(`  memory ${(before.rssBytes / 1e6).toFixed(0)} MB, now ${(now.rssBytes / 1e6).toFixed(0)} MB`);
    for (const { store } of builds) await rm(`${store}-restored`, { recursive: true, force: true });
  }
  return slower;
}
