import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readVariables } from '../../../host/config/environment.ts';
import { readSettingsFile, type SettingsMachine } from '../../../host/config/file.ts';
import { type Flags, flagsOfKeys, readFlags } from '../../../host/config/flags.ts';
import { type Fields, type Keys, key, readMap, settingsJsonSchema } from '../../../host/config/keys.ts';
import { buildLogSettings, LOG_KEYS } from '../../../host/config/log-settings.ts';
import { emptyMap, originText, overlayMap } from '../../../host/config/node.ts';
import { ProblemReport } from '../../../host/config/problem.ts';
import { EffectiveSettings } from '../../../host/config/show.ts';
import { address, count, later, list, map, path, text } from '../../../host/config/value-types.ts';

/** A schema of another daemon, which the engine does not know. */
const KEYS = {
  state: key(path('<dir>'), 'state folder'),
  api: key(address(), 'address of the API'),
  names: key(list(text('<name>')), 'names of the API'),
  limits: key(map({ agents: key(count(), 'most agents'), plans: key(count(), 'most plans') }), 'limits'),
  store: key(later(map({ url: key(text('<url>'), 'URL') })), 'object store'),
  log: key(map(LOG_KEYS), 'the log'),
} as const satisfies Keys;

interface Given {
  readonly yaml?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly flags?: Flags;
}

async function read({ yaml = '', env = {}, flags = {} }: Given): Promise<{
  fields: Fields<typeof KEYS>;
  report: ProblemReport;
}> {
  const report = new ProblemReport();
  const machine: SettingsMachine = {
    cwd: '/work',
    state: '/state',
    hostName: 'machine-a',
    readText: () => yaml,
    realPath: (one) => one,
  };
  const file = (await readSettingsFile('c.yaml', machine, report)) ?? emptyMap();
  const variables = await readVariables(env, KEYS, report);
  const fromFlags = await readFlags(flags, flagsOfKeys('controller', KEYS), report);
  const all = overlayMap(overlayMap(file, variables), fromFlags.get('controller') ?? emptyMap());
  const fields = readMap(KEYS, all, '', { report, folder: () => machine.cwd });
  return { fields, report };
}

describe('the settings engine with the schema of another daemon', () => {
  it('lays flags over variables over the file, key by key', async () => {
    const { fields, report } = await read({
      yaml: 'limits: {agents: 1, plans: 1}\nstate: s\nnames: [a, b]\n',
      env: { LIGHTKEEPER_LIMITS: '{plans: 2}', LIGHTKEEPER_NAMES: 'c' },
      flags: { '--limits-plans': '3', '--api': '127.0.0.1:1' },
    });
    assert.deepEqual(report.sorted(), []);
    const { agents, plans } = fields.limits?.value ?? {};
    assert.deepEqual([agents?.value, plans?.value], [1, 3]);
    const origins = [agents, plans, fields.state].map((one) => one && originText(one.origin));
    assert.deepEqual(origins, ['c.yaml:1', 'flag --limits-plans', 'c.yaml:2']);
    assert.deepEqual([fields.state?.value, fields.names?.value], ['/work/s', ['c']]);
    assert.deepEqual(fields.api?.value, { host: '127.0.0.1', port: 1 });
  });

  it('has a variable for each key of a map at the top; it wins over the variable of the map', async () => {
    const env = { LIGHTKEEPER_LIMITS: '{agents: 1, plans: 1}', LIGHTKEEPER_LIMITS_PLANS: '2' };
    const { fields, report } = await read({ env });
    assert.deepEqual([report.problems, report.warnings], [[], []]);
    const { agents, plans } = fields.limits?.value ?? {};
    assert.deepEqual([agents?.value, plans?.value], [1, 2]);
    assert.equal(plans && originText(plans.origin), 'environment LIGHTKEEPER_LIMITS_PLANS');
  });

  it('reports a misspelt variable, and warns of one that is not its own', async () => {
    const { report } = await read({ env: { LIGHTKEEPER_LIMITS_PLNAS: '2', LIGHTKEEPER_QUITE_OTHER: 'x' } });
    const [problem] = report.problems;
    assert.match(problem?.text ?? '', /did you mean LIGHTKEEPER_LIMITS_PLANS\?$/);
    assert.deepEqual(report.warnings, ['LIGHTKEEPER_QUITE_OTHER is not used: there is no such setting']);
  });

  it('has no variables for the keys of a part that is not in this version', async () => {
    const { report } = await read({ env: { LIGHTKEEPER_STORE_URL: 's3://x' } });
    assert.equal(report.problems.length + report.warnings.length, 1);
  });

  it('makes a JSON Schema of the keys', () => {
    const { title, properties } = settingsJsonSchema('Settings of another daemon', KEYS);
    assert.equal(title, 'Settings of another daemon');
    assert.deepEqual(Object.keys(properties ?? {}), Object.keys(KEYS));
    assert.deepEqual(properties?.limits?.properties?.agents?.type, 'integer');
    assert.match(properties?.store?.description ?? '', /\(not in this version\)$/);
  });

  it('builds the settings of the log, with their origins', async () => {
    const { fields } = await read({ env: { LIGHTKEEPER_LOG_LEVEL: 'warn' } });
    const effective = new EffectiveSettings();
    const log = buildLogSettings(fields.log, effective);
    assert.deepEqual(log, { level: 'warn', format: 'text', isFormatGiven: false });
    assert.deepEqual(effective.rows, [
      { key: 'log.level', value: 'warn', origin: 'environment LIGHTKEEPER_LOG_LEVEL' },
      { key: 'log.format', value: 'text', origin: 'default' },
    ]);
  });
});
