import { loadGroup } from './load.ts';

loadGroup('commands-h-z');
