// Documented operations on real servers, graded in each state.
import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { codesOf, Guard, isUsable, type Judged, validateSettled } from '../../support/lightrag/grading.ts';
import { WRITES_IN_PLACE } from '../../support/lightrag/install.ts';
import { SCENARIOS } from '../../support/lightrag/scenarios/all.ts';
import { LightRagServer, ServerRefused } from '../../support/lightrag/server.ts';
import { runScenario, type Scenario, type State } from '../../support/lightrag/world.ts';
import { type Scope, tempFolder } from '../../support/place.ts';
import { inParallel, withScope } from '../../support/scope.ts';
import type { Part } from './part.ts';

/** Scenarios that also run with agents that guard the directory: an agent that asks the server, and one that does not. */
const GUARDED = new Set([
  'one-small',
  'fail-400',
  'fail-embedding',
  'fail-half-then-reprocess',
  'delete-one-of-two',
  'clear-documents',
  'create-by-hand',
  'edit-entity',
  'merge-entities',
  'midway-sigkill',
  'cancel',
]);

/** States that the server itself leaves and then refuses to start on, by version, scenario and name. */
const REFUSED: Readonly<Record<string, readonly string[]>> = {
  // It truncates the graph, then fails on a character that XML does not have.
  [WRITES_IN_PLACE]: [
    'create-odd-data: settled',
    'create-odd-data: stopped',
    'create-special: settled',
    'create-special: stopped',
  ],
};

/** Scenarios whose kill may cut a file that is written in place, so that the server may refuse it. */
const MAY_CUT = /^midway-sigkill/;

/** One line of the table. */
interface Row {
  readonly scenario: string;
  readonly state: string;
  readonly by: string;
  readonly judged: Judged;
  /** Undefined where the server was not asked. */
  readonly isRefused: boolean | undefined;
}

function rowText(version: string, { scenario, state, by, judged, isRefused }: Row): string {
  const torn = judged.tornMs > 0 && by === 'validate' ? ` after ${Math.round(judged.tornMs / 1000)} s` : '';
  const refused = isRefused === true ? ' (the server refuses it)' : '';
  const where = `${version.padEnd(8)} ${scenario.padEnd(34)} ${state.padEnd(28)} ${by.padEnd(14)}`;
  return `${where} ${judged.grade}${torn}${refused} ${codesOf(judged)}`.trimEnd();
}

/** Returns whether the version's server refuses to start on a copy of a directory. */
async function isRefused(scope: Scope, { place }: State, root: string): Promise<boolean> {
  const copy = join(root, 'asked');
  rmSync(copy, { recursive: true, force: true });
  cpSync(place.dir, join(copy, 'rag'), { recursive: true, preserveTimestamps: true });
  try {
    const asked = { ...place, dir: join(copy, 'rag'), beside: join(copy, 'beside') };
    const server = await LightRagServer.start(scope, asked);
    await server.stop();
    return false;
  } catch (error) {
    if (error instanceof ServerRefused) return true;
    throw error;
  }
}

function failureOf(version: string, row: Row): string | undefined {
  const name = `${row.scenario}: ${row.state}`;
  const expected = (REFUSED[version] ?? []).includes(name);
  const what = `${name}, by ${row.by}: ${row.judged.grade} ${codesOf(row.judged)}`;
  if (isUsable(row.judged)) return expected ? `${what}, but the server refuses it` : undefined;
  const mayBe = expected || (version === WRITES_IN_PLACE && MAY_CUT.test(row.scenario));
  if (row.judged.grade === 'INVALID' && row.isRefused === true && mayBe) return undefined;
  return `${what}${row.isRefused === true ? ' (the server refuses it)' : ''}`;
}

/** Grades one state by `validate` and by the agents. */
async function rowsOf(
  scope: Scope,
  { scenario, state, root }: { scenario: Scenario; state: State; root: string },
  guards: ReadonlyMap<string, Guard>,
): Promise<Row[]> {
  const judged = new Map([
    ['validate', await validateSettled(state.dir, { isStopped: state.server === undefined })],
  ]);
  for (const [by, guard] of guards) judged.set(by, await guard.judged());
  const rows: Row[] = [];
  for (const [by, one] of judged) {
    const refused = isUsable(one) ? undefined : await isRefused(scope, state, root);
    rows.push({ scenario: scenario.name, state: state.name, by, judged: one, isRefused: refused });
  }
  return rows;
}

async function prove(scenario: Scenario, part: Part): Promise<{ rows: Row[]; broken?: string }> {
  const rows: Row[] = [];
  return await withScope(async (scope) => {
    const root = await tempFolder(scope);
    const guards = new Map<string, Guard>();
    const onState = async (state: State) => {
      if (part.withAgents && GUARDED.has(scenario.name) && guards.size === 0) {
        const dir = state.dir;
        const url = state.server?.api.url;
        guards.set('up', new Guard(scope, { dir, root: join(root, 'guard') }));
        if (url !== undefined)
          guards.set('up, which asks', new Guard(scope, { dir, root: join(root, 'asks'), url }));
      }
      rows.push(...(await rowsOf(scope, { scenario, state, root }, guards)));
      if (
        part.saved !== undefined &&
        rows.some((row) => failureOf(part.installed.version, row) !== undefined)
      ) {
        const place = join(part.saved, part.installed.version, scenario.name, state.name);
        cpSync(state.place.dir, place, { recursive: true, preserveTimestamps: true });
      }
    };
    const { installed, newer } = part;
    try {
      await runScenario(scenario, { scope, installed, newer, root, onState });
      return { rows };
    } catch (error) {
      return {
        rows,
        broken: `${scenario.name} broke: ${error instanceof Error ? error.stack : String(error)}`,
      };
    }
  });
}

/** Runs all scenarios of a version, prints a line for each state and grade, and returns what does not hold. */
export async function proveScenarios(part: Part): Promise<string[]> {
  const { installed, newer, only, jobs, log } = part;
  const chosen = SCENARIOS.filter(({ name }) => only.test(name));
  const skipped = chosen.filter(({ upgrades }) => upgrades === true && newer === undefined);
  for (const { name } of skipped) log(`${name}: skipped: needs a newer version beside ${installed.version}`);
  const failures: string[] = [];
  const grades = new Map<string, number>();
  const refused = new Set<string>();
  const rest = chosen.filter((one) => !skipped.includes(one));
  await inParallel(rest, jobs, async (scenario) => {
    const { rows, broken } = await prove(scenario, part);
    for (const row of rows) {
      log(rowText(installed.version, row));
      grades.set(row.judged.grade, (grades.get(row.judged.grade) ?? 0) + 1);
      if (row.isRefused === true) refused.add(`${row.scenario}: ${row.state}`);
      const failure = failureOf(installed.version, row);
      if (failure !== undefined) failures.push(failure);
    }
    if (broken !== undefined) failures.push(broken);
  });
  const counts = [...grades].sort().map(([grade, count]) => `${count} ${grade}`);
  log(
    `${rest.length} scenarios, ${[...grades.values()].reduce((a, b) => a + b, 0)} grades: ${counts.join(', ')}`,
  );
  log(`refused by the server itself: ${[...refused].sort().join(', ') || 'none'}`);
  return failures;
}
