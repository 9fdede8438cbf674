import type { Command } from 'commander';
import { ExportedDocumentSchema } from '../../gen/lightkeeper/v1/agent_pb.ts';
import { collectExport } from '../await-result.ts';
import { addCommonOptions, type CommonOptions, requireValue, storePath } from '../options.ts';
import { printJsonWith } from '../print.ts';
import { withStore } from '../store.ts';

interface ExportOptions extends CommonOptions {
  readonly document?: string;
  readonly snapshot: string;
}

// An exported document can be ingested again.
/** Adds `export`, which prints one document of a snapshot. */
export function addExport(program: Command): void {
  addCommonOptions(
    program.command('export').description('print a document of a snapshot and its chunks as JSON'),
  )
    .option('--document <id>', 'document id (required)')
    .option('--snapshot <id>', 'snapshot id, a prefix of one, latest or latest-valid', 'latest')
    .action(run);
}

async function run(options: ExportOptions): Promise<void> {
  const documentId = requireValue(options.document, '--document');
  const request = { snapshotId: options.snapshot, graphId: options.graph ?? '', documentId };
  const { exported, chunks } = await withStore(storePath(options), { reading: true }, (client) =>
    collectExport(client.exportDocument(request)),
  );
  printJsonWith(ExportedDocumentSchema, exported, { chunks });
}
