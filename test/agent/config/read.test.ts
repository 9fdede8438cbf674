import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { type ReadSettings, readSettings } from '../../../agent/config/read.ts';
import { settingFlags } from '../../../agent/config/schema.ts';
import type { AgentSettings } from '../../../agent/config/settings.ts';
import type { Flags } from '../../../host/config/flags.ts';

interface Given {
  readonly yaml?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly flags?: Flags;
  /** Other files. */
  readonly files?: Readonly<Record<string, string>>;
  /** Links: where a path leads. */
  readonly links?: Readonly<Record<string, string>>;
}

/** Reads settings without a machine: the file is /etc/lk/config.yaml, named from /etc. */
async function read({ yaml, env = {}, flags = {}, files = {}, links = {} }: Given): Promise<ReadSettings> {
  const all: Readonly<Record<string, string>> = {
    ...(yaml === undefined ? {} : { '/etc/lk/config.yaml': yaml }),
    ...files,
  };
  const file = yaml === undefined ? undefined : 'lk/config.yaml';
  return await readSettings(
    { file, flags, env },
    {
      cwd: '/etc',
      state: '/state',
      hostName: 'machine-a',
      readText: (path, bytesMax) => {
        const text = all[path];
        if (text === undefined) throw new Error('it is not there');
        if (text.length > bytesMax) throw new Error('it is too long');
        return text;
      },
      realPath: (path) => links[path] ?? path,
    },
  );
}

async function settingsOf(given: Given): Promise<AgentSettings> {
  const { settings, problems } = await read(given);
  assert.deepEqual(problems, []);
  return settings ?? assert.fail('there are no problems, so there are settings');
}

async function problemsOf(given: Given): Promise<readonly string[]> {
  const { settings, problems, error } = await read(given);
  assert.equal(settings === undefined, problems.length > 0);
  assert.equal(error === undefined, problems.length === 0);
  return problems;
}

/** The graph of a file that says this of it. */
const graphOf = async (lines: string, more: Given = {}) =>
  (await settingsOf({ ...more, yaml: `graphs:\n  - dir: /d\n${lines.replace(/^/gm, '    ')}\n` }))
    .graphs[0] ?? assert.fail('one graph');

const WHOLE = `
state: /var/lib/lk
store: ../points
graphs:
  - id: main
    dir: rag
    instance_url: http://127.0.0.1:9621
    api_key_file: key
    quiet: 500ms
    min_interval: 2s
    alarm_loss: 40%
    exclude: ['*.bak', notes]
    split: false
    allow_partial: true
    hooks: {pre_capture: [stop it], post_capture: [start it], promote: [], timeout: 5s}
    retention: {last: 1, hourly: 2, daily: 3, weekly: 4, monthly: 5, yearly: 6, keep_within: 90m, tags: [a, b=c]}
    ack: async
    limits: {rpo: 15m, lag: 30s}
  - dir: /data/second graph
targets: []
http: 127.0.0.2:9000
profile: normal
disk_reserve: 1GiB
scrub: 7d
restore_roots: []
graph_roots: []
`;

/** What an agent has of a name and listeners by itself. */
const NO_TLS = {
  name: 'machine-a',
  grpc: { host: '127.0.0.1', port: 9702, fallback: true, secure: false },
  tls: undefined,
  hosts: undefined,
  followed: [],
  targets: [],
};

