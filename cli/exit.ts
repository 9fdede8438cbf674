import type { ErrorCode } from '../core/errors.ts';

/** What a command ends with; see the table in docs/errors.md. */
export const EXIT = {
  done: 0,
  failed: 1,
  usage: 2,
  findings: 3,
  refused: 4,
  interrupted: 130,
} as const;

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
