import { loadGroup } from './load.ts';

loadGroup('commands-a-g');
