import type { Command } from 'commander';
import { ExportedDocumentSchema } from '../../gen/lightkeeper/v1/agent_pb.ts';
import { collectExport } from '../await-result.ts';
import { type CommonOptions, required, storeOf, withCommon } from '../options.ts';
import { printJsonWith } from '../print.ts';
import { withStore } from '../store.ts';

interface ExportOptions extends CommonOptions {
  readonly document?: string;
  readonly snapshot: string;
}

/** `export`: one document as an old point has it, so that it can be ingested again. */
export function addExport(program: Command): void {
  withCommon(
    program.command('export').description('print a document of a snapshot, with its chunks, as JSON'),
  )
    .option('--document <id>', 'the document (required)')
    .option('--snapshot <id>', 'an id, the start of one, latest or latest-valid', 'latest')
    .action(run);
}

async function run(options: ExportOptions): Promise<void> {
  const documentId = required(options.document, '--document');
  const request = { snapshotId: options.snapshot, graphId: options.graph ?? '', documentId };
  const { exported, chunks } = await withStore(storeOf(options), { reading: true }, (client) =>
    collectExport(client.exportDocument(request)),
  );
  printJsonWith(ExportedDocumentSchema, exported, { chunks });
}