describe('a settings file', () => {
  it('gives every setting; relative paths start at the file', async () => {
    const settings = await settingsOf({ yaml: WHOLE, files: { '/etc/lk/key': ' secret\n' } });
    const { graphs, ...agent } = settings;
    assert.deepEqual(agent, {
      state: '/var/lib/lk',
      store: '/etc/points',
      ...NO_TLS,
      http: { host: '127.0.0.2', port: 9000, fallback: false, secure: false },
      reserveBytes: 1n << 30n,
      scrubMs: 7 * 86_400_000,
      captures: true,
      continuous: true,
    });
    const [main, second] = graphs;
    assert.ok(main !== undefined && second !== undefined && graphs.length === 2);
    const { retention, dir, ...rest } = main;
    assert.equal(Buffer.from(dir).toString(), '/etc/lk/rag');
    assert.deepEqual(rest, {
      graphId: 'main',
      isIdGiven: true,
      exclude: ['*.bak', 'notes'],
      quietMs: 500,
      minIntervalMs: 2000,
      lossShare: 0.4,
      split: false,
      instance: { url: 'http://127.0.0.1:9621', apiKey: 'secret', allowPartial: true },
      workspaceInstances: new Map(),
      hooks: { preCapture: ['stop it'], postCapture: ['start it'], timeoutMs: 5000 },
      ack: { kind: 'async' },
      limits: { rpoMs: 900_000, lagMs: 30_000 },
    });
    const { $typeName: _, ...policy } = retention;
    const counts = { last: 1, hourly: 2, daily: 3, weekly: 4, monthly: 5, yearly: 6 };
    assert.deepEqual(policy, { ...counts, withinMs: 5_400_000n, tags: ['a', 'b=c'] });
    assert.match(second.graphId, /^secondgraph-[0-9a-f]{8}$/);
  });

  it('that docs/operations.md shows holds nothing but the defaults', async () => {
    const docs = readFileSync(join(import.meta.dirname, '../../../docs/operations.md'), 'utf8');
    const [, yaml = ''] = /```yaml\n([\s\S]*?)```/.exec(docs) ?? [];
    const shown = await settingsOf({ yaml, files: { '/run/secrets/lightrag': 'key' } });
    const [graph] = shown.graphs;
    const [plain] = (await settingsOf({ yaml: 'graphs: [{id: main, dir: /data/rag_storage}]' })).graphs;
    assert.deepEqual({ ...graph, instance: undefined }, plain);
  });

  it('needs nothing but the directory', async () => {
    const { graphs, ...agent } = await settingsOf({ yaml: 'graphs: [{dir: /d/rag}]' });
    const http = { host: '127.0.0.1', port: 9701, fallback: true, secure: false };
    const [state, store] = ['/state', '/state/store'];
    const rules = { reserveBytes: undefined, scrubMs: 14 * 86_400_000, captures: true, continuous: true };
    assert.deepEqual(agent, { ...NO_TLS, state, store, http, ...rules });
    const { retention, dir: _, ...rest } = graphs[0] ?? assert.fail('one graph');
    const none = { instance: undefined, workspaceInstances: new Map(), hooks: undefined, exclude: [] };
    const nothing = { ...none, ack: { kind: 'async' }, limits: { rpoMs: undefined, lagMs: undefined } };
    assert.deepEqual(rest, {
      graphId: 'rag',
      isIdGiven: false,
      quietMs: 300,
      minIntervalMs: 1000,
      split: true,
      lossShare: 0.25,
      ...nothing,
    });
    const { hourly, daily, weekly, monthly, withinMs } = retention;
    assert.deepEqual([hourly, daily, weekly, monthly, withinMs], [48, 30, 8, 12, 3_600_000n]);
  });

  it('replaces the default retention as a whole', async () => {
    const { retention } = await graphOf('retention: {daily: 3}');
    assert.deepEqual([retention.hourly, retention.daily, retention.withinMs], [0, 3, 0n]);
  });

  it('treats a key without a value as absent', async () => {
    assert.deepEqual((await graphOf('exclude:\nquiet: ~')).exclude, []);
    for (const yaml of ['', '# nothing\n', '{}'])
      assert.equal((await settingsOf({ yaml, flags: { '--dir': '/d' } })).graphs.length, 1);
  });

  it('may repeat parts by YAML aliases', async () => {
    const yaml = 'graphs:\n  - {dir: /a, retention: &keep {daily: 3}}\n  - {dir: /b, retention: *keep}\n';
    const { graphs } = await settingsOf({ yaml });
    assert.deepEqual(
      graphs.map(({ retention }) => retention.daily),
      [3, 3],
    );
  });
});

