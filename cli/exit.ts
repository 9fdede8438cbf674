import type { ErrorCode } from '../core/errors.ts';
import { Grade_Value } from '../gen/lightkeeper/v1/types_pb.ts';

/** What a command ends with; see the table in docs/errors.md. */
export const EXIT = {
  done: 0,
  failed: 1,
  usage: 2,
  findings: 3,
  refused: 4,
  interrupted: 130,
} as const;

/** Whether a snapshot with such a grade can be relied on. */
export function isUsable(grade: Grade_Value): boolean {
  return grade === Grade_Value.VALID || grade === Grade_Value.DEGRADED;
}

/** Has the command end with "done with findings" if what it took or looked at is not usable. */
export function exitByGrade(graded: readonly { readonly grade: Grade_Value }[]): void {
  const bad = [Grade_Value.TORN, Grade_Value.INVALID];
  if (graded.some(({ grade }) => bad.includes(grade))) process.exitCode = EXIT.findings;
}

/** The exit code of an error. */
export function exitCodeOf(code: ErrorCode): number {
  switch (code) {
    case 'INVALID_ARGUMENT':
    case 'UNIMPLEMENTED':
      return EXIT.usage;
    case 'REFUSED':
    case 'IN_USE':
      return EXIT.refused;
    case 'CANCELLED':
      return EXIT.interrupted;
    default:
      return EXIT.failed;
  }
}
