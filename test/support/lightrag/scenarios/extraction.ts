// Odd names, long names, gleaning, summaries and limits of sources.
import type { Scenario } from '../world.ts';
import { ALICE, BOB, oddDocument } from './texts.ts';

const LONG_NAME = 'Very Long Name '.repeat(30).trim();
const SOURCES = [
  'a<SEP>b.txt',
  '../../etc/passwd',
  'C:\\docs\\x.txt',
  '名前.txt',
  'https://example.org/a?b=c#d',
  '"quoted".txt',
  'x'.repeat(5000),
  'unknown_source',
  'no-file-path',
];

export const EXTRACTION: readonly Scenario[] = [
  {
    name: 'special-characters',
    run: async (world) => {
      await world.insert(oddDocument(), 'special.txt');
      await world.state('inserted');
      await world.do('query', world.api.query('What is 张三丰 near 🎉?', 'local'));
      const again = ['@E 张三丰 | Person | named again', '@R 张三丰 | Newcomer | teaches | a pupil'];
      await world.insert([...again, '@E Newcomer | Person | new'].join('\n'), 'again.txt');
      await world.remove('special.txt');
    },
  },
  {
    name: 'special-file-sources',
    run: async (world) => {
      for (const [i, source] of SOURCES.entries())
        await world.insert(`Person Number${i} met Doctor Strange${i}. ${ALICE}`, source);
    },
  },
  {
    name: 'long-names',
    run: async (world) => {
      const entities = [`@E ${LONG_NAME} | Concept | long`, `@E ${LONG_NAME} B | Concept | begins the same`];
      const relations = [`@R ${LONG_NAME} | Short | x | y`, `@R ${LONG_NAME} B | Short | x | z`];
      await world.insert([...entities, '@E Short | Concept | s', ...relations].join('\n'), 'long.txt');
    },
  },
  {
    name: 'self-and-ghost',
    run: async (world) => {
      const lines = [
        '@E Alone | Concept | a',
        '@R Alone | Alone | loop | itself',
        '@R Ghost | Phantom | haunts | neither is an entity',
        '@R Alone | Ghost | sees | one is none',
        '@R Phantom | Ghost | haunts back | the other way round',
      ];
      await world.insert(lines.join('\n'), 'ghosts.txt');
      await world.state('inserted');
      await world.remove('ghosts.txt');
    },
  },
  {
    name: 'gleaning',
    run: async (world) => {
      const lines = [
        '@E First | Concept | a',
        '@G Gleaned Only | Concept | found late',
        '@G First | Concept | described better and at more length',
      ];
      await world.insert(lines.join('\n'), 'g.txt');
    },
  },
  {
    name: 'no-gleaning-no-cache',
    settings: { MAX_GLEANING: '0', ENABLE_LLM_CACHE: 'false', ENABLE_LLM_CACHE_FOR_EXTRACT: 'false' },
    run: async (world) => {
      await world.insert(ALICE, 'a.txt');
      await world.insert(BOB, 'b.txt');
      await world.do('query', world.api.query('Who is Bob Miller?'));
      await world.state('no cache');
      await world.remove('a.txt');
    },
  },
  {
    name: 'summaries',
    settings: { FORCE_LLM_SUMMARY_ON_MERGE: '2' },
    run: async (world) => {
      for (let i = 0; i < 6; i++) {
        const entities = [`@E Hub | Concept | description ${i} of the hub`, `@E Spoke ${i} | Concept | s`];
        const relations = [
          `@R Hub | Spoke ${i} | k${i} | r${i}`,
          `@R Hub | Rim | k${i} | the rim, number ${i}`,
        ];
        await world.insert(
          [...entities, `@E Rim | Concept | rim ${i}`, ...relations].join('\n'),
          `h${i}.txt`,
        );
      }
      await world.state('summed up');
      await world.remove('h2.txt');
    },
  },
  ...['FIFO', 'KEEP'].map(
    (method): Scenario => ({
      name: `source-limit-${method.toLowerCase()}`,
      settings: {
        MAX_SOURCE_IDS_PER_ENTITY: '2',
        MAX_SOURCE_IDS_PER_RELATION: '2',
        MAX_FILE_PATHS: '2',
        SOURCE_IDS_LIMIT_METHOD: method,
      },
      run: async (world) => {
        for (let i = 0; i < 5; i++) {
          const text = `Hub Center met Rim Edge in round ${i}. Hub Center met Visitor Number${i}.`;
          await world.insert(text, `h${i}.txt`);
        }
        await world.state('limited');
        await world.remove('h1.txt');
        await world.state('one deleted');
        await world.remove('h4.txt');
      },
    }),
  ),
  {
    name: 'json-extraction',
    settings: { ENTITY_EXTRACTION_USE_JSON: 'true' },
    run: async (world) => {
      const lines = [
        '@E Two\\nLines | Concept | first\\nsecond\\n\\nthird',
        '@E Plain | Concept | p',
        '@R Two\\nLines | Plain | a, b | over\\ntwo lines',
      ];
      await world.insert(lines.join('\n'), 'j.txt');
      await world.insert(ALICE, 'a.txt');
      await world.insert(oddDocument(), 's.txt');
    },
  },
];
