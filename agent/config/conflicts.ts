import { dirname } from 'node:path';
import type { ProblemReport } from '../../host/config/problem.ts';
import type { BuiltGraph } from './graph.ts';

/** Reports graphs that conflict: the same id, the same directory, or one directory inside another. */
export function reportConflicts(
  graphs: readonly BuiltGraph[],
  realPath: (path: string) => string,
  report: ProblemReport,
): void {
  const ids = new Map<string, BuiltGraph>();
  const dirs = new Map<string, BuiltGraph>();
  for (const graph of graphs) {
    const { settings, path, idOrigin, dir } = graph;
    const twin = dir === undefined ? undefined : claim(dirs, realPath(dir.value), graph);
    // Two paths of one directory have one derived id, which needs no word of its own.
    if (idOrigin !== undefined && (twin === undefined || settings.isIdGiven)) {
      const same = claim(ids, settings.graphId, graph);
      const at = { origin: idOrigin, path: `${path}.id` };
      if (same !== undefined) report.problem(at, `"${settings.graphId}" is the id of ${same.path} too`);
    }
    if (dir === undefined || twin === undefined) continue;
    report.problem({ origin: dir.origin, path: `${path}.dir` }, `it is the directory of ${twin.path} too`);
  }
  for (const [real, { dir, path }] of dirs) {
    const outer = containing(real, dirs);
    if (outer === undefined || dir === undefined) continue;
    const at = { origin: dir.origin, path: `${path}.dir` };
    report.problem(at, `it lies inside the directory of ${outer.path}`, {
      hint: 'leave it out: a workspace in a subfolder is guarded as a graph of its own',
    });
  }
}

/** Returns the graph that has the name; if there is none, gives it to this one. */
function claim(names: Map<string, BuiltGraph>, name: string, graph: BuiltGraph): BuiltGraph | undefined {
  const before = names.get(name);
  if (before === undefined) names.set(name, graph);
  return before;
}

/** Returns the graph whose directory holds this one. */
function containing(dir: string, dirs: ReadonlyMap<string, BuiltGraph>): BuiltGraph | undefined {
  for (let above = dirname(dir); ; above = dirname(above)) {
    const outer = above === dir ? undefined : dirs.get(above);
    if (outer !== undefined) return outer;
    if (above === dirname(above)) return undefined;
  }
}
