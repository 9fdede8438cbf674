// A stand-in for a LightRAG server: it loads a working directory, serves it and writes it as LightRAG does.
import { join } from 'node:path';
import { EXIT, exitCodeOf } from '../../cli/exit.ts';
import { printLine } from '../../cli/print.ts';
import { printError } from '../../cli/print-error.ts';
import { normalise } from '../../core/errors.ts';
import { generate } from '../generate.ts';
import { Flush } from './flush.ts';
import { serve } from './http.ts';
import { isEmpty, load } from './load.ts';
import { type InstanceOptions, parseOptions, USAGE } from './options.ts';
import { Pipeline } from './pipeline.ts';

/** Milliseconds that a stop may take. */
const STOPS_WITHIN_MS = 120_000;

async function run(options: InstanceOptions): Promise<void> {
  const dir = join(options.dir, options.workspace);
  const { version, style, seed, documents, dimension } = options;
  if (await isEmpty(dir)) {
    await generate(dir, {
      version,
      style,
      seed,
      documents,
      ...(dimension === undefined ? {} : { dimension }),
    });
  }
  const memory = await load(dir, dimension, version);
  const flush = new Flush(dir, memory, options);
  const pipeline = new Pipeline(memory, flush, options, report);
  const { port, refuse, close } = await serve({ memory, flush, pipeline, options });
  const stopped = stopSignal();
  pipeline.start();
  printLine(JSON.stringify({ ready: true, port, pid: process.pid }));
  await stopped;
  // LightRAG's server closes its port before it saves what is left, too.
  refuse();
  try {
    await pipeline.stop();
  } finally {
    await close();
  }
}

/** Resolves at the first stop signal. A second one, or too long a flush, ends the process at once. */
function stopSignal(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.once(signal, () => {
        process.on(signal, () => process.exit(EXIT.failed));
        setTimeout(() => process.exit(EXIT.failed), STOPS_WITHIN_MS).unref();
        resolve();
      });
    }
  });
}

/** Prints an error and goes on, like a server's log. */
function report(error: unknown): void {
  printError(normalise(error), false);
}

try {
  const options = parseOptions(process.argv.slice(2));
  if (options === undefined) printLine(`Usage: ${USAGE}`);
  else await run(options);
} catch (error) {
  const failure = normalise(error);
  printError(failure, false);
  process.exitCode = exitCodeOf(failure.code);
}