describe('a wrong settings file', () => {
  const at = (line: number, text: string) => `lk/config.yaml:${line}: ${text}`;
  const wrong: [what: string, yaml: string, problems: (string | RegExp)[]][] = [
    ['an unknown key', 'graphs:\n  - dri: /d', [at(2, 'graphs[0].dri: unknown key; did you mean "dir"?')]],
    [
      'an unknown key far from all',
      'graphs: [{dir: /d}]\nxyzzy: 1',
      [/:2: xyzzy: unknown key; there are name, state, /],
    ],
    ['a key of a graph at the top', 'graphs: [{dir: /d}]\nquiet: 1s', [/:2: quiet: .*it belongs to a graph/]],
    [
      'a key of the top in a graph',
      'graphs:\n- dir: /d\n  store: /s',
      [/:3: graphs\[0\].store: .*at the top/],
    ],
    ['a secret at a wrong key', 'graphs: [{dir: /d, api_key: SECRET}]', [/"api_key_file"\?$/]],
    ['a time below nothing', 'graphs:\n- dir: /d\n  quiet: -1', [/:3: graphs\[0\].quiet: cannot use "-1"/]],
    [
      'a time without a unit',
      'graphs: [{dir: /d, quiet: 5}]',
      [/cannot use "5" as a duration; write it like/],
    ],
    ['a share of more than all', 'graphs: [{dir: /d, alarm_loss: 101%}]', [/"101%" as a share/]],
    ['a share that is none', 'graphs: [{dir: /d, alarm_loss: 25}]', [/write it like 25%/]],
    ['a time beyond all timers', 'graphs: [{dir: /d, min_interval: 25d}]', [/longer than 24 days/]],
    ['a hook without time', 'graphs: [{dir: /d, hooks: {timeout: 0}}]', [/hooks.timeout: .*too short/]],
    [
      'a size that is none',
      'graphs: [{dir: /d}]\ndisk_reserve: much',
      [/:2: disk_reserve: cannot use "much"/],
    ],
    [
      'a text for a list',
      'graphs: [{dir: /d, exclude: a}]',
      [/exclude: a list is needed here, but "a" is text/],
    ],
    ['a number for a text', 'graphs: [{dir: /d, id: 7}]', [/id: text is needed here, but "7" is a number/]],
    ['a text for a number', "graphs: [{dir: /d, retention: {daily: '7'}}]", [/daily: a whole number/]],
    ['half a point', 'graphs: [{dir: /d, retention: {daily: 1.5}}]', [/daily: a whole number/]],
    ['a word for a truth', 'graphs: [{dir: /d, split: maybe}]', [/split: true or false is needed/]],
    [
      'a list for a map',
      'graphs: [{dir: /d, retention: [1]}]',
      [/retention: a map is needed here, but it is a list/],
    ],
    ['a map for the graphs', 'graphs: {dir: /d}', [/:1: graphs: a list is needed here, but it is a map/]],
    ['a text for a graph', 'graphs: [/d]', [/graphs\[0\]: a map is needed/]],
    ['no graphs', 'graphs: []', [/graphs: there is no graph/]],
    ['a graph without a directory', 'graphs:\n- id: a', [at(2, 'graphs[0].dir: there is no directory')]],
    ['an empty path', "graphs: [{dir: ''}]", [/graphs\[0\].dir: it is empty/]],
    ['a bad id', 'graphs: [{dir: /d, id: a b}]', [/id: "a b" is not a graph id; use letters/]],
    [
      'a policy that keeps nothing',
      'graphs: [{dir: /d, retention: {daily: 0}}]',
      [/retention: it would keep nothing/],
    ],
    ['an address that is none', 'graphs: [{dir: /d}]\nhttp: here', [/http: cannot listen on "here"/]],
    ['an address of the world', 'graphs: [{dir: /d}]\nhttp: 0.0.0.0:9701', [/only on loopback addresses/]],
    ['a url that is none', 'graphs: [{dir: /d, instance_url: here}]', [/instance_url: it is not a URL/]],
    [
      'a password in a url',
      'graphs: [{dir: /d, instance_url: "http://u:SECRET@h"}]',
      [/it holds a password/],
    ],
    [
      'a key file that is not there',
      'graphs: [{dir: /d, instance_url: "http://h", api_key_file: /no}]',
      [/cannot be read/],
    ],
    [
      'a workspace without an instance',
      'graphs: [{dir: /d, workspaces: {w: {}}}]',
      [/workspaces\.w: there is no instance_url/],
    ],
    [
      'a workspace that is no folder',
      'graphs: [{dir: /d, workspaces: {"a/b": {instance_url: "http://h"}}}]',
      [/"a\/b" is not the name of a folder/],
    ],
    [
      'an unknown key of a workspace',
      'graphs: [{dir: /d, workspaces: {w: {instance_url: "http://h", quiet: 1s}}}]',
      [/workspaces\.w\.quiet: unknown key/],
    ],
    [
      'a key of two lines',
      'graphs: [{dir: /d, instance_url: "http://h", api_key_file: /two}]',
      [/holds no key/],
    ],
    [
      'an empty key',
      'graphs: [{dir: /d, instance_url: "http://h", api_key_file: /empty}]',
      [/the file is empty/],
    ],
    [
      'one id twice',
      'graphs:\n- {dir: /a, id: x}\n- {dir: /b, id: x}',
      [/:3: graphs\[1\].id: "x" is the id of graphs\[0\]/],
    ],
    [
      'one name twice',
      'graphs:\n- dir: /a/x\n- dir: /b/x',
      [/:3: graphs\[1\].id: "x" is the id of graphs\[0\]/],
    ],
    [
      'one directory twice',
      'graphs:\n- {dir: /a, id: x}\n- {dir: /a/, id: y}',
      [/graphs\[1\].dir: it is the directory of/],
    ],
    [
      'one directory by two names',
      'graphs: [{dir: /a}, {dir: /link}]',
      [/graphs\[1\].dir: it is the directory of graphs\[0\]/],
    ],
    [
      'one directory in another',
      'graphs: [{dir: /a/b/c}, {dir: /a}]',
      [/graphs\[0\].dir: it lies inside .*graphs\[1\]/],
    ],
    ['no YAML', 'graphs: [', [/^lk\/config.yaml:1:\d+: this is not YAML: /]],
    ['a key twice', 'http: 127.0.0.1:1\nhttp: 127.0.0.1:2', [/^lk\/config.yaml:2:1: .*unique/]],
    ['two documents', 'a: 1\n---\nb: 2', [/this is not YAML: .*multiple documents/]],
    ['a tag', 'graphs: [{dir: !path /d}]', [/:1: the tag !path is not known/]],
    ['an alias of nothing', 'graphs: [{dir: /d, exclude: *x}]', [/:1: the alias \*x names nothing/]],
    ['no map', '- 1', [/the file holds no map of settings/]],
    ['a key that is no word', 'graphs: [{dir: /d}]\n? [a]\n: 1', [/a key is not a word/]],
    ['too much', '#'.repeat((1 << 20) + 1), [/the file cannot be read: it is too long/]],
  ];
  for (const [what, yaml, expected] of wrong) {
    it(`is refused for ${what}`, async () => {
      const files = { '/two': 'a\nb', '/empty': '\n' };
      const problems = await problemsOf({ yaml, files, links: { '/link': '/a' } });
      assert.equal(problems.length, expected.length, problems.join('\n'));
      for (const [i, one] of expected.entries()) {
        if (typeof one === 'string') assert.equal(problems[i], one);
        else assert.match(problems[i] ?? '', one);
      }
      assert.equal(problems.join().includes('SECRET'), false);
    });
  }

  it('lists all its problems at once, in the order of its lines', async () => {
    const yaml = 'graphs:\n  - dri: /d\n    quiet: -1\n  - dir: /e\n    retention: {dayly: 1}\nhttp: x\n';
    const { error, problems } = await read({ yaml, flags: { '--disk-reserve': 'much' } });
    const lines = problems.map((problem) => /^lk\/config.yaml:(\d+): /.exec(problem)?.[1]);
    assert.deepEqual(lines, ['2', '3', '5', '6', undefined]);
    assert.equal(error?.code, 'INVALID_ARGUMENT');
    assert.equal(error?.message, ['Cannot use the settings: 5 problems', ...problems].join('\n'));
  });

  it('with nested aliases does not expand without bound', async () => {
    const levels = Array.from({ length: 15 }, (_, i) => {
      const items =
        i === 0
          ? 'x'
          : Array(9)
              .fill(`*l${i - 1}`)
              .join(', ');
      return `l${i}: &l${i} [${items}]\n`;
    });
    const problems = await problemsOf({ yaml: levels.join('') });
    assert.match(problems.join('\n'), /more than 100 aliases/);
    const deep = await problemsOf({ yaml: `a: ${'['.repeat(50)}${']'.repeat(50)}` });
    assert.match(deep.join('\n'), /levels deep/);
  });
});

