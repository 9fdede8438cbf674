// Workspaces, other settings on the same directory, two servers, and versions one after the other.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Installed } from '../install.ts';
import { ServerRefused } from '../server.ts';
import type { Scenario, World } from '../world.ts';
import { ALICE, BOB, oddDocument, paragraphs } from './texts.ts';

function newerOf({ newer }: World): Installed {
  if (newer === undefined) throw new Error('no newer version');
  return newer;
}

export const PLACES: readonly Scenario[] = [
  {
    name: 'workspace',
    settings: { WORKSPACE: 'alpha' },
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      await world.state('its subfolder', join(world.dir, 'alpha'));
    },
  },
  {
    name: 'two-workspaces',
    settings: { WORKSPACE: 'alpha' },
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      await world.stop();
      await world.start({ WORKSPACE: 'beta_2' });
      await world.insert(BOB, 'b.txt');
      await world.stop();
      await world.start({ WORKSPACE: '' });
      await world.insert(paragraphs(3), 'c.txt');
      for (const name of ['alpha', 'beta_2']) await world.state(name, join(world.dir, name));
    },
  },
  {
    name: 'workspace-names',
    starts: false,
    run: async (world) => {
      for (const name of ['with space', 'döt.net', 'a-b', '工作区']) {
        if (await world.tryStart(name, { WORKSPACE: name })) await world.insert(ALICE, 'a.txt');
        await world.stop();
      }
      for (const { name } of readdirSync(world.dir, { withFileTypes: true }).filter((one) =>
        one.isDirectory(),
      ))
        await world.state(name, join(world.dir, name));
    },
  },
  {
    name: 'other-dimension',
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      await world.stop();
      await world.tryStart('another dimension', { EMBEDDING_DIM: '64' });
    },
  },
  {
    name: 'other-model',
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      await world.stop();
      if (await world.tryStart('another model', { EMBEDDING_MODEL: 'other-embedding-model' }))
        await world.insert(BOB, 'b.txt');
    },
  },
  {
    name: 'two-servers',
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      try {
        const second = await world.startBeside();
        await world.say('insert by the second', second.api.insert(BOB, 'b.txt'));
        await second.api.settle(world.dir);
        await second.stop();
      } catch (error) {
        if (!(error instanceof ServerRefused)) throw error;
        world.replies.push('the second server: refused');
      }
      await world.insert(paragraphs(2), 'c.txt');
    },
  },
  {
    name: 'upgrade',
    upgrades: true,
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      await world.insert(oddDocument(), 's.txt');
      await world.say('entity', world.api.createEntity('Hand Made', { description: 'h' }));
      const relation = { description: 'h', keywords: 'k' };
      await world.say('relation', world.api.createRelation('Hand Made', 'Alice Johnson', relation));
      await world.do('query', world.api.query('Who is Alice Johnson?'));
      await world.stop();
      await world.state('the old version');
      await world.start({}, newerOf(world));
      await world.settle();
      await world.state('opened by the new one');
      await world.insert(BOB, 'b.txt');
      await world.state('written by the new one');
      await world.remove('a.txt');
    },
  },
  {
    name: 'upgrade-and-back',
    upgrades: true,
    run: async (world) => {
      const old = world.installed;
      await world.insert(ALICE, 'a.txt');
      await world.stop();
      await world.start({}, newerOf(world));
      await world.insert(BOB, 'b.txt');
      await world.stop();
      await world.state('the new version');
      if (await world.tryStart('the old version again', {}, old)) await world.insert(paragraphs(3), 'c.txt');
    },
  },
  {
    name: 'upgrade-with-failed',
    upgrades: true,
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      await world.insert(`${paragraphs(6)}\n\n@@FAIL400@@ Last Person.`, 'bad.txt');
      await world.stop();
      await world.start({}, newerOf(world));
      await world.settle({ ignoresUnfinished: true });
      await world.state('opened by the new one');
      await world.do('reprocess', world.api.reprocess());
    },
  },
];
