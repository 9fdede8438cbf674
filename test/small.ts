// Runs all small tests in one process: to load the sources costs more than most of the tests themselves.
import { smallTests } from './files.ts';

for (const path of smallTests()) await import(path);