describe('settings of parts that this version lacks', () => {
  const top = [
    'gateway: {listen: 0.0.0.0:9621, to: 127.0.0.1:9622}',
    'controller: {url: https://c:9703, token_file: t, ca: c}',
    'profile: fast',
    'restore_roots: [/r]',
    'graph_roots: [/r]',
  ];
  const graph = ['promote', 'demote', 'fence'].map((hook) => `hooks: {${hook}: [cmd]}`);
  for (const line of [...top, ...graph]) {
    it(`are refused: ${line}`, async () => {
      const yaml = `graphs:\n- dir: /d\n${graph.includes(line) ? '  ' : ''}${line}`;
      const { problems, error } = await read({ yaml });
      assert.equal(problems.length, 1);
      assert.match(problems[0] ?? '', /^lk\/config.yaml:3: \S+: not in this version$/);
      assert.equal(error?.code, 'UNIMPLEMENTED');
    });
  }

  it('are validated too', async () => {
    const yaml = 'graphs: [{dir: /d, ack: some}]\ntargets: [{nam: b, bandwidth: 5MB}]\nprofile: slow';
    const problems = (await problemsOf({ yaml })).join('\n');
    for (const one of [
      /ack: "some" is none of/,
      /nam: unknown key/,
      /it has no \/s/,
      /profile: "slow" is none of/,
    ])
      assert.match(problems, one);
  });
});

