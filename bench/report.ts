import { writeFile } from 'node:fs/promises';
import { cpus, release, totalmem } from 'node:os';
import type { Series } from './measure.ts';

/** What a ratio must be, and what we want to be known for. */
export interface Marks {
  readonly floor: number;
  readonly goal?: number;
}

/** Gathers the rows of docs/benchmarks.md. */
export class Report {
  readonly #lines: string[] = [];
  readonly #rss = new Map<string, number>();
  #missed = 0;

  readonly log = (line: string): void => {
    process.stderr.write(`${line}\n`);
  };

  note(text: string): void {
    this.log(text);
    this.#lines.push(text, '');
  }

  /** A row of seconds, and how much faster ours is than the peer. */
  speed(title: string, series: readonly Series[], peer: string, marks: Marks): void {
    const ours = series.find(({ name }) => name === 'ours');
    const theirs = series.find(({ name }) => name === peer);
    if (ours === undefined || theirs === undefined) throw new Error(`${title}: a series is missing`);
    const ratio = theirs.median / ours.median;
    const all = series.map(({ name, median, seconds }) => {
      return `| ${name} | ${median.toFixed(2)} s | ${Math.min(...seconds).toFixed(2)}–${Math.max(...seconds).toFixed(2)} s |`;
    });
    const verdict = this.#verdict(ratio >= marks.floor, marks.goal === undefined || ratio >= marks.goal);
    const text = `${ratio.toFixed(2)}× the speed of ${peer} (floor ${marks.floor}, goal ${marks.goal ?? '-'}): ${verdict}`;
    this.log(`${title}: ${text}`);
    this.#lines.push(
      `## ${title}`,
      '',
      `**${text}**`,
      '',
      '| | median | range |',
      '|---|---|---|',
      ...all,
      '',
    );
  }

  memory(title: string, series: readonly Series[]): void {
    const text = series.map(({ name, rssBytes }) => `${name} ${(rssBytes / 1e6).toFixed(0)} MB`).join(', ');
    const ours = series.find(({ name }) => name === 'ours')?.rssBytes ?? Number.NaN;
    this.#rss.set(title, ours);
    const verdict = this.#verdict(ours <= 220e6, ours <= 160e6);
    this.log(`${title}, memory: ${text}`);
    this.#lines.push(`Peak memory: ${text} (floor 220 MB, goal 160 MB: ${verdict}).`, '');
  }

  /** Our peak memory in a section, in bytes. */
  rssOf(title: string): number {
    return this.#rss.get(title) ?? Number.NaN;
  }

  /** A figure that must not be larger than its marks. */
  ratio(title: string, value: number, options: Marks & { text: string }): void {
    const verdict = this.#verdict(
      value <= options.floor,
      options.goal === undefined || value <= options.goal,
    );
    this.log(`${title}: ${value.toFixed(3)} ${options.text}: ${verdict}`);
    const marks = options.goal === undefined ? `${options.floor}` : `${options.floor}, goal ${options.goal}`;
    this.#lines.push(
      `## ${title}`,
      '',
      `**${value.toFixed(3)}** (at most ${marks}): ${verdict}. ${options.text}.`,
      '',
    );
  }

  #verdict(floor: boolean, goal: boolean): string {
    if (!floor) this.#missed += 1;
    return floor ? (goal ? 'goal met' : 'floor met') : 'FLOOR MISSED';
  }

  /** Writes the page; answers how many floors were missed. */
  async write(path: string, versions: Readonly<Record<string, string>>): Promise<number> {
    const machine = `${cpus().length} cores (${cpus()[0]?.model.trim() ?? 'unknown'}), ${(totalmem() / 2 ** 30).toFixed(0)} GiB, Linux ${release()}`;
    const head = [
      '# Benchmarks',
      '',
      'Written by `npm run bench`: medians of five alternating runs, `sync` before each, page cache warm, ours with',
      'everything fsynced and every frame decoded and hashed again before it counts, borg with `-C zstd,3` and no',
      'encryption. Ratios are within one run on one machine; absolute figures are of that machine.',
      '',
      `Machine: ${machine}. Versions: ${Object.entries(versions)
        .map(([name, version]) => `${name} ${version}`)
        .join(', ')}.`,
      '',
    ];
    await writeFile(path, `${[...head, ...this.#lines].join('\n').trimEnd()}\n`);
    return this.#missed;
  }
}
