// Entities and relations that are made, changed and merged by hand.
import type { Scenario } from '../world.ts';
import { ALICE, BOB, ODD_NAMES, oddDocument } from './texts.ts';

export const EDITS: readonly Scenario[] = [
  {
    name: 'create-by-hand',
    run: async (world) => {
      const { api } = world;
      await world.insert(ALICE, 'a.txt');
      await world.do(
        'entity',
        api.createEntity('Hand Made', { description: 'by hand', entity_type: 'artifact' }),
      );
      await world.state('entity');
      await world.say('bare entity', api.createEntity('Second Made'));
      const both = { description: 'both by hand', keywords: 'hand', weight: 2.5 };
      await world.do('relation', api.createRelation('Hand Made', 'Second Made', both));
      await world.state('relation');
      const mixed = { description: 'hand to text', keywords: 'mixed' };
      await world.say('to a text', api.createRelation('Hand Made', 'Alice Johnson', mixed));
      await world.say('to nobody', api.createRelation('Hand Made', 'Nobody', { description: 'no' }));
      await world.say('again', api.createEntity('Hand Made', { description: 'again' }));
    },
  },
  {
    name: 'create-in-empty',
    run: async (world) => {
      await world.say('first', world.api.createEntity('First', { description: 'first', entity_type: 'x' }));
      await world.say('second', world.api.createEntity('Second', { description: 'second' }));
      await world.say(
        'relation',
        world.api.createRelation('First', 'Second', { description: 'd', keywords: 'k' }),
      );
    },
  },
  {
    name: 'create-odd-data',
    run: async (world) => {
      const { api } = world;
      const source = { source_id: 'chunk-none<SEP>chunk-other', file_path: 'hand.txt' };
      await world.say(
        'source',
        api.createEntity('With Source', { description: 'd', entity_type: 'x', ...source }),
      );
      const extra = { description: 'd', custom_field: 'v', n: 5, f: 1.5, b: true };
      await world.do('extra', api.createEntity('Extra Fields', extra));
      await world.state('extra fields');
      await world.say('nulls', api.createEntity('Nulls', { description: null, entity_type: null }));
      await world.say('list', api.createEntity('Lists', { description: 'd', tags: ['a', 'b'] }));
    },
  },
  {
    name: 'create-special',
    run: async (world) => {
      const { api } = world;
      let before: string | undefined;
      for (const name of ODD_NAMES) {
        const description = `line one of ${name}\nline two\r\n\ttabbed "quoted" <b>&amp;</b> ]]> \u0007 bell`;
        await world.say(name, api.createEntity(name, { description, entity_type: 'weird & <type>' }));
        const relation = { description: `a\nb ${name}`, keywords: 'k1,k2' };
        if (before !== undefined) await world.say('relation', api.createRelation(before, name, relation));
        before = name;
      }
      await world.say('newline', api.createEntity('two\nlines', { description: 'd' }));
      await world.say('long', api.createEntity('L'.repeat(600), { description: 'D'.repeat(100_000) }));
      await world.say('spaces', api.createEntity('   ', { description: 'd' }));
      await world.say('surrogate', api.createEntity('lone \ud800 surrogate', { description: 'd' }));
    },
  },
  {
    name: 'create-printable',
    run: async (world) => {
      let before: string | undefined;
      for (const name of ODD_NAMES) {
        const data = { description: `"${name}" & <b>`, entity_type: 'a & <type>' };
        await world.say(name, world.api.createEntity(name, data));
        if (before !== undefined) await world.say('relation', world.api.createRelation(before, name, data));
        before = name;
      }
    },
  },
  {
    name: 'edit-entity',
    run: async (world) => {
      const { api } = world;
      await world.insert(ALICE, 'a.txt');
      const edited = { description: 'A company, as edited.', entity_type: 'company' };
      await world.do('description', api.editEntity('Acme Corp', edited));
      await world.state('description');
      const renamed = { entity_name: 'Acme Inc' };
      await world.say('renaming is off', api.editEntity('Acme Corp', renamed));
      await world.do('rename', api.editEntity('Acme Corp', renamed, { renames: true }));
      await world.state('renamed');
      const onto = { entity_name: 'Globex', description: 'merged' };
      await world.say('onto another', api.editEntity('Acme Inc', onto, { renames: true }));
      await world.do('merge', api.editEntity('Acme Inc', onto, { renames: true, merges: true }));
      await world.state('merged by a rename');
      await world.insert(`${ALICE} Acme Inc is back.`, 'b.txt');
      await world.remove('a.txt');
    },
  },
  {
    name: 'edit-relation',
    run: async (world) => {
      const { api } = world;
      await world.insert(ALICE, 'a.txt');
      const edited = { description: 'founded it, as edited', keywords: 'founder', weight: 9 };
      await world.say('edit', api.editRelation('Alice Johnson', 'Acme Corp', edited));
      const reversed = { description: 'reversed edit', keywords: 'staff' };
      await world.do('reversed', api.editRelation('Acme Corp', 'Bob Miller', reversed));
    },
  },
  {
    name: 'edit-source-id',
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      const source = { source_id: 'chunk-made-up' };
      await world.say('entity', world.api.editEntity('Acme Corp', source));
      await world.do('relation', world.api.editRelation('Alice Johnson', 'Acme Corp', source));
    },
  },
  {
    name: 'merge-entities',
    run: async (world) => {
      const { api } = world;
      await world.insert(ALICE, 'a.txt');
      await world.insert(BOB, 'b.txt');
      await world.do('merge', api.merge(['Alice Johnson', 'Carol Danvers'], 'Bob Miller'));
      await world.state('into one that was there');
      await world.do('merge', api.merge(['Globex', 'Acme Corp'], 'Brand New Name'));
      await world.state('into a new one');
      await world.say('into itself', api.merge(['Paris'], 'Paris'));
      await world.say('nobody', api.merge(['Nobody'], 'Paris'));
      await world.remove('a.txt');
    },
  },
  {
    name: 'merge-special',
    run: async (world) => {
      await world.insert(oddDocument(), 's.txt');
      await world.do('merge', world.api.merge(['张三丰', 'A & B <Ltd>'], '合并 & <one>'));
    },
  },
];