describe('settings of followers and targets', () => {
  it('name who follows whom', async () => {
    const yaml = `
graphs:
- {id: main, dir: /d, ack: quorum(2)}
- {id: other, follow: 'https://peer:9702', split: false}
targets:
- {name: b, certificate: agent-b, graphs: [main], bandwidth: 50MB/s}
- {name: c, standby: false}`;
    const { graphs, followed, targets } = await settingsOf({ yaml });
    assert.deepEqual(
      graphs.map(({ graphId, ack }) => [graphId, ack]),
      [['main', { kind: 'quorum', count: 2 }]],
    );
    assert.deepEqual(
      followed.map(({ graphId, follow, split }) => [graphId, follow, split]),
      [['other', 'https://peer:9702', false]],
    );
    assert.deepEqual(targets, [
      { name: 'b', certificate: 'agent-b', graphs: ['main'], bytesPerSecond: 50_000_000, standby: true },
      { name: 'c', certificate: 'c', graphs: [], bytesPerSecond: undefined, standby: false },
    ]);
  });

  it('are refused without a name or an id, and with a name twice', async () => {
    const problems = async (yaml: string) => (await problemsOf({ yaml })).join('\n');
    assert.match(await problems("graphs: [{follow: 'http://p:1'}]"), /there is no id of the graph to follow/);
    assert.match(await problems('graphs: [{dir: /d}]\ntargets: [{graphs: [main]}]'), /there is no name/);
    assert.match(
      await problems('graphs: [{dir: /d}]\ntargets: [{name: b}, {name: b}]'),
      /another target has this name/,
    );
  });
});

