import { type Finding, Severity_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { errorFinding, finding, warning } from '../finding.ts';
import type { LayoutError, LayoutFlaw } from './chunk-reader.ts';
import type { LackText } from './lack.ts';
import { GRAPH_FILES, type GraphFile } from './rules.ts';

const FLAW_CODES: Readonly<Record<LayoutFlaw, string>> = {
  empty: 'empty_file',
  cut: 'cut_file',
  malformed: 'malformed_file',
};

/** Returns the finding of a file that cannot be read. A harmless one is read as a file without records. */
export function layoutFinding(path: string, error: LayoutError, isHarmless: boolean): Finding {
  const severity = isHarmless ? Severity_Value.INFO : Severity_Value.ERROR;
  return finding(FLAW_CODES[error.flaw], severity, path, {
    message: error.message.replace('Cannot read the file', 'it cannot be read'),
    hint: isHarmless
      ? 'no action is needed: the instance makes its contents again, or does without them'
      : 'restore an earlier point: the instance does not start with this file, or loses its contents',
  });
}

/** Returns the wording of a file that is not there. */
export function missingFileText(file: GraphFile, state: string): LackText {
  return {
    code: 'missing_file',
    class: 'promise',
    path: GRAPH_FILES[file],
    table: undefined,
    state,
    hint: 'restore an earlier point that has it',
  };
}

/** Returns the finding of a file of names that says nothing of any document. */
export function lostNamesFinding(file: GraphFile): Finding {
  return warning('names_lost', GRAPH_FILES[file], {
    message: 'it lists no names, though documents have been processed: the instance cannot delete them',
    hint: 'restore the file from an earlier point, if they are to be deleted',
  });
}

/** Returns the finding of vector files that were made by different models; undefined if all have one dimension. */
export function mixedDimensions(dimensions: ReadonlyMap<string, number>): Finding | undefined {
  const all = new Set(dimensions.values());
  if (all.size < 2) return undefined;
  const sizes = [...dimensions].map(([path, dimension]) => `${path} ${dimension}`);
  return errorFinding('mixed_dimensions', [...dimensions.keys()].sort()[0] ?? '', {
    message: `its vectors do not have the dimension of the others: ${sizes.sort().join(', ')}`,
    hint: 'let the instance embed everything again with one model, or restore an earlier point',
  });
}

/** Returns the finding of documents that the instance has not processed to their end. */
export function unfinishedFinding(count: number): Finding {
  const [documents, them] = count === 1 ? ['document is', 'it'] : ['documents are', 'them'];
  return finding('unfinished_documents', Severity_Value.INFO, GRAPH_FILES.statuses, {
    message: `${count} ${documents} unfinished: the instance does not go on with ${them} by itself`,
    hint: `let it process ${them} again: POST /documents/reprocess_failed, or any new document or scan`,
    count,
  });
}
