import type { ErrorCode } from '../core/errors.ts';

/** Exit codes; docs/errors.md describes them. */
export const EXIT = {
  done: 0,
  failed: 1,
  usage: 2,
  findings: 3,
  refused: 4,
  interrupted: 130,
} as const;

/** Returns the exit code of an error. */
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
