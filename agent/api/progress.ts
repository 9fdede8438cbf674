import { create } from '@bufbuild/protobuf';
import type { OnProgress } from '../../core/progress.ts';
import { type Progress, ProgressSchema } from '../../gen/lightkeeper/v1/agent_pb.ts';

/** Progress is told at most this often. */
const PROGRESS_EVERY_MS = 200;

/** One event of a long call: how far it is, or its result. */
export type Told<T> =
  | { event: { case: 'progress'; value: Progress } }
  | { event: { case: 'result'; value: T } };

/**
 * A long call as a stream: progress now and then, the result last. At most one progress waits to be taken, the
 * newest, so a slow listener holds nothing up.
 */
export async function* tell<T>(run: (onProgress: OnProgress) => Promise<T>): AsyncGenerator<Told<T>> {
  let latest: Progress | undefined;
  let wake: () => void = () => {};
  let toldMs = 0;
  let outcome: { value: T } | { error: unknown } | undefined;
  const running = run((phase, doneBytes, totalBytes) => {
    if (performance.now() - toldMs < PROGRESS_EVERY_MS) return;
    toldMs = performance.now();
    latest = create(ProgressSchema, {
      phase,
      doneBytes: BigInt(Math.round(doneBytes)),
      totalBytes: BigInt(Math.round(totalBytes)),
    });
    wake();
  })
    .then((value) => {
      outcome = { value };
    })
    .catch((error: unknown) => {
      outcome = { error };
    })
    .finally(() => wake());
  try {
    while (outcome === undefined) {
      if (latest === undefined) {
        await new Promise<void>((resolve) => {
          wake = resolve;
          if (latest !== undefined || outcome !== undefined) resolve();
        });
      }
      const progress = latest;
      latest = undefined;
      if (progress !== undefined && outcome === undefined)
        yield { event: { case: 'progress', value: progress } };
    }
  } finally {
    // A listener that goes away does not stop the work; its end is waited for, so that nothing is left half done.
    await running;
  }
  const done = outcome as { value: T } | { error: unknown };
  if ('error' in done) throw done.error;
  yield { event: { case: 'result', value: done.value } };
}
