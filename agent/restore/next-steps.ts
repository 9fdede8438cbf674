import { finding, warning } from '../../core/finding.ts';
import { bytesText } from '../../core/path.ts';
import { isOlderVersion, isTooNewFor, isVersion } from '../../core/server-version.ts';
import { shellQuote } from '../../core/shell.ts';
import { idOf, type StoredSnapshot } from '../../core/snapshot.ts';
import {
  type Finding,
  type GraphStats,
  type Instance,
  Severity_Value,
} from '../../gen/lightkeeper/v1/types_pb.ts';

/** URL of a LightRAG server with default settings. */
const DEFAULT_URL = 'http://127.0.0.1:9621';

/** The header of the server's key; curl leaves it out if the variable is not set. */
const KEY_HEADER = '-H "X-API-Key: $LIGHTRAG_API_KEY"';

/** A restore that has ended, as far as its next steps depend on it. */
export interface EndedRestore {
  readonly snapshot: StoredSnapshot;
  /** The directory, and whether it is the one that the server already uses. */
  readonly dir: Uint8Array;
  readonly isInPlace: boolean;
  /** Whether the snapshot came from this directory. */
  readonly isFromHere: boolean;
  /** URL of the server; empty if it is not known. */
  readonly url: string;
}

/** Returns what remains to be done after a restore until the server serves again, in order. */
export function nextSteps({ snapshot, dir, isInPlace, isFromHere, url }: EndedRestore): string[] {
  const { instance } = snapshot.manifest.source ?? {};
  const stats = snapshot.graded?.stats;
  const needs = needsText(instance, stats);
  const with_ = needs === '' ? '' : ` (it needs ${needs})`;
  const start = isInPlace
    ? `start the server${with_}: docker compose start lightrag, or systemctl start lightrag`
    : `stop the server, set WORKING_DIR=${shellQuote(bytesText(dir))}, and start it${with_}`;
  if (instance === undefined && !hasGraph(stats)) return isInPlace ? ['start the instance'] : [];
  const known = instance?.url ?? '';
  const base = (url !== '' ? url : known !== '' ? known : DEFAULT_URL).replace(/\/+$/, '');
  const call = (words: string) => `curl ${KEY_HEADER} ${words}`;
  const reprocess = call(`-X POST ${base}/documents/reprocess_failed`);
  return [
    start,
    ...(stats === undefined
      ? [`process the documents that were unfinished, if there are any: ${reprocess}`]
      : stats.unfinished > 0n
        ? [
            `process the ${documentsText(stats.unfinished)} that ${were(stats.unfinished)} unfinished: ${reprocess}`,
          ]
        : []),
    // Without the id the graph would still belong to the directory that it came from.
    ...(isFromHere
      ? []
      : [
          `protect it here: lightkeeper up --dir ${shellQuote(bytesText(dir))} --graph ${snapshot.manifest.graphId}`,
        ]),
    `check that its documents are processed: ${call(`${base}/documents/status_counts`)}`,
  ];
}

function hasGraph(stats: GraphStats | undefined): boolean {
  return stats !== undefined && stats.documents + stats.entities + stats.chunks + stats.vectors > 0n;
}

function documentsText(count: bigint): string {
  return count === 1n ? '1 document' : `${count} documents`;
}

function were(count: bigint): string {
  return count === 1n ? 'was' : 'were';
}

/** Formats what a server must be and be set to. */
function needsText(instance: Instance | undefined, stats: GraphStats | undefined): string {
  const dimension =
    stats === undefined || stats.dimension === 0 ? instance?.embeddingDimension : stats.dimension;
  const { coreVersion = '', embeddingModel = '' } = instance ?? {};
  return [
    coreVersion === '' ? '' : `LightRAG ${coreVersion} or newer`,
    embeddingModel === '' ? '' : `EMBEDDING_MODEL=${shellQuote(embeddingModel)}`,
    dimension === undefined || dimension === 0 ? '' : `EMBEDDING_DIM=${dimension}`,
  ]
    .filter((part) => part !== '')
    .join(', ');
}

/**
 * Returns findings on whether the server can start from a snapshot and go on with it. `server` is what is known of
 * it: its own reply, or what the newest snapshot recorded.
 */
export function serverFindings(snapshot: StoredSnapshot, server: Instance | undefined): Finding[] {
  const writer = snapshot.manifest.source?.instance;
  if (writer === undefined && !hasGraph(snapshot.graded?.stats)) return [];
  return [...versionFindings(snapshot, server), ...modelFindings(writer, server)];
}

function versionFindings(snapshot: StoredSnapshot, server: Instance | undefined): Finding[] {
  const wrote = snapshot.manifest.source?.instance?.coreVersion ?? '';
  const serves = server?.coreVersion ?? '';
  const rule = 'a server before 1.5 does not start from a directory of 1.5 or newer';
  if (!isVersion(wrote) || !isVersion(serves)) {
    const point = isVersion(wrote)
      ? `LightRAG ${wrote} wrote this point`
      : 'which LightRAG wrote this point is not recorded';
    const present = isVersion(serves)
      ? `the server last seen is ${serves}`
      : 'the version of the server is not known';
    return [
      warning('server_unknown', idOf(snapshot), {
        message: `${point}, and ${present}: ${rule}`,
        hint: 'start the version that wrote it, or a newer one; --instance-url of "up" records the version',
      }),
    ];
  }
  if (!isOlderVersion(serves, wrote)) return [];
  const outcome = isTooNewFor(serves, wrote) ? `does not start from it: ${rule}` : 'may not read all of it';
  return [
    warning('older_server', idOf(snapshot), {
      message: `LightRAG ${wrote} wrote this point, and the server last seen, ${serves}, ${outcome}`,
      hint: `install LightRAG ${wrote} or newer before you start the server`,
    }),
  ];
}

function modelFindings(writer: Instance | undefined, server: Instance | undefined): Finding[] {
  if (writer === undefined || server === undefined) return [];
  const { embeddingModel: model, embeddingDimension: dimension } = writer;
  if (model === '' || server.embeddingModel === '' || model === server.embeddingModel) return [];
  const isKnown = dimension > 0 && server.embeddingDimension > 0;
  const outcome = !isKnown
    ? 'it mixes the vectors of both, or refuses those of another dimension'
    : dimension === server.embeddingDimension
      ? 'it starts, and mixes the vectors of both'
      : `it refuses vectors of ${dimension} dimensions, as it expects ${server.embeddingDimension}`;
  return [
    finding('other_embedding_model', Severity_Value.WARNING, model, {
      message: `the vectors of this point were made by "${model}", and the server last seen uses "${server.embeddingModel}": ${outcome}`,
      hint: `set EMBEDDING_MODEL=${shellQuote(model)} before you start it`,
    }),
  ];
}