describe('flags and environment variables', () => {
  const yaml = 'http: 127.0.0.1:1\ngraphs: [{dir: /d, retention: {daily: 3}}]';

  it('override the file, flags first', async () => {
    const env = { LIGHTKEEPER_HTTP: '127.0.0.1:2', LIGHTKEEPER_STATE: 'st' };
    const portOf = async (given: Given) => (await settingsOf(given)).http.port;
    assert.equal(await portOf({ yaml }), 1);
    assert.equal(await portOf({ yaml, env }), 2);
    assert.equal(await portOf({ yaml, env, flags: { '--http': '127.0.0.1:3' } }), 3);
    assert.equal((await settingsOf({ yaml, env })).store, '/etc/st/store');
  });

  it('work without a file', async () => {
    const flags = { '--dir': 'rag', '--graph': 'main', '--exclude': ['a', 'b'], '--split': false };
    const { graphs } = await settingsOf({ flags: { ...flags, '--allow-partial': true, '--quiet': '1s' } });
    const { graphId, dir, exclude, split, quietMs } = graphs[0] ?? assert.fail('one graph');
    assert.deepEqual([graphId, exclude, split, quietMs], ['main', ['a', 'b'], false, 1000]);
    assert.equal(Buffer.from(dir).toString(), '/etc/rag');
  });

  it('exist for every key', async () => {
    const names = settingFlags().map(({ name }) => name);
    assert.equal(new Set(names).size, names.length);
    const expected = `
      --state --store --graphs --id --graph --dir --instance-url --api-key-file --quiet
      --min-interval --exclude --hooks --hooks-pre-capture --hooks-timeout --retention
      --retention-keep-within --ack --limits --limits-rpo --limits-lag --follow --targets --http --grpc --gateway --gateway-listen
      --controller-token-file --tls-cert --profile --disk-reserve --restore-roots --graph-roots`;
    for (const name of expected.trim().split(/\s+/)) assert.ok(names.includes(name), name);
  });

  it('merge maps and replace lists and values', async () => {
    const flags = { '--retention-hourly': '5', '--exclude': ['x'] };
    const { graphs } = await settingsOf({ yaml, flags });
    const { retention, exclude } = graphs[0] ?? assert.fail('one graph');
    assert.deepEqual([retention.daily, retention.hourly, exclude], [3, 5, ['x']]);
    const both = { '--retention-daily': '9', '--retention': '{daily: 1, weekly: 2}' };
    const joined = (await settingsOf({ yaml, flags: both })).graphs[0]?.retention;
    assert.deepEqual([joined?.daily, joined?.weekly], [9, 2]);
  });

  it('may hold YAML where a value has parts', async () => {
    const env = { LIGHTKEEPER_GRAPHS: '[{dir: a, quiet: 2s}, {dir: b}]' };
    const { graphs } = await settingsOf({ env });
    assert.deepEqual(
      graphs.map(({ graphId, quietMs }) => [graphId, quietMs]),
      [
        ['a', 2000],
        ['b', 300],
      ],
    );
    assert.deepEqual(await problemsOf({ env: { LIGHTKEEPER_GRAPHS: '[{dir: a, quite: 2s}]' } }), [
      'LIGHTKEEPER_GRAPHS: graphs[0].quite: unknown key; did you mean "quiet"?',
    ]);
    assert.match(
      (await problemsOf({ flags: { '--graphs': '[' } }))[0] ?? '',
      /^--graphs:1:\d+: this is not YAML/,
    );
    assert.match(
      (await problemsOf({ env: { LIGHTKEEPER_GRAPH_ROOTS: '/a' }, flags: { '--dir': '/d' } }))[0] ?? '',
      /^LIGHTKEEPER_GRAPH_ROOTS: not in this version/,
    );
  });

  it('of one graph are refused for several graphs; others apply to all', async () => {
    const several = 'graphs: [{dir: /a}, {dir: /b, quiet: 2s}]';
    const { graphs } = await settingsOf({ yaml: several, flags: { '--quiet': '5s' } });
    assert.deepEqual(
      graphs.map(({ quietMs }) => quietMs),
      [5000, 5000],
    );
    for (const name of ['--dir', '--graph', '--instance-url']) {
      assert.deepEqual(await problemsOf({ yaml: several, flags: { [name]: 'http://x' } }), [
        `${name}: there are 2 graphs, and this is of one`,
      ]);
    }
  });

  it('that are wrong are refused by their own names', async () => {
    const flags = { '--dir': '/d', '--quiet': 'soon', '--http': '1.2.3.4:5' };
    assert.deepEqual(await problemsOf({ flags, env: { LIGHTKEEPER_DISK_RESERVE: 'much' } }), [
      'LIGHTKEEPER_DISK_RESERVE: cannot use "much" as a size; write it like 1GiB or 500MB',
      '--http: cannot listen on "1.2.3.4:5" without TLS: only on loopback addresses',
      '--quiet: cannot use "soon" as a duration; write it like 300ms, 30s, 2h or 30d',
    ]);
    assert.deepEqual(await problemsOf({}), ['there is no directory to protect']);
    const safe = await read({ flags: { '--dir': '/d', '--http': '1.2.3.4:5' } });
    assert.equal(safe.error?.code, 'INVALID_ARGUMENT');
  });

  it('that are unknown are reported; likely typing errors are refused', async () => {
    const flags = { '--dir': '/d' };
    assert.deepEqual(await problemsOf({ flags, env: { LIGHTKEEPER_STROE: '/x' } }), [
      'LIGHTKEEPER_STROE: unknown variable; did you mean LIGHTKEEPER_STORE?',
    ]);
    const env = {
      LIGHTKEEPER_PORT: 'tcp://10.0.0.1:9701',
      LIGHTKEEPER_SERVICE_HOST: '10.0.0.1',
      LIGHTKEEPER_PORT_9701_TCP_ADDR: '10.0.0.1',
      LIGHTKEEPER_KEY: 'lk_x',
    };
    assert.deepEqual((await read({ flags, env })).warnings, []);
    const { warnings, problems } = await read({
      flags,
      env: { LIGHTKEEPER_COLOUR: 'x', LIGHTKEEPER_QUIET: '1s' },
    });
    assert.deepEqual(problems, []);
    assert.deepEqual(
      warnings.map((one) => one.split(' ')[0]),
      ['LIGHTKEEPER_COLOUR', 'LIGHTKEEPER_QUIET'],
    );
  });
});

