import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type RecordKinds, RecordReader } from '../../../core/lightrag/record-reader.ts';
import { feedIn, flawOf } from '../../support/chunks.ts';

/** Returns the ids and fields that a reader reports of a text, or how the text fails, whatever the chunks. */
function reported(text: string, options?: { any?: boolean; records?: RecordKinds }): string | string[] {
  const reports = [1, 3, 1 << 20].map((step) => {
    const told: string[] = [];
    const events = {
      fields: new Set(['wanted']),
      marks: new Set(['marked']),
      mark: (field: string) => void told.push(`${field} is there`),
      begin: (id: Buffer) => void told.push(`${id}`),
      value: (field: string, bytes: Buffer) => void told.push(`${field}=${bytes}`),
      item: (field: string, bytes: Buffer) => void told.push(`${field}+${bytes}`),
      pair: () => {},
      end: () => {},
    };
    return flawOf(() => feedIn(new RecordReader(events, options), Buffer.from(text), step)) ?? told;
  });
  for (const report of reports) assert.deepEqual(report, reports[0], text);
  return reports[0] ?? [];
}

describe('a reader of records', () => {
  it('reports the presence of a field, whatever its value', () => {
    const long = 'x'.repeat(70_000);
    for (const value of ['null', '{}', `"${long}"`, '1'])
      assert.deepEqual(reported(`{"a": {"marked": ${value}}, "b": {}}`), ['a', 'marked is there', 'b']);
  });

  it('takes records of any kind where a server does, in a map only', () => {
    const lenient = { records: 'any' } as const;
    assert.deepEqual(reported('{"a": null, "b": [1], "c": "d"}', lenient), ['a', 'b', 'c']);
    for (const text of ['[1]', '5', '"text"', '["a", {}]'])
      assert.equal(reported(text, lenient), 'malformed', text);
    assert.equal(reported('{"a": null}'), 'malformed');
    const optional = { records: 'optional' } as const;
    assert.deepEqual(reported('{"a": null, "b": {}}', optional), ['a', 'b']);
    for (const record of ['[1]', '5', '"null"', 'true'])
      assert.equal(reported(`{"a": ${record}}`, optional), 'malformed', record);
  });

  it('reports what the instance treats as a missing file as empty', () => {
    const nothing = [
      '',
      ' \n',
      '\ufeff',
      '\ufeff\r\n',
      'null',
      ' null ',
      '[]',
      '[ ]\n',
      'false',
      '0',
      '-0',
      '0.0',
      '0e5',
      '""',
    ];
    for (const text of nothing) assert.equal(reported(text), 'empty', JSON.stringify(text));
    assert.deepEqual(reported('{}'), []);
  });

  it('refuses what is not a map of records', () => {
    const wrong = [
      '[1]',
      '[{}]',
      '[[]]',
      '[null]',
      '["a"]',
      '7',
      '-0.5',
      '0.01',
      'true',
      '"a"',
      'NaN',
      '{"a": null}',
    ];
    wrong.push('{"a": []}', '{"a": 1}', '{"a": "b"}', '[] x', 'null null', '[},', '[,]');
    for (const text of wrong) assert.equal(reported(text), 'malformed', text);
    assert.equal(reported(`{"${'x'.repeat(70_000)}": {}}`), 'malformed');
  });

  it('reads fields by their names, whatever their escapes, after a byte-order mark', () => {
    const text = '\ufeff{"a\\u0062": {"w\\u0061nted": "c", "other": "d"}, "e": {"wanted": ["f\\n"]}}\r\n';
    assert.deepEqual(reported(text), ['ab', 'wanted=c', 'e', 'wanted+f\n']);
  });

  it('accepts any JSON of an unknown file', () => {
    const any = ['null', '[]', '[1, {"a": []}]', '7', '"text"', '{"a": 1}', `{"${'x'.repeat(70_000)}": 1}`];
    for (const text of any)
      assert.notEqual(typeof reported(text, { any: true }), 'string', text.slice(0, 50));
    for (const text of ['{"a": "\u0007"}', '{"a\\x": 1}', '{"a": 1} x'])
      assert.equal(reported(text, { any: true }), 'malformed', text);
  });
});
