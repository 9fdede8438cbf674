import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { escapeControls, escapeJson } from '../../host/control-characters.ts';

const HOSTILE = 'a\x1b[2Jb\u009bc\u202ed\u2066e\n';

describe('control characters', () => {
  it('are escaped in text, as are direction marks', () => {
    assert.equal(escapeControls(HOSTILE), 'a\\x1b[2Jb\\x9bc\\u202ed\\u2066e\\x0a');
    assert.equal(escapeControls('äöü 客户 🙂'), 'äöü 客户 🙂');
  });

  it('are escaped in JSON so that it means the same', () => {
    const json = escapeJson(JSON.stringify({ text: HOSTILE }, null, 2));
    assert.match(json, /^[\n -~]+$/);
    assert.deepEqual(JSON.parse(json), { text: HOSTILE });
  });
});
