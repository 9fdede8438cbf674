import { LightkeeperError } from './errors.ts';

/** Throws INTERNAL if a condition does not hold, which is a fault in Lightkeeper. */
export function assert(condition: unknown, what: string): asserts condition {
  if (!condition) throw new LightkeeperError('INTERNAL', `Cannot go on: ${what} does not hold`);
}

/** Returns the value, or throws INTERNAL if there is none. */
export function must<T>(value: T | undefined | null, what: string): T {
  assert(value !== undefined && value !== null, what);
  return value;
}
