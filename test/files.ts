import { readdirSync } from 'node:fs';
import { join } from 'node:path';

/** Folders of tests of one module each. */
const SMALL = /^(?:agent|contract|core|demo|host)\//;
/** Tests in them that start processes and wait for them. */
const STARTS_PROCESSES = new Set(['demo/instance/main', 'host/lifecycle', 'host/log']);
/** Tests that measure time: each runs while nothing else does. */
const ALONE = ['cli/start-time'];
/** What takes longest, the longest first: what starts last then ends about when all ends. */
const LONGEST = [
  'scenarios/lightrag',
  'scenarios/healing',
  'scenarios/hostile-peer',
  'scenarios/following',
  'crash',
  'scenarios/lightrag-recovery',
  'scenarios/restore-in-place',
  'scenarios/file-sizes',
  'cli/up',
  'scenarios/running-agent',
  'scenarios/gustobot',
  'scenarios/usable-points',
  'scenarios/constant-writes',
  'cli/grade',
  'cli/diff',
  'cli/usage',
  'scenarios/damaged-store',
  'scenarios/power-loss',
  'cli/retention',
  'readme',
  'scenarios/mutated-bytes',
  'scenarios/disk-faults',
  'cli/snapshot',
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

function isSmall(name: string): boolean {
  return SMALL.test(name) && !STARTS_PROCESSES.has(name);
}

/** Returns the paths of the tests that run first, one after the other. */
export function timedTests(): string[] {
  return ALONE.map(pathOf);
}

/** Returns the paths of the tests that one process runs together. */
export function smallTests(): string[] {
  return names().filter(isSmall).map(pathOf);
}

/** Returns the paths of the tests that have a process each, in the order in which they begin. */
export function largeTests(): string[] {
  const rank = (name: string) => (LONGEST.includes(name) ? LONGEST.indexOf(name) : LONGEST.length);
  return names()
    .filter((name) => !isSmall(name) && !ALONE.includes(name))
    .sort((a, b) => rank(a) - rank(b))
    .map(pathOf);
}
