import type { GraphStats, Instance } from '../gen/lightkeeper/v1/types_pb.ts';

/** Formats the version and the models of the server that wrote a snapshot; empty if they are not known. */
export function serverText(instance: Instance | undefined): string {
  const { version = '', embeddingModel = '', embeddingDimension = 0, llmModel = '' } = instance ?? {};
  const size = embeddingDimension === 0 ? '' : ` (${embeddingDimension} dimensions)`;
  return [
    version === '' ? '' : `LightRAG ${version}`,
    embeddingModel === '' ? '' : `embeddings by ${embeddingModel}${size}`,
    llmModel === '' ? '' : `LLM ${llmModel}`,
  ]
    .filter((part) => part !== '')
    .join(', ');
}

/** Formats how many documents were unfinished; empty if none was. */
export function unfinishedText(stats: GraphStats | undefined): string {
  const count = stats?.unfinished ?? 0n;
  if (count === 0n) return '';
  return `${count} document${count === 1n ? '' : 's'} unfinished`;
}
