// What the built program says of a directory: by `validate`, and by an agent that guards it.
import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Finding } from '../case.ts';
import type { Scope } from '../place.ts';
import { Agent, jsonOf, lightkeeper, outcomeText } from '../program.ts';
import { filesMark } from './api.ts';

/** Time after which nothing may be torn any more: what is at rest is judged as such after a minute. */
const TORN_AT_MOST_MS = 65_000;
/** Grades, the worst first. */
const GRADES = ['INVALID', 'TORN', 'UNGRADED', 'DEGRADED', 'VALID'];
const AGAIN_MS = 5_000;
const POLL_MS = 500;
const CACHE = 'kv_store_llm_response_cache.json';

/** A grade with the findings that led to it. */
export interface Judged {
  readonly grade: string;
  readonly findings: readonly Finding[];
  /** How long it was torn before, in milliseconds; 0: it was not. */
  readonly tornMs: number;
}

export function isUsable({ grade }: Pick<Judged, 'grade'>): boolean {
  return grade === 'VALID' || grade === 'DEGRADED';
}

/** Returns codes of findings with their severities, those that lower a grade first. */
export function codesOf({ findings }: Pick<Judged, 'findings'>): string {
  const rank = ({ severity }: Finding) => ['ERROR', 'WARNING', 'INFO'].indexOf(severity);
  const sorted = [...findings].sort((a, b) => rank(a) - rank(b));
  return [...new Set(sorted.map(({ severity, code }) => `${severity[0]}:${code}`))].join(' ');
}

/** Returns whether a directory has workspaces, which are graded on their own. */
function hasWorkspaces(dir: string): boolean {
  const folders = readdirSync(dir, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return folders.some(({ name }) =>
    readdirSync(join(dir, name)).some((file) => file.startsWith('kv_store_')),
  );
}

/** Runs `validate` on a directory as it is now; of several workspaces the worst grade counts. */
export async function validate(dir: string, options: { isStopped?: boolean } = {}): Promise<Judged> {
  const isSplit = hasWorkspaces(dir);
  const flags = [
    ...(options.isStopped === true ? ['--instance-stopped'] : []),
    ...(isSplit ? ['--split'] : []),
  ];
  const ended = await lightkeeper(['validate', '--dir', dir, '--json', ...flags]);
  assert.equal([0, 3].includes(ended.code ?? -1), true, outcomeText(ended));
  const document: unknown = JSON.parse(ended.stdout);
  const graphs = isSplit ? (document as { graphs: Judged[] }).graphs : [document as Judged];
  const grade = GRADES.find((one) => graphs.some((graph) => graph.grade === one)) ?? 'UNGRADED';
  return { grade, findings: graphs.flatMap(({ findings }) => findings), tornMs: 0 };
}

/** Runs `validate` until it says another word than TORN, for a minute. */
export async function validateSettled(dir: string, options: { isStopped?: boolean } = {}): Promise<Judged> {
  const began = performance.now();
  for (let tornMs = 0; ; tornMs = performance.now() - began) {
    const judged = await validate(dir, options);
    if (judged.grade !== 'TORN' || tornMs > TORN_AT_MOST_MS) return { ...judged, tornMs };
    await sleep(AGAIN_MS);
  }
}

interface ListedPoint {
  readonly snapshotId: string;
  readonly grade: string;
  readonly capturedAt: string;
}

/** An agent that guards a directory. */
export class Guard {
  readonly agent: Agent;
  readonly #dir: string;
  readonly store: string;

  constructor(scope: Scope, options: { dir: string; root: string; url?: string }) {
    const { dir, root, url } = options;
    this.#dir = dir;
    this.store = join(root, 'store');
    const words = ['--dir', dir, '--store', this.store, '--state', join(root, 'state')];
    const asks = url === undefined ? [] : ['--instance-url', url];
    this.agent = new Agent(scope, [...words, ...asks, '--disk-reserve', '0']);
  }

  async points(): Promise<ListedPoint[]> {
    if (!existsSync(this.store)) return [];
    const { snapshots } = await jsonOf<{ snapshots: ListedPoint[] }>(['list', '--store', this.store]);
    return snapshots;
  }

  /** Returns the grade of the point of what is in the directory now, which stands still. */
  async judged(): Promise<Judged> {
    const began = performance.now();
    const newestChange = changedAt(this.#dir);
    for (;;) {
      const points = await this.points();
      const [newest] = points.sort((a, b) => b.capturedAt.localeCompare(a.capturedAt));
      const ms = performance.now() - began;
      const isOfNow = newest !== undefined && Date.parse(newest.capturedAt) >= newestChange;
      if (isOfNow && newest.grade === 'INVALID') return await this.#failed(newest, isOfNow, ms);
      if (isOfNow && isUsable(newest)) return { grade: newest.grade, findings: [], tornMs: ms };
      if (ms > TORN_AT_MOST_MS) return await this.#failed(newest, isOfNow, ms);
      assert.equal(this.agent.hasEnded, false, this.agent.text);
      await sleep(POLL_MS);
    }
  }

  async #failed(newest: ListedPoint | undefined, isOfNow: boolean, tornMs: number): Promise<Judged> {
    if (newest === undefined || !isOfNow) return { grade: 'NO POINT', findings: [], tornMs };
    const words = ['show', newest.snapshotId, '--store', this.store];
    const { findings } = await jsonOf<{ findings: Finding[] }>(words);
    return { grade: newest.grade, findings, tornMs };
  }
}

/** Returns the time of the newest change of a file, in milliseconds; a change of the cache alone may wait. */
function changedAt(dir: string): number {
  const times = filesMark(dir)
    .split('\n')
    .filter((line) => !line.includes(CACHE))
    .map((line) => Number(line.split(' ').at(-1) ?? 0) / 1e6);
  return Math.max(0, ...times);
}
