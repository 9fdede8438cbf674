import type { Installed } from '../../support/lightrag/install.ts';

/** What a part of the proof is run with. */
export interface Part {
  readonly installed: Installed;
  /** The newest version of the run, if it is another one. */
  readonly newer: Installed | undefined;
  readonly only: RegExp;
  readonly jobs: number;
  readonly count: number | undefined;
  readonly seed: number;
  /** A folder in which directories that failed are left. */
  readonly saved: string | undefined;
  /** Agents guard some directories too. */
  readonly withAgents: boolean;
  log(line: string): void;
}
