import type { Command } from 'commander';
import { LightkeeperError } from '../../core/errors.ts';
import { GradeSnapshotsResultSchema } from '../../gen/lightkeeper/v1/agent_pb.ts';
import { Grade_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { lastOf } from '../await-result.ts';
import { EXIT } from '../exit.ts';
import { exitByGrade } from '../exit-by-grade.ts';
import { addCommonOptions, type CommonOptions, storePath } from '../options.ts';
import { printFindings, printJson, printLine } from '../print.ts';
import { withStore } from '../store.ts';

/** Adds `grade`, which grades snapshots from their stored bytes. */
export function addGrade(program: Command): void {
  addCommonOptions(
    program
      .command('grade')
      .description('grade snapshots again from their stored bytes: those that are not graded, or those named')
      .argument('[snapshot...]'),
  )
    .option('--all', 'grade every snapshot again')
    .action(grade);
}

async function grade(names: readonly string[], options: CommonOptions & { all?: boolean }): Promise<void> {
  const all = options.all ?? false;
  if (all && names.length > 0) {
    throw new LightkeeperError('INVALID_ARGUMENT', 'Cannot grade named snapshots and all of them at once', {
      hint: 'leave out either the names or --all',
    });
  }
  const request = { snapshotIds: [...names], graphId: options.graph ?? '', all };
  const result = await withStore(storePath(options), {}, (client) => lastOf(client.gradeSnapshots(request)));
  exitByGrade(result.snapshots);
  if (result.findings.length > 0) process.exitCode = EXIT.failed;
  if (options.json === true) return printJson(GradeSnapshotsResultSchema, result);
  for (const { snapshotId, graphId, grade, summary } of result.snapshots)
    printLine([snapshotId.slice(0, 12), graphId, Grade_Value[grade], summary].join('  ').trimEnd());
  if (result.snapshots.length === 0) printLine('every snapshot is graded');
  printFindings(result.findings);
}
