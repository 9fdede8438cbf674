import { LightkeeperError } from './errors.ts';

/** States what the code around it relies on; a false one is a fault of ours and ends the call. */
export function assert(condition: unknown, what: string): asserts condition {
  if (!condition) throw new LightkeeperError('INTERNAL', `Cannot go on: ${what} does not hold`);
}

/** The value, which the code around it knows to be there. */
export function must<T>(value: T | undefined | null, what: string): T {
  assert(value !== undefined && value !== null, what);
  return value;
}
