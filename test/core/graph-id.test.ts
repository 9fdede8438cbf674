import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { checkGraphId, defaultGraphId, graphIdOf, workspaceId } from '../../core/graph-id.ts';
import { pathFromBytes } from '../../core/path.ts';

/** Bytes of a name. */
function bytesOf(name: string): string {
  return pathFromBytes(Buffer.from(name));
}

/** First 8 hex digits of the SHA-256 of a name. */
function hashOf(name: string): string {
  return createHash('sha256').update(name).digest('hex').slice(0, 8);
}

const anyName = fc
  .uint8Array({ minLength: 1, maxLength: 255 })
  .map((bytes) => Buffer.from(bytes).toString('latin1'));

describe('a graph id', () => {
  it('is letters, digits, dot, underscore and dash, at most 128', () => {
    for (const id of ['a', 'A.b_c-9', '0', 'x'.repeat(128)]) assert.doesNotThrow(() => checkGraphId(id));
    for (const id of ['', '.a', '-a', '_a', 'a b', 'a/b', 'ä', 'a\n', 'x'.repeat(129)])
      assert.throws(() => checkGraphId(id), { code: 'INVALID_ARGUMENT', hint: /128/ }, id);
  });

  it('is the name of the directory where that is one', () => {
    for (const name of ['rag_storage', 'A.b_c-9', 'x'.repeat(128)]) assert.equal(graphIdOf(name), name);
  });

  it('is else the legal characters of the name and a hash of all its bytes', () => {
    const expected = {
      'my graph (old)': 'mygraphold',
      '.hidden': 'hidden',
      '_-._x': 'x',
      'größe 2': 'gre2',
      客户: 'graph',
      产品: 'graph',
      ' ': 'graph',
    };
    for (const [name, stem] of Object.entries(expected))
      assert.equal(graphIdOf(bytesOf(name)), `${stem}-${hashOf(name)}`, name);
    const long = 'y'.repeat(129);
    assert.equal(graphIdOf(long), `${'y'.repeat(119)}-${hashOf(long)}`);
    assert.equal(
      graphIdOf('\xff'),
      `graph-${createHash('sha256').update('\xff', 'latin1').digest('hex').slice(0, 8)}`,
    );
  });

  it('can be derived from every name, and differs where names differ', () => {
    fc.assert(
      fc.property(anyName, anyName, (one, other) => {
        checkGraphId(graphIdOf(one));
        checkGraphId(workspaceId('main', one));
        if (one === other) return;
        assert.notEqual(graphIdOf(one), graphIdOf(other));
        assert.notEqual(workspaceId('main', one), workspaceId('main', other));
      }),
    );
  });

  it('is by default made from the last name of the path', () => {
    assert.equal(defaultGraphId(Buffer.from('/data/rag_storage')), 'rag_storage');
    assert.equal(defaultGraphId(Buffer.from('/data/rag_storage//')), 'rag_storage');
    assert.equal(defaultGraphId(Buffer.from('/data/客户')), `graph-${hashOf('客户')}`);
    assert.equal(defaultGraphId(Buffer.from('/')), `graph-${hashOf('')}`);
  });
});

describe('the graph id of a workspace', () => {
  it('is the id of the graph and the name of the workspace', () => {
    assert.equal(workspaceId('main', 'team_a'), 'main.team_a');
    assert.equal(workspaceId('main', bytesOf('客户')), `main.graph-${hashOf('客户')}`);
    assert.equal(workspaceId('main', '_a'), `main.a-${hashOf('_a')}`);
  });

  it('is shortened with a hash where it would be too long', () => {
    const id = 'g'.repeat(100);
    const name = 'w'.repeat(50);
    assert.equal(workspaceId(id, name), `${`${id}.${name}`.slice(0, 119)}-${hashOf(`${id}.${name}`)}`);
    assert.equal(workspaceId(id, 'w'.repeat(27)), `${id}.${'w'.repeat(27)}`);
  });
});
