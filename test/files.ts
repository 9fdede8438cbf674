import { readdirSync } from 'node:fs';
import { join } from 'node:path';

/** Tests that share a process, as to load the sources costs more than most of them: by the name of their group. */
const GROUPS = {
  agent: /^agent\//,
  modules: /^(?:contract|core|demo|host)\//,
  'commands-a-g': /^cli\/[a-g]/,
  'commands-h-z': /^cli\/[h-z]/,
  scenarios: /^scenarios\//,
} as const;
/** A group of tests. */
export type Group = keyof typeof GROUPS;
/** Tests that have a process of their own: they start others and wait for them. */
const OWN_PROCESS = new Set(['cli/up', 'cli/usage', 'demo/instance/main', 'host/lifecycle', 'host/log']);
/** Tests that measure time: each runs while nothing else does. */
const ALONE = ['cli/start-time'];

/** Which tests run: those of `npm test`, or those of `npm run test:long`. */
export type Selection = 'quick' | 'long';

/**
 * Samples of the long proofs, and stories of several programs, disks or real servers, the longest first: what starts
 * last then ends about when all ends.
 */
const LONG = [
  'scenarios/lightrag',
  'scenarios/hostile-peer',
  'scenarios/following',
  'scenarios/following-kills',
  'scenarios/network-faults',
  'scenarios/healing',
  'scenarios/restore-in-place',
  'scenarios/file-sizes',
  'crash',
  'scenarios/gustobot',
  'scenarios/running-agent',
  'scenarios/constant-writes',
  'scenarios/lightrag-recovery',
  'scenarios/recovery',
  'scenarios/disk-faults',
  'scenarios/store-formats',
  'scenarios/store-owner',
  'scenarios/usable-points',
  'scenarios/changing-files',
  'scenarios/mutated-bytes',
  'scenarios/damaged-store',
  'scenarios/power-loss',
  'scenarios/file-kinds',
  'scenarios/point-timing',
  'scenarios/instance-lines',
  'scenarios/clocks',
  'demo/instance/main',
  'cli/incremental-grade',
  'scenarios/paths',
  'package',
];
/** Returns the names of the test files, from this folder and without their ending. */
function names(): string[] {
  return readdirSync(import.meta.dirname, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => name.slice(0, -'.test.ts'.length))
    .sort();
}

function pathOf(name: string): string {
  return join(import.meta.dirname, `${name}.test.ts`);
}

function groupOf(name: string): Group | undefined {
  if (OWN_PROCESS.has(name) || ALONE.includes(name) || LONG.includes(name)) return undefined;
  return (Object.keys(GROUPS) as Group[]).find((group) => GROUPS[group].test(name));
}

/** Returns the paths of the tests that run first, one after the other. */
export function timedTests(selection: Selection): string[] {
  return selection === 'quick' ? ALONE.map(pathOf) : [];
}

/** Returns the paths of the tests of a group, which one process runs together. */
export function testsOf(group: Group): string[] {
  return names()
    .filter((name) => groupOf(name) === group)
    .map(pathOf);
}

/** Returns the paths of the files that have a process each, in the order in which they begin. */
export function testFiles(selection: Selection): string[] {
  if (selection === 'long') return LONG.map(pathOf);
  const groups = Object.keys(GROUPS).map((group) => join(import.meta.dirname, 'groups', `${group}.ts`));
  const others = names().filter(
    (name) => groupOf(name) === undefined && !ALONE.includes(name) && !LONG.includes(name),
  );
  return [...groups, ...others.map(pathOf)];
}
