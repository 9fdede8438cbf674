// The newest LightRAG server that was released, through a sample of what it documents. `npm run prove -- lightrag` has all.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { codesOf, isUsable, validateSettled } from '../support/lightrag/grading.ts';
import { CI_VERSION, type Installed, installLightRag, lackingFor } from '../support/lightrag/install.ts';
import { SCENARIOS } from '../support/lightrag/scenarios/all.ts';
import { runScenario, type State } from '../support/lightrag/world.ts';
import { tempFolder } from '../support/place.ts';

const SAMPLE = [
  'same-document-twice',
  'fail-400',
  'fail-half-then-reprocess',
  'fail-embedding',
  'delete-one-of-two',
  'clear-documents',
  'create-by-hand',
  'edit-entity',
  'merge-entities',
  'midway-sigkill',
];

const skip = await lackingFor(CI_VERSION);
const installing = skip === false ? installLightRag(CI_VERSION) : undefined;
// Each test that needs it says why it failed.
installing?.catch(() => {});

function installed(): Promise<Installed> {
  return installing ?? assert.fail('not installed');
}

describe(`a directory of LightRAG ${CI_VERSION}`, { concurrency: 3, skip }, () => {
  for (const name of SAMPLE) {
    test(`is usable in each state of "${name}"`, async (t) => {
      const scenario = SCENARIOS.find((one) => one.name === name) ?? assert.fail(name);
      const root = await tempFolder(t);
      const states: string[] = [];
      const onState = async ({ name: state, dir, server }: State) => {
        const judged = await validateSettled(dir, { isStopped: server === undefined });
        states.push(state);
        assert.equal(isUsable(judged), true, `${state}: ${judged.grade} ${codesOf(judged)}`);
        assert.equal(judged.tornMs, 0, `${state} was torn`);
      };
      await runScenario(scenario, { scope: t, installed: await installed(), root, onState });
      assert.equal(states.at(-1), 'stopped');
    });
  }
});
