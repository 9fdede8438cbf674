import type { Scope } from './place.ts';

/** Runs something with a scope of its own, whose steps are undone at its end, the last first. */
export async function withScope<T>(run: (scope: Scope) => Promise<T>): Promise<T> {
  const steps: (() => Promise<void>)[] = [];
  try {
    return await run({ after: (step) => void steps.push(step) });
  } finally {
    for (const step of steps.reverse()) await step();
  }
}

/** Runs jobs, some at a time, in their order. */
export async function inParallel<T>(
  jobs: readonly T[],
  atOnce: number,
  run: (job: T) => Promise<void>,
): Promise<void> {
  const left = [...jobs];
  const work = async () => {
    for (let job = left.shift(); job !== undefined; job = left.shift()) await run(job);
  };
  await Promise.all(Array.from({ length: atOnce }, work));
}
