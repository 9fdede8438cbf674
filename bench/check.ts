import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { generate, growCache, ingest } from '../demo/generate.ts';
import { freshPlace } from './guarded.ts';
import { filesBytes, measure, median } from './measure.ts';
import { OURS } from './peers.ts';
import type { Report } from './report.ts';

const ROUNDS = 3;
const FLOOR_MB_S = 200;
const GOAL_MB_S = 400;
/** The stand-in's documents name about three entities each, and it knows no more than thirty thousand. */
const DOCUMENTS = 30_000;
const ENTITIES = 3_000_000;

/** Speed of the checks of a graph, the start of the program included. */
async function speed(dir: string, report: Report): Promise<void> {
  const size = await filesBytes(dir);
  const runs = [];
  for (let round = 0; round < ROUNDS; round++)
    runs.push(await measure({ name: 'ours', command: [...OURS, 'validate', '--dir', dir] }));
  const megabytes = size / 1e6 / median(runs.map(({ seconds }) => seconds));
  report.ratio('Checks of a graph (`validate`)', FLOOR_MB_S / megabytes, {
    floor: 1,
    goal: FLOOR_MB_S / GOAL_MB_S,
    text: `${megabytes.toFixed(0)} MB/s over ${(size / 1e9).toFixed(1)} GB on one core (at least ${FLOOR_MB_S}, goal ${GOAL_MB_S})`,
  });
}

async function json(words: readonly string[]): Promise<{ seconds: number; answer: Record<string, unknown> }> {
  const { seconds, stdout } = await measure({ name: 'ours', command: [...OURS, ...words, '--json'] });
  return { seconds, answer: JSON.parse(stdout) };
}

/** Grades of points that differ by one document, and by one question, and the diff of the first two. */
async function changes(
  dir: string,
  state: Awaited<ReturnType<typeof generate>>,
  report: Report,
): Promise<void> {
  const store = join(await freshPlace('graded'), 'store');
  const snapshot = async () => (await json(['snapshot', '--dir', dir, '--store', store])).answer;
  const first = await snapshot();
  const document = await ingest(dir, state, 1);
  const second = await snapshot();
  await growCache(dir, document);
  const third = await snapshot();
  const gradeSeconds = ({ gradeMs }: Record<string, unknown>) => Number(gradeMs) / 1000;
  report.ratio('A point with one document more, looked into', gradeSeconds(second) / 6, {
    floor: 1,
    goal: 1 / 3,
    text: `${gradeSeconds(second).toFixed(2)} s, all its files rewritten (at most 6 s, goal 2 s); the first point of all ${gradeSeconds(first).toFixed(2)} s, one with an answer of the model more ${gradeSeconds(third).toFixed(2)} s`,
  });
  const ids = [first.snapshotId, second.snapshotId].map(String);
  const seconds = [];
  for (let round = 0; round < ROUNDS; round++)
    seconds.push((await json(['diff', ...ids, '--store', store])).seconds);
  report.ratio('Diff of two points', median(seconds) / 3, {
    floor: 1,
    text: `${median(seconds).toFixed(2)} s between points that differ by a document, the start of the program included (less than 3 s)`,
  });
}

/** Memory of the checks beyond that of a directory with nothing in it. */
async function memory(dir: string, what: string, limitMb: number, report: Report): Promise<void> {
  const empty = await freshPlace('nothing');
  const peak = async (one: string) =>
    (await measure({ name: 'ours', command: [...OURS, 'validate', '--dir', one] })).rssBytes / 1e6;
  const [base, most] = [await peak(empty), await peak(dir)];
  report.ratio(`Memory of the checks, ${what}`, (most - base) / limitMb, {
    floor: 1,
    text: `${(most - base).toFixed(0)} MB beyond the ${base.toFixed(0)} MB of the program (at most ${limitMb})`,
  });
}

/** Writes a file of many records piece by piece. */
async function write(path: string, head: string, record: (i: number) => string, tail: string): Promise<void> {
  const out = createWriteStream(path);
  out.write(head);
  for (let i = 0; i < ENTITIES; i += 1000) {
    const part = Array.from({ length: 1000 }, (_, k) => record(i + k)).join('');
    if (!out.write(part)) await once(out, 'drain');
  }
  out.end(tail);
  await once(out, 'close');
}

/** A graph of millions of nodes, each of which is in entity_chunks. */
async function manyEntities(dir: string): Promise<void> {
  await mkdir(dir, { recursive: true });
  const name = (i: number) => `entity number ${i}`;
  const key = '<key id="d0" for="node" attr.name="source_id" attr.type="string" />';
  await write(
    join(dir, 'graph_chunk_entity_relation.graphml'),
    `<?xml version='1.0' encoding='utf-8'?>\n<graphml xmlns="http://graphml.graphdrawing.org/xmlns">${key}<graph edgedefault="undirected">`,
    (i) => `<node id="${name(i)}"><data key="d0">chunk-${i % 1000}</data></node>\n`,
    '</graph></graphml>\n',
  );
  await write(
    join(dir, 'kv_store_entity_chunks.json'),
    '{',
    (i) => `${i === 0 ? '' : ','}\n  "${name(i)}": {"chunk_ids": ["chunk-${i % 1000}"], "count": 1}`,
    '\n}\n',
  );
}

/** What looking into graphs costs. */
export async function checks(bytes: number, report: Report): Promise<void> {
  const dir = join(await freshPlace('check'), 'rag');
  const state = await generate(dir, { seed: 4, bytes });
  await speed(dir, report);
  await changes(dir, state, report);
  const many = join(await freshPlace('check'), 'many');
  await generate(many, { seed: 4, documents: DOCUMENTS, dimension: 64 });
  await memory(many, 'about 90,000 entities', 150, report);
  const most = join(await freshPlace('check'), 'most');
  await manyEntities(most);
  await memory(most, '3,000,000 entities', 400, report);
}
