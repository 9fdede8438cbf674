import { loadGroup } from './load.ts';

loadGroup('scenarios');
