import { once } from 'node:events';
import type { Command } from 'commander';
import { addStoreOptions, type CommonOptions, snapshotPathArgument, storePath } from '../options.ts';
import { withStore } from '../store.ts';

/** Adds `dump`, which writes one file of a snapshot to standard output. */
export function addDump(program: Command): void {
  addStoreOptions(
    program
      .command('dump')
      .description('write one file of a snapshot to standard output, its hashes checked on the way')
      .argument('<snapshot>', 'snapshot id, a prefix of one, latest or latest-valid')
      .argument('<path>', 'path of the file, as show prints it'),
  ).action(run);
}

async function run(snapshotId: string, path: string, options: CommonOptions): Promise<void> {
  const request = { snapshotId, graphId: options.graph ?? '', path: snapshotPathArgument(path) };
  let written = 0;
  await withStore(storePath(options), { reading: true }, async (client) => {
    let at = 0;
    for await (const { data } of client.dumpFile(request)) {
      // A call that is repeated after a damaged index goes on where the first one ended.
      const rest = data.subarray(Math.max(0, written - at));
      at += data.length;
      written = Math.max(written, at);
      if (rest.length > 0 && !process.stdout.write(rest)) await once(process.stdout, 'drain');
    }
  });
}
