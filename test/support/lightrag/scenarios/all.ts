import type { Scenario } from '../world.ts';
import { DELETIONS } from './deletions.ts';
import { DOCUMENTS } from './documents.ts';
import { EDITS } from './edits.ts';
import { EXTRACTION } from './extraction.ts';
import { FAILURES } from './failures.ts';
import { LIBRARY } from './library.ts';
import { PLACES } from './places.ts';
import { SERVICE } from './service.ts';

/** All scenarios, by theme. */
export const SCENARIOS: readonly Scenario[] = [
  ...DOCUMENTS,
  ...FAILURES,
  ...DELETIONS,
  ...EDITS,
  ...EXTRACTION,
  ...SERVICE,
  ...PLACES,
  ...LIBRARY,
];
