import { test } from 'node:test';
import { type Group, testsOf } from '../files.ts';

/** Runs the tests of a group in this process. */
export function loadGroup(group: Group): void {
  const load = async () => {
    for (const path of testsOf(group)) await import(path);
  };
  // As the first test it holds the others back: a run ends when all tests that are known so far have ended.
  const loading = load();
  test(`the tests of ${group} load`, () => loading);
}
