// Runs all small tests in one process: to load the sources costs more than most of the tests themselves.
import { test } from 'node:test';
import { smallTests } from './files.ts';

async function load(): Promise<void> {
  for (const path of smallTests()) await import(path);
}

// As the first test it holds the others back: a run ends when all tests that are known so far have ended.
const loading = load();
test('the small tests load', () => loading);
