import { create } from '@bufbuild/protobuf';
import type { OnProgress } from '../../core/progress.ts';
import { type Progress, ProgressSchema } from '../../gen/lightkeeper/v1/agent_pb.ts';

/** Least number of milliseconds between two progress events. */
const PROGRESS_EVERY_MS = 200;

/** One event of a long call: its progress, or its result. */
export type CallEvent<T> =
  | { event: { case: 'progress'; value: Progress } }
  | { event: { case: 'result'; value: T } };

/** Runs a long call and yields its progress, then its result. */
// Only the newest progress is buffered, so that a slow client does not delay the call.
export async function* withProgress<T>(
  run: (onProgress: OnProgress) => Promise<T>,
): AsyncGenerator<CallEvent<T>> {
  let latest: Progress | undefined;
  let wake: () => void = () => {};
  let sentMs = 0;
  let outcome: { value: T } | { error: unknown } | undefined;
  const running = run((phase, doneBytes, totalBytes) => {
    if (performance.now() - sentMs < PROGRESS_EVERY_MS) return;
    sentMs = performance.now();
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
    // The work goes on when the client disconnects; its end is awaited, so that nothing is left unfinished.
    await running;
  }
  const done = outcome as { value: T } | { error: unknown };
  if ('error' in done) throw done.error;
  yield { event: { case: 'result', value: done.value } };
}
