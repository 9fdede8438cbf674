import type { Command } from 'commander';
import {
  type ValidateDirectoryResponse,
  ValidateDirectoryResponseSchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { Grade_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { durationText } from '../../host/quantity.ts';
import { exitByGrade } from '../exit-by-grade.ts';
import { pathArgument, requireValue } from '../options.ts';
import { printFindings, printJsonOf, printLine } from '../print.ts';

interface ValidateOptions {
  readonly dir?: string;
  readonly split?: boolean;
  readonly instanceStopped?: boolean;
  readonly json?: boolean;
}

/** Adds `validate`, which checks the graph in a directory, without a store. */
export function addValidate(program: Command): void {
  program
    .command('validate')
    .description('check the graph in a directory')
    .option('--dir <dir>', 'directory (required)')
    .option('--split', 'check each workspace, a subfolder with a graph, on its own')
    .option('--instance-stopped', 'confirm that the instance is stopped')
    .option('--json', 'print exactly one JSON document')
    .action(run);
}

async function run(options: ValidateOptions): Promise<void> {
  const { splitGraph, validateDirectory } = await import('../../agent/main.ts');
  const dir = pathArgument(requireValue(options.dir, '--dir'));
  const split = options.split === true;
  const places = split ? await splitGraph({ graphId: '', dir }) : [{ dir }];
  const results: ValidateDirectoryResponse[] = [];
  const instanceStopped = options.instanceStopped === true;
  for (const place of places) results.push(await validateDirectory(place.dir, { split, instanceStopped }));
  if (options.json === true)
    printJsonOf(ValidateDirectoryResponseSchema, results, split ? 'graphs' : undefined);
  else for (const result of results) printResult(result);
  exitByGrade(results);
}

function printResult({ dir, grade, findings, stats, durationMs }: ValidateDirectoryResponse): void {
  const { documents = 0n, entities = 0n, relations = 0n, vectors = 0n } = stats ?? {};
  const what = `${documents} documents, ${entities} entities, ${relations} relations, ${vectors} vectors`;
  printLine(`${Grade_Value[grade]}: ${dir}: ${what}, in ${durationText(durationMs)}`);
  printFindings(findings);
}
