// Failures of the language model and of the embeddings.
import type { Scenario } from '../world.ts';
import { ALICE, BOB, paragraphs } from './texts.ts';

const BAD_REPLIES = ['GARBAGE', 'EMPTY', 'TRUNCATED', 'BADROWS', 'THINK', 'FENCED'];

const replies = BAD_REPLIES.map(
  (kind): Scenario => ({
    name: `reply-${kind.toLowerCase()}`,
    run: async (world) => {
      await world.insert(ALICE, 'alice.txt');
      await world.insert(`@@${kind}@@ ${BOB}`, 'bad.txt');
    },
  }),
);

export const FAILURES: readonly Scenario[] = [
  ...replies,
  {
    name: 'fail-400',
    run: async (world) => {
      await world.insert(ALICE, 'alice.txt');
      await world.insert(`@@FAIL400@@ ${BOB}`, 'bad.txt');
      await world.state('failed');
      await world.do('reprocess', world.api.reprocess());
    },
  },
  { name: 'fail-500', run: async (world) => void (await world.insert(`@@FAIL500@@ ${BOB}`, 'bad.txt')) },
  { name: 'dropped', run: async (world) => void (await world.insert(`@@DROP@@ ${BOB}`, 'bad.txt')) },
  {
    name: 'fail-first-document-only',
    run: async (world) => {
      await world.insert(`@@FAIL400@@ ${BOB}`, 'bad.txt');
      await world.state('only a failed document');
      await world.insert(ALICE, 'alice.txt');
    },
  },
  {
    name: 'fail-one-chunk',
    run: async (world) => {
      const middle = '@@FAIL400@@ Last Person met Final Person.';
      await world.insert([paragraphs(8), middle, paragraphs(8, 'Part Two')].join('\n\n'), 'half.txt');
    },
  },
  {
    name: 'fail-then-reprocess',
    run: async (world) => {
      world.fake.failing.add('later');
      await world.insert(`@@FAILWHILE:later@@ ${BOB}`, 'later.txt');
      await world.state('failed');
      world.fake.failing.delete('later');
      await world.do('reprocess', world.api.reprocess());
    },
  },
  {
    name: 'fail-half-then-reprocess',
    run: async (world) => {
      world.fake.failing.add('half');
      const text = `${paragraphs(10)}\n\n@@FAILWHILE:half@@ Last Person met Final Person.`;
      await world.insert(text, 'later.txt');
      await world.state('failed');
      world.fake.failing.delete('half');
      await world.do('reprocess', world.api.reprocess());
    },
  },
  {
    name: 'fail-shared-entities',
    run: async (world) => {
      await world.insert(paragraphs(6), 'good.txt');
      await world.insert(`${paragraphs(12)}\n\n@@FAIL400@@ Last Person.`, 'bad.txt');
    },
  },
  {
    name: 'fail-delete-failed',
    run: async (world) => {
      await world.insert(ALICE, 'alice.txt');
      await world.insert(`${paragraphs(8)}\n\n@@FAIL400@@ Last Person.`, 'bad.txt');
      await world.state('failed');
      await world.remove('bad.txt');
    },
  },
  {
    name: 'fail-embedding',
    run: async (world) => {
      await world.insert(ALICE, 'alice.txt');
      await world.insert(`@@EMBED500@@ ${BOB}`, 'bad.txt');
    },
  },
  {
    name: 'fail-embedding-entity',
    run: async (world) => {
      await world.insert(ALICE, 'alice.txt');
      const [good, bad] = ['@E Good One | Concept | fine', '@E Bad One | Concept | @@EMBED500@@'];
      await world.insert([good, bad, '@R Good One | Bad One | x | y'].join('\n'), 'bad.txt');
      await world.state('failed');
      await world.remove('bad.txt');
    },
  },
  {
    name: 'fail-embedding-reprocess',
    run: async (world) => {
      await world.insert(ALICE, 'alice.txt');
      world.fake.embeddingStatus = 503;
      await world.insert(BOB, 'bob.txt');
      await world.state('failed');
      world.fake.embeddingStatus = 0;
      await world.do('reprocess', world.api.reprocess());
    },
  },
  {
    name: 'odd-vectors',
    run: async (world) => {
      const relation = '@R Zero Vector | Fine Vector | x | y';
      const fine = '@E Fine Vector | Concept | fine';
      await world.insert(['@E Zero Vector | Concept | @@ZEROVEC@@', fine, relation].join('\n'), 'zero.txt');
      await world.state('zero vector');
      await world.insert(`@E Nan Vector | Concept | @@NANVEC@@\n${fine} too`, 'nan.txt');
    },
  },
  {
    name: 'wrong-dimension',
    run: async (world) => {
      await world.insert(ALICE, 'alice.txt');
      await world.insert('@E Wide Vector | Concept | @@WRONGDIM@@', 'wide.txt');
    },
  },
  {
    name: 'hang',
    settings: { LLM_TIMEOUT: '5', TIMEOUT: '5' },
    run: async (world) => {
      await world.insert(ALICE, 'alice.txt');
      await world.insert(`@@HANG@@ ${BOB}`, 'hang.txt');
    },
  },
];
