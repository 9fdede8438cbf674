// Deletion of documents, caches, entities, relations and everything.
import type { Scenario } from '../world.ts';
import { ALICE, BOB, paragraphs } from './texts.ts';

export const DELETIONS: readonly Scenario[] = [
  ...[false, true].map(
    (withCache): Scenario => ({
      name: `delete-one-of-two${withCache ? '-with-cache' : ''}`,
      run: async (world) => {
        await world.insert(ALICE, 'alice.txt');
        await world.insert(BOB, 'bob.txt');
        await world.state('both');
        await world.remove('alice.txt', { withCache });
      },
    }),
  ),
  {
    name: 'delete-all-one-by-one',
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      await world.insert(BOB, 'b.txt');
      await world.insert(paragraphs(6), 'c.txt');
      for (const source of ['a.txt', 'b.txt', 'c.txt']) await world.remove(source);
    },
  },
  {
    name: 'delete-several',
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      await world.insert(BOB, 'b.txt');
      await world.insert(paragraphs(6), 'c.txt');
      const ids = [await world.idOf('a.txt'), await world.idOf('c.txt')];
      await world.do('delete', world.api.remove(ids, { withCache: true, withFile: true }));
    },
  },
  {
    name: 'delete-uploaded-file',
    run: async (world) => {
      await world.do('upload', world.api.upload('u.txt', ALICE));
      await world.remove('u.txt', { withFile: true });
      await world.do('upload again', world.api.upload('u.txt', ALICE));
    },
  },
  {
    name: 'delete-unknown',
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      await world.do('delete', world.api.remove(['doc-00000000000000000000000000000000']));
    },
  },
  {
    name: 'delete-after-cache-cleared',
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      await world.insert(BOB, 'b.txt');
      await world.do('clear the cache', world.api.clearCache());
      await world.state('cache cleared');
      await world.remove('a.txt');
    },
  },
  {
    name: 'delete-document-with-shared-chunk',
    run: async (world) => {
      const shared = paragraphs(2, 'Shared');
      await world.insert(shared, 'p1.txt');
      await world.insert(`${shared}\n\nDaniel Defoe saw Friday.`, 'p3.txt');
      await world.remove('p1.txt');
    },
  },
  {
    name: 'delete-then-insert-again',
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      await world.remove('a.txt');
      await world.state('deleted');
      await world.insert(ALICE, 'a.txt');
    },
  },
  {
    name: 'clear-documents',
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      await world.insert(BOB, 'b.txt');
      await world.do('clear', world.api.clear());
      await world.state('cleared');
      await world.insert(ALICE, 'a.txt');
    },
  },
  {
    name: 'clear-cache',
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      await world.do('query', world.api.query('Who is Alice Johnson?'));
      await world.do('clear', world.api.clearCache());
    },
  },
  {
    name: 'delete-entity',
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      await world.do('entity', world.api.deleteEntity('Acme Corp'));
      await world.state('entity gone');
      await world.say('again', world.api.deleteEntity('Acme Corp'));
      await world.remove('a.txt');
    },
  },
  {
    name: 'delete-relation',
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      await world.do('relation', world.api.deleteRelation('Alice Johnson', 'Acme Corp'));
      await world.say('unknown', world.api.deleteRelation('Alice Johnson', 'Globex'));
      await world.do('reversed', world.api.deleteRelation('Bob Miller', 'Acme Corp'));
    },
  },
];
