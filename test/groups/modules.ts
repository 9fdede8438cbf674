import { loadGroup } from './load.ts';

loadGroup('modules');
