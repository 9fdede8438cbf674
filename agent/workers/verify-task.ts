import type { PackReference } from '../pack/pack-store.ts';
import { type PackReport, verifyPack } from '../pack/verify-pack.ts';

/** Reads and checks every byte of a pack. */
export interface VerifyPackTask {
  readonly op: 'verify-pack';
  readonly reference: PackReference;
  readonly packId: string;
}

export interface VerifyTaskResults {
  'verify-pack': PackReport;
}

/** Runs a `verify-pack` task. */
export function runVerifyPack({ reference, packId }: VerifyPackTask): PackReport {
  return verifyPack(reference, packId);
}