describe('environment variables of LightRAG', () => {
  const dirOf = async (given: Given) =>
    Buffer.from((await settingsOf(given)).graphs[0]?.dir ?? '').toString();

  it('WORKING_DIR and WORKSPACE give the directory that LightRAG uses', async () => {
    assert.equal(await dirOf({ env: { WORKING_DIR: './rag' } }), '/etc/rag');
    const env = { WORKING_DIR: '/rag', WORKSPACE: 'w1' };
    assert.equal(await dirOf({ env }), '/rag/w1');
    assert.equal(await dirOf({ env, flags: { '--dir': '/other' } }), '/other');
    const yaml = 'graphs: [{dir: /file}]';
    assert.equal(await dirOf({ env, yaml }), '/rag/w1');
    assert.match((await read({ env, yaml })).warnings.join(), /WORKING_DIR is used, not .*config.yaml:1/);
    const several = await read({ env, yaml: 'graphs: [{dir: /a}, {dir: /b}]' });
    assert.match(several.warnings.join(), /WORKING_DIR is not used: there are several graphs/);
    assert.deepEqual(await problemsOf({ env: { WORKING_DIR: '/rag', WORKSPACE: '../x' } }), [
      'WORKSPACE: "../x" is not the name of a folder',
      'there is no directory to protect',
    ]);
  });

  const held: [env: Record<string, string>, key: keyof AgentSettings, value: unknown][] = [
    [{ LIGHTRAG_BACKUP_ENABLED: 'false' }, 'captures', false],
    [{ LIGHTRAG_BACKUP_ENABLED: 'True' }, 'captures', true],
    [{ LIGHTRAG_BACKUP_STORAGE: '/old' }, 'store', '/old'],
    [{ LIGHTRAG_BACKUP_STORAGE: '/old', LIGHTRAG_BACKUP_STORAGE_PATH: '/path' }, 'store', '/path'],
    [{ LIGHTRAG_BACKUP_STORAGE_PATH: '/path', LIGHTKEEPER_STORE: '/own' }, 'store', '/own'],
    [{ LIGHTRAG_BACKUP_INTERVAL_HOURS: '6' }, 'intervalMs', 21_600_000],
    [{ LIGHTRAG_BACKUP_INTERVAL_HOURS: '0.5', LIGHTRAG_BACKUP_CONTINUOUS: 'false' }, 'continuous', false],
  ];
  for (const [env, key, value] of held) {
    it(`${Object.entries(env).flat().join(' ')} sets ${key}`, async () => {
      const settings = await settingsOf({ env, flags: { '--dir': '/d' } });
      assert.deepEqual(settings[key], value);
    });
  }

  it('LIGHTRAG_BACKUP_RETENTION_DAYS applies to graphs without their own retention', async () => {
    const yaml = 'graphs: [{dir: /a}, {dir: /b, retention: {daily: 3}}]';
    const { graphs } = await settingsOf({ yaml, env: { LIGHTRAG_BACKUP_RETENTION_DAYS: '7' } });
    const kept = graphs.map(({ retention: { withinMs, hourly, daily } }) => [withinMs, hourly, daily]);
    assert.deepEqual(kept, [
      [604_800_000n, 0, 0],
      [0n, 0, 3],
    ]);
  });

  it('workspaces have instances and keys of their own', async () => {
    const lines = [
      'instance_url: http://127.0.0.1:9621',
      'workspaces:',
      '  one: {instance_url: "http://127.0.0.1:9701", api_key_file: /key}',
      '  two-b: {instance_url: "http://127.0.0.1:9702"}',
    ].join('\n');
    const { instance, workspaceInstances } = await graphOf(lines, {
      env: { LIGHTRAG_API_KEY: 'variable' },
      files: { '/key': 'own key\n'.replace(' ', '-') },
    });
    assert.equal(instance?.url, 'http://127.0.0.1:9621');
    const shown = [...workspaceInstances].map(([name, { url, apiKey }]) => [name, url, apiKey]);
    assert.deepEqual(shown, [
      ['one', 'http://127.0.0.1:9701', 'own-key'],
      ['two-b', 'http://127.0.0.1:9702', 'variable'],
    ]);
    assert.equal((await graphOf('quiet: 1s')).workspaceInstances.size, 0);
  });

  it('LIGHTRAG_API_KEY is the API key if no key file is set', async () => {
    const env = { LIGHTRAG_API_KEY: 'variable' };
    const lines = 'instance_url: http://127.0.0.1:9621';
    assert.equal((await graphOf(lines, { env })).instance?.apiKey, 'variable');
    const files = { '/key': 'file' };
    assert.equal((await graphOf(`${lines}\napi_key_file: /key`, { env, files })).instance?.apiKey, 'file');
    assert.equal((await graphOf('quiet: 1s', { env })).instance, undefined);
  });

  const wrong: [env: Record<string, string>, problem: RegExp][] = [
    [
      { LIGHTRAG_BACKUP_S3_BUCKET: 'b' },
      /^LIGHTRAG_BACKUP_S3_BUCKET: object stores are not in this version$/,
    ],
    [{ LIGHTRAG_BACKUP_S3_REGION: 'r' }, /^LIGHTRAG_BACKUP_S3_REGION: /],
    [{ LIGHTRAG_BACKUP_ENABLED: 'perhaps' }, /^LIGHTRAG_BACKUP_ENABLED: true or false/],
    [{ LIGHTRAG_BACKUP_INTERVAL_HOURS: '0' }, /^LIGHTRAG_BACKUP_INTERVAL_HOURS: a number above 0/],
    [{ LIGHTRAG_BACKUP_RETENTION_DAYS: 'many' }, /^LIGHTRAG_BACKUP_RETENTION_DAYS: a number above 0/],
    [{ LIGHTRAG_BACKUP_CONTINUOUS: 'false' }, /^LIGHTRAG_BACKUP_CONTINUOUS: there is no interval/],
    [{ LIGHTRAG_LOG_LEVEL: 'LOUD' }, /^LIGHTRAG_LOG_LEVEL: "LOUD" is none of DEBUG, INFO/],
    [{ LIGHTRAG_METRICS_PORT: 'x' }, /^LIGHTRAG_METRICS_PORT: a port/],
  ];
  for (const [env, problem] of wrong) {
    it(`${Object.entries(env).flat().join(' ')} is refused`, async () => {
      const problems = await problemsOf({ env, flags: { '--dir': '/d' } });
      assert.equal(problems.length, 1);
      assert.match(problems[0] ?? '', problem);
    });
  }

  it('for parts that this version lacks are reported and ignored', async () => {
    const env = {
      LIGHTRAG_REPLICATION_ENABLED: 'true',
      LIGHTRAG_RECOVERY_ENABLED: 'true',
      LIGHTRAG_RECOVERY_DB_URL: 'sqlite:///x',
      LIGHTRAG_METRICS_ENABLED: 'false',
      LIGHTRAG_METRICS_PORT: '9999',
    };
    const { warnings, problems } = await read({ env, flags: { '--dir': '/d' } });
    assert.deepEqual(problems, []);
    assert.deepEqual(warnings.map((one) => one.split(' ')[0]).sort(), Object.keys(env).sort());
    const usual = {
      LIGHTRAG_REPLICATION_ENABLED: 'false',
      LIGHTRAG_LOG_LEVEL: 'info',
      LIGHTRAG_METRICS_ENABLED: 'true',
    };
    assert.deepEqual((await read({ env: usual, flags: { '--dir': '/d' } })).warnings, []);
  });
});

