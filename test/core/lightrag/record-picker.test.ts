import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { SHORT_STRING_BYTES_MAX } from '../../../core/lightrag/chunk-reader.ts';
import { type JsonValue, RecordPicker } from '../../../core/lightrag/record-picker.ts';
import { feedIn } from '../../support/chunks.ts';

/** What is picked out of a text that comes in chunks of some bytes. */
function picked(text: string, mayWant: (id: string) => boolean, step = 1 << 20): [string, JsonValue][] {
  const taken: [string, JsonValue][] = [];
  const picker = new RecordPicker(mayWant, (id, value) => taken.push([id, value]));
  feedIn(picker, Buffer.from(text), step);
  return taken;
}

describe('a record picker', () => {
  it('returns exactly the wanted records, as JSON.parse reads them', () => {
    const records = fc.dictionary(fc.string(), fc.jsonValue());
    fc.assert(
      fc.property(
        records,
        fc.integer({ min: 1, max: 30 }),
        fc.constantFrom(undefined, 2),
        (value, step, indent) => {
          const text = JSON.stringify(value, null, indent);
          const all = JSON.parse(text) as Record<string, JsonValue>;
          const wants = (id: string) => id.length % 2 === 0;
          assert.deepEqual(
            picked(text, wants, step),
            Object.entries(all).filter(([id]) => wants(id)),
          );
        },
      ),
      { numRuns: 1000 },
    );
  });

  it('returns texts of any length', () => {
    const long = 'ü"\\\n'.repeat(SHORT_STRING_BYTES_MAX);
    const text = JSON.stringify({ [long]: 1, a: { content: long, [long]: [long] }, b: long });
    assert.deepEqual(
      picked(text, (id) => id === 'a', 10_000),
      [['a', { content: long, [long]: [long] }]],
    );
  });

  it('treats names such as __proto__ as names', () => {
    const text = '{"__proto__": {"__proto__": 1, "constructor": [NaN]}}';
    const [[id, value] = []] = picked(text, () => true);
    assert.equal(id, '__proto__');
    assert.equal(JSON.stringify(value), '{"__proto__":1,"constructor":[null]}');
    assert.equal(({} as Record<string, unknown>).constructor, Object);
  });
});
