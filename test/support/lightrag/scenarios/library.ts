// What only the library offers: custom graphs and chunks, own ids, exports. No server runs.
import { join } from 'node:path';
import type { Scenario, World } from '../world.ts';
import { ALICE, BOB, paragraphs } from './texts.ts';

const KG = {
  chunks: [
    { content: 'Alice and Bob work on quantum computing.', source_id: 'doc-kg-1', file_path: 'kg1.txt' },
    { content: 'Quantum computing is a field of physics.', source_id: 'doc-kg-2' },
  ],
  entities: [
    { entity_name: 'Alice', entity_type: 'person', description: 'A researcher.', source_id: 'doc-kg-1' },
    { entity_name: 'Bob', entity_type: 'person', description: 'A mathematician.', source_id: 'doc-kg-1' },
    {
      entity_name: 'Quantum Computing',
      entity_type: 'technology',
      description: 'A field.',
      source_id: 'doc-kg-2',
    },
  ],
  relationships: [
    {
      src_id: 'Bob',
      tgt_id: 'Alice',
      description: 'They work together.',
      keywords: 'work',
      source_id: 'doc-kg-1',
    },
    {
      src_id: 'Alice',
      tgt_id: 'Quantum Computing',
      description: 'She studies it.',
      keywords: 'research',
      weight: 2,
      source_id: 'doc-kg-1',
    },
  ],
};
const SMALL_KG = {
  chunks: [{ content: 'A second text.', source_id: 's' }],
  entities: [{ entity_name: 'Kg One', source_id: 's' }],
  relationships: [],
};
const BARE_KG = {
  entities: [{ entity_name: 'No Chunk', description: 'd' }],
  relationships: [{ src_id: 'No Chunk', tgt_id: 'Never Named', description: 'r', keywords: 'k' }],
};
const BOTH_WAYS_KG = {
  chunks: [{ content: 'Two ways.', source_id: 's' }],
  entities: [
    { entity_name: 'A', source_id: 's' },
    { entity_name: 'B', source_id: 's' },
    { entity_name: 'A', source_id: 's', description: 'again' },
  ],
  relationships: [
    { src_id: 'A', tgt_id: 'B', description: 'one way', keywords: 'k', source_id: 's' },
    { src_id: 'B', tgt_id: 'A', description: 'the other way', keywords: 'k', source_id: 's' },
  ],
};
const OVER_DOCUMENTS_KG = {
  chunks: [{ content: 'Alice Johnson and Acme Corp again.', source_id: 's' }],
  entities: [{ entity_name: 'Alice Johnson', description: 'overwritten', source_id: 's' }],
  relationships: [
    {
      src_id: 'Alice Johnson',
      tgt_id: 'Acme Corp',
      description: 'overwritten',
      keywords: 'k',
      source_id: 's',
    },
  ],
};

function library(name: string, run: (world: World) => Promise<unknown>): Scenario {
  return { name: `library-${name}`, starts: false, run: async (world) => void (await run(world)) };
}

export const LIBRARY: readonly Scenario[] = [
  library('open', (world) => world.library('open')),
  library('custom-kg', async (world) => {
    await world.library('custom_kg', { kg: KG });
    await world.state('custom graph');
    await world.library('custom_kg', { kg: SMALL_KG, doc_id: 'doc-kg' });
  }),
  library('custom-kg-bare', (world) => world.library('custom_kg', { kg: BARE_KG })),
  library('custom-kg-both-ways', (world) => world.library('custom_kg', { kg: BOTH_WAYS_KG })),
  library('custom-kg-over-documents', async (world) => {
    await world.library('insert', { input: ALICE, file_paths: ['a.txt'] });
    await world.library('custom_kg', { kg: OVER_DOCUMENTS_KG });
  }),
  library('custom-kg-then-served', async (world) => {
    await world.library('custom_kg', { kg: KG });
    await world.start();
    await world.insert(ALICE, 'a.txt');
    await world.state('a document beside');
    await world.remove('a.txt');
  }),
  library('custom-chunks', async (world) => {
    await world.library('custom_chunks', {
      text: `${ALICE}\n${BOB}`,
      chunks: [ALICE, BOB],
      doc_id: 'my-own-id',
    });
    await world.state('custom chunks');
    await world.library('delete_document', { id: 'my-own-id' });
  }),
  library('own-ids', async (world) => {
    const ids = ['alice', 'bob 🎉 <SEP>'];
    await world.library('insert', { input: [ALICE, BOB], ids, file_paths: ['a.txt', 'b.txt'] });
    await world.state('own ids');
    await world.library('delete_document', { id: 'alice', cache: true });
  }),
  library('split-by-character', (world) =>
    world.library('insert', { input: [ALICE, BOB, ALICE].join('\f'), split: '\f', file_paths: ['s.txt'] }),
  ),
  library('enqueue-only', async (world) => {
    await world.library('enqueue', { input: [ALICE], file_paths: ['a.txt'] });
    await world.state('pending');
    await world.library('process');
  }),
  library('edit-merge-delete', async (world) => {
    await world.library('insert', { input: [ALICE, BOB], file_paths: ['a.txt', 'b.txt'] });
    const entity = { description: 'h', entity_type: 't', source_id: 'manual' };
    await world.library('create_entity', { name: 'Hand', data: entity });
    const relation = { description: 'by hand', keywords: 'hand' };
    await world.library('create_relation', { source: 'Hand', target: 'Acme Corp', data: relation });
    const renamed = { entity_name: 'Acme AG', description: 'renamed' };
    await world.library('edit_entity', { name: 'Acme Corp', data: renamed });
    const edited = { description: 'edited', weight: 3 };
    await world.library('edit_relation', { source: 'Hand', target: 'Acme AG', data: edited });
    await world.state('edited');
    const strategy = { description: 'concatenate', entity_type: 'keep_first', source_id: 'join_unique' };
    const into = {
      names: ['Hand', 'Bob Miller'],
      into: 'Alice Johnson',
      strategy,
      data: { entity_type: 'group' },
    };
    await world.library('merge', into);
    await world.state('merged');
    await world.library('delete_relation', { source: 'Alice Johnson', target: 'Acme AG' });
    await world.library('delete_entity', { name: 'Globex' });
  }),
  library('export', async (world) => {
    await world.library('insert', { input: [ALICE], file_paths: ['a.txt'] });
    for (const format of ['csv', 'md', 'txt'])
      await world.library('export', { path: join(world.inputs, `export.${format}`), format });
  }),
  library('rebuild', async (world) => {
    const input = [ALICE, BOB, paragraphs(6)];
    await world.library('insert', { input, file_paths: ['a.txt', 'b.txt', 'p.txt'] });
    await world.library('rebuild');
    await world.state('rebuilt');
    await world.library('clear_cache');
    await world.library('rebuild');
  }),
  library('clear-cache', async (world) => {
    await world.library('insert', { input: [ALICE], file_paths: ['a.txt'] });
    await world.library('query', { query: 'Who is Alice Johnson?' });
    await world.library('clear_cache');
  }),
  library('drop', async (world) => {
    await world.library('insert', { input: [ALICE], file_paths: ['a.txt'] });
    await world.library('drop');
  }),
  library('not-finalized', (world) =>
    world.library('insert', { input: [ALICE], file_paths: ['a.txt'], unfinished: true }),
  ),
];
