import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { PROTOCOL_MAX, PROTOCOL_MIN } from '../../agent/peer/protocol.ts';
import { hasFields, oneDocument, Place, suite } from '../support/cli-place.ts';

const ROOT = join(import.meta.dirname, '../..');
const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };

suite('version', () => {
  it('prints the version, the commit, Node, the store formats and the protocols', async () => {
    const { code, stdout, stderr } = await new Place().run(['version']);
    assert.deepEqual([code, stderr], [0, '']);
    const [first, ...rows] = stdout.trimEnd().split('\n');
    assert.equal(first, `lightkeeper ${version}`);
    const shown = Object.fromEntries(rows.map((row) => row.split(/ {2,}/)));
    assert.deepEqual(Object.keys(shown), ['commit', 'node', 'store formats', 'protocols']);
    assert.match(String(shown.commit), /^(?:[0-9a-f]{12}|unknown)$/);
    assert.equal(shown.node, process.version);
    assert.match(String(shown['store formats']), /^\d+(?:, \d+)*$/);
  });

  it('--json prints the response message', async () => {
    const outcome = await new Place().run(['version', '--json']);
    const document = oneDocument(outcome);
    hasFields(document, { version: 'text', commit: 'text', node: 'text', storeFormats: 'list' });
    assert.deepEqual([document.version, document.node], [version, process.version]);
    assert.deepEqual([document.protocolMin, document.protocolMax], [PROTOCOL_MIN, PROTOCOL_MAX]);
  });

  it('names a commit of the sources that it was built from', async (t) => {
    if (!existsSync(join(ROOT, '.git'))) return t.skip('there is no history here');
    const { commit } = oneDocument(await new Place().run(['version', '--json']));
    // The build may be older than the newest commit, but it is of this history.
    const type = execFileSync('git', ['cat-file', '-t', String(commit)], { cwd: ROOT, encoding: 'utf8' });
    assert.equal(type, 'commit\n');
  });
});
