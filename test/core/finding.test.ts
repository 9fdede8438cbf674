import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { errorFinding, warning } from '../../core/finding.ts';
import { ObjectKind_Value, Severity_Value } from '../../gen/lightkeeper/v1/types_pb.ts';

const ROOT = join(import.meta.dirname, '../..');

/** Codes that the sources make findings with, as they are written there. */
function codesInSources(): string[] {
  const files = ['agent', 'core'].flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts'))
      .map((name) => readFileSync(join(ROOT, folder, name), 'utf8')),
  );
  const found = files.flatMap((text) => [
    ...text.matchAll(/(?:warning|errorFinding|finding)\(\s*(?:\w+ \? )?'([a-z_]+)'(?: : '([a-z_]+)')?/g),
  ]);
  return [...new Set(found.flatMap(([, one, other]) => [one, other]))].filter((code) => code !== undefined);
}

describe('a finding', () => {
  it('has a severity, a count of one and the kind of its object', () => {
    const missing = errorFinding('pack_missing', 'ab', { message: 'it is missing' });
    assert.equal(missing.severity, Severity_Value.ERROR);
    assert.equal(missing.objectKind, ObjectKind_Value.PACK);
    assert.equal(missing.count, 1);
    const unreadable = warning('unreadable', 'a/b', { message: 'it cannot be read', count: 3 });
    assert.deepEqual([unreadable.severity, unreadable.count], [Severity_Value.WARNING, 3]);
    assert.equal(unreadable.objectKind, ObjectKind_Value.FILE);
  });

  it('has a code that docs/errors.md explains', () => {
    const docs = readFileSync(join(ROOT, 'docs/errors.md'), 'utf8');
    const codes = codesInSources();
    assert.ok(codes.length > 25, `${codes.length} codes`);
    assert.deepEqual(
      codes.filter((code) => !docs.includes(`\`${code}\``)),
      [],
    );
  });
});
