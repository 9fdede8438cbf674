import { loadGroup } from './load.ts';

loadGroup('agent');
