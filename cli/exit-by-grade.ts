import { Grade_Value } from '../gen/lightkeeper/v1/types_pb.ts';
import { EXIT } from './exit.ts';

/** Sets the exit code "done with findings" if a grade is TORN or INVALID. */
export function exitByGrade(graded: readonly { readonly grade: Grade_Value }[]): void {
  const bad = [Grade_Value.TORN, Grade_Value.INVALID];
  if (graded.some(({ grade }) => bad.includes(grade))) process.exitCode = EXIT.findings;
}