describe('shown settings', () => {
  it('have their origins and no secrets', async () => {
    const yaml =
      'http: 127.0.0.1:1\ngraphs:\n  - dir: /d\n    instance_url: http://h\n    retention: {daily: 3}\n';
    const env = { LIGHTRAG_API_KEY: 'SECRET', LIGHTKEEPER_STORE: '/s', LIGHTRAG_BACKUP_INTERVAL_HOURS: '48' };
    const { shown } = await read({ yaml, env, flags: { '--quiet': '90s', '--disk-reserve': '1536MiB' } });
    const rows = new Map(shown.map(({ key, value, origin }) => [key, [value, origin]]));
    assert.equal(rows.size, shown.length);
    const expected: Record<string, [unknown, string]> = {
      state: ['/state', 'default'],
      store: ['/s', 'environment LIGHTKEEPER_STORE'],
      http: ['127.0.0.1:1', 'lk/config.yaml:1'],
      disk_reserve: ['1536MiB', 'flag --disk-reserve'],
      captures: [true, 'default'],
      interval: ['2d', 'environment LIGHTRAG_BACKUP_INTERVAL_HOURS'],
      'graphs[0].id': ['d', 'default'],
      'graphs[0].dir': ['/d', 'lk/config.yaml:3'],
      'graphs[0].quiet': ['90s', 'flag --quiet'],
      'graphs[0].api_key': ['set', 'environment LIGHTRAG_API_KEY'],
      'graphs[0].retention.daily': [3, 'lk/config.yaml:5'],
    };
    for (const [key, row] of Object.entries(expected)) assert.deepEqual(rows.get(key), row, key);
    assert.equal(rows.has('graphs[0].retention.hourly'), false);
    assert.equal(JSON.stringify(shown).includes('SECRET'), false);
  });
});
