import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readSettings } from '../../../agent/config/read.ts';
import type { Flags } from '../../../host/config/flags.ts';

interface Given {
  readonly yaml?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly flags?: Flags;
}

async function read({ yaml, env = {}, flags = {} }: Given) {
  return await readSettings(
    { file: yaml === undefined ? undefined : 'c.yaml', env, flags: { '--dir': '/d', ...flags } },
    {
      cwd: '/',
      hostName: 'machine-a',
      state: '/state',
      readText: () => yaml ?? '',
      realPath: (path) => path,
    },
  );
}

describe('the log settings of an agent', () => {
  const cases: readonly [name: string, given: Given, level: string, format: string][] = [
    ['are info and text by default', {}, 'info', 'text'],
    ['come from the file', { yaml: 'log: {level: debug, format: json}' }, 'debug', 'json'],
    [
      'come from variables',
      { env: { LIGHTKEEPER_LOG_LEVEL: 'error', LIGHTKEEPER_LOG_FORMAT: 'json' } },
      'error',
      'json',
    ],
    ['come from flags', { flags: { '--log-level': 'warn', '--log-format': 'json' } }, 'warn', 'json'],
    [
      'have flags win over variables over the file',
      {
        yaml: 'log: {level: debug, format: json}',
        env: { LIGHTKEEPER_LOG_LEVEL: 'error' },
        flags: { '--log-level': 'warn' },
      },
      'warn',
      'json',
    ],
    ['come from LIGHTRAG_LOG_LEVEL', { env: { LIGHTRAG_LOG_LEVEL: 'WARNING' } }, 'warn', 'text'],
    [
      'have LIGHTKEEPER_LOG_LEVEL win over LIGHTRAG_LOG_LEVEL',
      { env: { LIGHTRAG_LOG_LEVEL: 'DEBUG', LIGHTKEEPER_LOG_LEVEL: 'error' } },
      'error',
      'text',
    ],
  ];
  for (const [name, given, level, format] of cases) {
    it(name, async () => {
      const { log, problems, warnings } = await read(given);
      assert.deepEqual([problems, warnings], [[], []]);
      assert.deepEqual([log.level, log.format], [level, format]);
    });
  }

  for (const [word, level] of [
    ['DEBUG', 'debug'],
    ['info', 'info'],
    ['Warning', 'warn'],
    ['ERROR', 'error'],
    ['CRITICAL', 'error'],
  ] as const) {
    it(`take ${word} of the original system for ${level}`, async () => {
      assert.equal((await read({ env: { LIGHTRAG_LOG_LEVEL: word } })).log.level, level);
    });
  }

  it('are refused for an unknown word', async () => {
    const { problems } = await read({
      yaml: 'log: {level: WARNING}',
      env: { LIGHTKEEPER_LOG_FORMAT: 'xml' },
      flags: {},
    });
    assert.deepEqual(problems, [
      'c.yaml:1: log.level: "WARNING" is none of debug, info, warn, error',
      'LIGHTKEEPER_LOG_FORMAT: "xml" is none of text, json',
    ]);
  });
});
