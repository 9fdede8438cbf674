// Queries, cancelling, signals, restarts, and calls while the server is busy.
import { setTimeout as sleep } from 'node:timers/promises';
import { QUERY_MODES } from '../api.ts';
import type { Scenario, World } from '../world.ts';
import { ALICE, BOB, paragraphs } from './texts.ts';

/** Inserts documents that take a while. */
async function insertSlowly(world: World, count: number, delayMs: number): Promise<void> {
  const numbers = Array.from({ length: count }, (_, i) => i);
  const text = (i: number) =>
    `@@SLOW:${delayMs}@@ Slow Person${i} met Calm Person${i}. ${paragraphs(8, `Book${i}`)}`;
  const sources = numbers.map((i) => `slow${i}.txt`);
  await world.say('slow texts', world.api.insertAll(numbers.map(text), sources));
}

/** A stop in the middle of four documents, some of them begun. */
function midway(signal: NodeJS.Signals, afterMs: number, what = ''): Scenario {
  return {
    name: `midway-${signal.toLowerCase()}${what}`,
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      await insertSlowly(world, 4, 500);
      await sleep(afterMs);
      await world.stop(signal);
      await world.state('ended midway');
      if (!(await world.tryStart('start'))) return;
      await world.settle({ ignoresUnfinished: true });
      await world.state('started again');
      await world.do('reprocess', world.api.reprocess());
    },
  };
}

export const SERVICE: readonly Scenario[] = [
  {
    name: 'queries',
    run: async (world) => {
      const { api } = world;
      await world.insert(ALICE, 'a.txt');
      await world.insert(paragraphs(10), 'p.txt');
      for (const mode of QUERY_MODES) {
        await world.say(mode, api.query(`Who founded Acme Corp, asked in ${mode}?`, mode));
        const streamed = { query: `Where is Acme Corp, in ${mode}?`, mode, stream: true };
        await world.say(`${mode}, streamed`, api.post('/query/stream', streamed));
        if (mode !== 'bypass')
          await world.say(`${mode}, data`, api.queryData(`What is Acme Corp in ${mode}?`, mode));
      }
      await world.say('again', api.query('Who founded Acme Corp, asked in mix?'));
      await world.say('context', api.query('Context of Acme Corp?', 'mix', { only_need_context: true }));
      await world.say('prompt', api.query('Prompt of Acme Corp?', 'mix', { only_need_prompt: true }));
      await world.say('short', api.query('x'));
      const chat = { model: 'lightrag:latest', messages: [{ role: 'user', content: '/global What is it?' }] };
      await world.say('chat', api.post('/api/chat', { ...chat, stream: false }));
      const paths = ['/api/version', '/api/tags', '/graph/label/list', '/graph/label/popular?limit=5'];
      const more = [
        '/graph/label/search?q=Acme',
        '/graphs?label=*&max_depth=3',
        '/graph/entity/exists?name=Acme',
      ];
      for (const path of [...paths, ...more, '/documents/status_counts'])
        await world.say(path, api.get(path));
    },
  },
  {
    name: 'query-empty',
    run: async (world) => {
      for (const mode of QUERY_MODES) await world.say(mode, world.api.query('Is anything here?', mode));
    },
  },
  {
    name: 'cancel',
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      await insertSlowly(world, 5, 700);
      await sleep(1500);
      await world.say('cancel', world.api.cancel());
      await world.settle({ ignoresUnfinished: true });
      await world.state('cancelled');
      await world.do('reprocess', world.api.reprocess());
    },
  },
  {
    name: 'cancel-idle',
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      await world.do('cancel', world.api.cancel());
    },
  },
  midway('SIGTERM', 2500),
  midway('SIGINT', 2500),
  midway('SIGKILL', 2500),
  midway('SIGTERM', 5000, '-later'),
  midway('SIGKILL', 5000, '-later'),
  {
    name: 'sigkill-at-rest',
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      await world.do('query', world.api.query('Who is Alice Johnson?'));
      await world.stop('SIGKILL');
      await world.state('killed');
      await world.start();
    },
  },
  {
    name: 'restarts',
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      for (let i = 0; i < 3; i++) {
        await world.stop();
        await world.start();
        await world.do('query', world.api.query(`Question ${i} on Acme Corp?`));
      }
    },
  },
  {
    name: 'failed-then-stopped',
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      await world.insert(`@@FAIL400@@ ${BOB}`, 'bad.txt');
      await world.do('reprocess', world.api.reprocess());
      await world.stop();
      await world.state('stopped with a failed document');
      await world.start();
    },
  },
  {
    name: 'calls-while-busy',
    run: async (world) => {
      const { api } = world;
      await world.insert(ALICE, 'a.txt');
      const id = await world.idOf('a.txt');
      await insertSlowly(world, 4, 500);
      await sleep(1200);
      await world.say('delete', api.remove([id]));
      await world.say('clear', api.clear());
      await world.say('delete an entity', api.deleteEntity('Acme Corp'));
      await world.say('edit', api.editEntity('Globex', { description: 'edited while busy' }));
      await world.say('create', api.createEntity('While Busy', { description: 'd' }));
      await world.say('merge', api.merge(['Berlin'], 'Globex'));
      await world.say('clear the cache', api.clearCache());
    },
  },
  {
    name: 'insert-while-deleting',
    run: async (world) => {
      await world.insert(paragraphs(30), 'big.txt');
      await world.insert(ALICE, 'a.txt');
      const id = await world.idOf('big.txt');
      world.fake.chatDelayMs = 150;
      await world.say('delete', world.api.remove([id], { withCache: true }));
      await world.do('insert', world.api.insert(BOB, 'b.txt'));
    },
  },
];
