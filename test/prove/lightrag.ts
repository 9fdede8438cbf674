// Real LightRAG servers beside the built program.
//
//   npm run prove -- lightrag [--version V]… [--part scenarios|damage|captures|kills]… [--only REGEX]
//     [--jobs N] [--count N] [--seed N] [--saved DIR] [--no-agents]
import { parseArgs } from 'node:util';
import {
  CI_VERSION,
  type Installed,
  installedPackages,
  installLightRag,
  lackingFor,
  newestVersion,
  VERSIONS,
} from '../support/lightrag/install.ts';
import { proveCaptures } from './lightrag/captures.ts';
import { proveDamage } from './lightrag/damage.ts';
import { proveKills } from './lightrag/kills.ts';
import type { Part } from './lightrag/part.ts';
import { proveScenarios } from './lightrag/scenarios.ts';

/** Each part returns what does not hold, a line each. */
const PARTS: Readonly<Record<string, (part: Part) => Promise<string[]>>> = {
  scenarios: proveScenarios,
  damage: proveDamage,
  captures: proveCaptures,
  kills: proveKills,
};

function optionsOf(words: readonly string[]) {
  const { values } = parseArgs({
    args: [...words],
    options: {
      version: { type: 'string', multiple: true },
      part: { type: 'string', multiple: true },
      only: { type: 'string', default: '.' },
      jobs: { type: 'string', default: '2' },
      count: { type: 'string' },
      seed: { type: 'string', default: '1' },
      saved: { type: 'string' },
      'no-agents': { type: 'boolean', default: false },
    },
  });
  return values;
}

/** Installs the versions of a run, the oldest first; those that cannot be had are named. */
async function installAll(wanted: readonly string[], log: (line: string) => void): Promise<Installed[]> {
  const all: Installed[] = [];
  for (const version of [...new Set(wanted)].sort((a, b) => a.localeCompare(b, 'en', { numeric: true }))) {
    const lacking = await lackingFor(version);
    if (lacking !== false) {
      log(`LightRAG ${version}: skipped: ${lacking}`);
      continue;
    }
    all.push(await installLightRag(version, log));
    const packages = await installedPackages(version);
    const named = ['nano-vectordb', 'networkx', 'numpy', 'pydantic', 'fastapi'];
    log(`LightRAG ${version} with ${named.map((name) => `${name} ${packages.get(name)}`).join(', ')}`);
  }
  return all;
}

export async function run(log: (line: string) => void, words: readonly string[] = []): Promise<void> {
  const options = optionsOf(words);
  const newest = options.version === undefined ? await newestVersion() : undefined;
  const versions = options.version ?? [...VERSIONS, newest ?? CI_VERSION];
  const all = await installAll(versions, log);
  const failures: string[] = [];
  for (const [name, prove] of Object.entries(PARTS)) {
    if (options.part !== undefined && !options.part.includes(name)) continue;
    for (const installed of all) {
      const newer = all.at(-1) === installed ? undefined : all.at(-1);
      log(`\n${name}, LightRAG ${installed.version}`);
      const part: Part = {
        installed,
        newer,
        only: new RegExp(options.only),
        jobs: Number(options.jobs),
        count: options.count === undefined ? undefined : Number(options.count),
        seed: Number(options.seed),
        saved: options.saved,
        withAgents: !options['no-agents'],
        log,
      };
      const found = await prove(part);
      failures.push(...found.map((line) => `${name}, LightRAG ${installed.version}: ${line}`));
    }
  }
  if (failures.length > 0) throw new Error(`${failures.length} failures\n${failures.join('\n')}`);
}
