import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { type LayoutFlaw, SHORT_STRING_BYTES_MAX } from '../../../core/lightrag/chunk-reader.ts';
import { type JsonEvents, JsonReader, unescaped } from '../../../core/lightrag/json.ts';
import { feedIn, flawOf } from '../../support/chunks.ts';

/** Builds the value that the events tell of. */
class Builder implements JsonEvents {
  value: unknown;
  held = 0;
  readonly #stack: (unknown[] | Map<string, unknown>)[] = [];
  readonly #keys: string[] = [];
  #pieces: Buffer[] = [];

  #put(value: unknown): void {
    const top = this.#stack.at(-1);
    if (top === undefined) this.value = value;
    else if (Array.isArray(top)) top.push(value);
    else top.set(this.#keys.pop() ?? assert.fail('a key'), value);
  }

  open(isList: boolean): void {
    this.#stack.push(isList ? [] : new Map());
  }

  close(isList: boolean): void {
    const top = this.#stack.pop();
    assert.equal(Array.isArray(top), isList);
    this.#put(top instanceof Map ? Object.fromEntries(top) : top);
  }

  key(bytes: Buffer, escaped: boolean): void {
    this.held = Math.max(this.held, bytes.length);
    this.#keys.push(unescaped(bytes, escaped).toString('utf8'));
  }

  string(bytes: Buffer, escaped: boolean): void {
    this.held = Math.max(this.held, bytes.length);
    this.#put(unescaped(bytes, escaped).toString('utf8'));
  }

  piece(bytes: Buffer): void {
    this.#pieces.push(Buffer.from(bytes));
  }

  long(length: number, isKey: boolean): void {
    const bytes = Buffer.concat(this.#pieces);
    this.#pieces = [];
    assert.equal(bytes.length, length);
    const text = unescaped(bytes, true).toString('utf8');
    if (isKey) this.#keys.push(text);
    else this.#put(text);
  }

  bare(text: string): void {
    this.#put(/^(?:NaN|-?Infinity)$/.test(text) ? Number(text) : JSON.parse(text));
  }
}

/** Reads bytes that come in chunks of these lengths, again and again. */
function read(bytes: Buffer, lengths: readonly number[] = []): unknown {
  const builder = new Builder();
  feedIn(new JsonReader(builder), bytes, ...lengths);
  return builder.value;
}

const flawOfText = (bytes: Buffer, lengths?: readonly number[]): LayoutFlaw | undefined =>
  flawOf(() => read(bytes, lengths));

/** What JSON can say; an own `__proto__` would be another thing in an object literal. */
const values = fc.jsonValue().filter((value) => !JSON.stringify(value).includes('__proto__'));
const lengths = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 5 });

describe('a JSON reader', () => {
  it('reads what JSON.parse reads, in chunks of any size', () => {
    const layouts = fc.constantFrom(undefined, 2);
    fc.assert(
      fc.property(values, lengths, layouts, (value, steps, indent) => {
        const text = JSON.stringify(value, null, indent);
        assert.deepEqual(read(Buffer.from(text), steps), JSON.parse(text));
      }),
      { numRuns: 2000 },
    );
  });

  it('reads escapes across the edge of a chunk', () => {
    const text = JSON.stringify({ 'a\\"b\\': ['\\', '\\\\', '\\"', '"', 'é\u0000\u2028', '\\"\\\\"'] });
    for (let first = 1; first < text.length; first++)
      assert.deepEqual(read(Buffer.from(text), [first, 1, 2]), JSON.parse(text));
  });

  it('reports every proper prefix as cut', () => {
    const text = ` {"a": [1, -2.5e+3, true, null, "x\\"\\\\"], "b": {"c": {}, "d": []}} `;
    const bytes = Buffer.from(text);
    const end = text.lastIndexOf('}') + 1;
    assert.equal(flawOfText(Buffer.alloc(0)), 'empty');
    assert.equal(flawOfText(bytes.subarray(0, 1)), 'empty', 'white space alone');
    for (let length = 2; length < end; length++) {
      assert.equal(flawOfText(bytes.subarray(0, length)), 'cut', `${length}`);
      assert.equal(flawOfText(bytes.subarray(0, length), [1]), 'cut', `${length}, byte by byte`);
    }
    for (let length = end; length <= bytes.length; length++)
      assert.equal(flawOfText(bytes.subarray(0, length)), undefined);
  });

  it('refuses invalid JSON at the offset of the error', () => {
    const wrong = [
      '{"a" 1}',
      '{"a":1,}',
      '[1,]',
      '[,1]',
      '{1:2}',
      '[1 2]',
      '{}{}',
      '1 2',
      '[01]',
      '[+1]',
      '[tru]',
    ];
    wrong.push(
      '[1}',
      '{"a":]',
      ']',
      '"a" "b"',
      '[nan]',
      '[1.]',
      '{"a":}',
      '[--1]',
      "['a']",
      '{"a":1 "b":2}',
      '[\u0000]',
    );
    for (const text of wrong) assert.equal(flawOfText(Buffer.from(text)), 'malformed', text);
  });

  it('refuses control characters and invalid escapes in every string, long or short', () => {
    const long = 'x'.repeat(SHORT_STRING_BYTES_MAX);
    const inner = [
      '\u0000',
      '\u0007',
      '\t',
      '\n',
      '\r',
      '\u001f',
      '\\x',
      '\\u12G4',
      '\\u 123',
      '\\U0041',
      "\\'",
    ];
    for (const bad of inner)
      for (const text of [`"${bad}"`, `"ab${bad}cd"`, `"${long}${bad}"`, `"${bad}${long}"`])
        for (const value of [text, `{${text}: 1}`, `{"a": [${text}]}`])
          for (const step of [1 << 20, 40_000, 4099])
            assert.equal(flawOfText(Buffer.from(value), [step]), 'malformed', JSON.stringify(bad));
    assert.equal(flawOfText(Buffer.from('"ab\\')), 'cut');
    assert.equal(flawOfText(Buffer.from('"ab\\u12')), 'cut');
    assert.equal(read(Buffer.from('"\u007f\u0085\u2028\\ud83d"'), [1]), '\u007f\u0085\u2028\ufffd');
  });

  it('accepts a byte-order mark only where its file may have one', () => {
    const mark = Buffer.from('\ufeff{"a": 1}');
    for (const step of [1, 2, 3, 100]) {
      assert.equal(flawOfText(mark, [step]), 'malformed');
      const builder = new Builder();
      feedIn(new JsonReader(builder, { byteOrderMark: true }), mark, step);
      assert.deepEqual(builder.value, { a: 1 });
      for (const text of ['\ufeff\ufeff1', ' \ufeff1', '1\ufeff', '\ufefe1'])
        assert.equal(
          flawOf(() =>
            feedIn(new JsonReader(new Builder(), { byteOrderMark: true }), Buffer.from(text), step),
          ),
          'malformed',
        );
    }
  });

  it('refuses integers that Python does not convert', () => {
    for (const [digits, flaw] of [
      [4300, undefined],
      [4301, 'malformed'],
    ] as const) {
      assert.equal(flawOfText(Buffer.from(`[${'7'.repeat(digits)}]`)), flaw);
      assert.equal(flawOfText(Buffer.from(`-${'7'.repeat(digits)}`)), flaw);
      assert.equal(flawOfText(Buffer.from(`[${'7'.repeat(digits)}.0]`)), undefined);
    }
  });

  it('accepts NaN and Infinity as Python writes them', () => {
    assert.equal(flawOfText(Buffer.from('[NaN, Infinity, -Infinity]')), undefined);
  });

  it('refuses excessive nesting', () => {
    assert.equal(flawOfText(Buffer.from(`${'['.repeat(500)}${']'.repeat(500)}`)), undefined);
    assert.equal(flawOfText(Buffer.from('['.repeat(2_000_000))), 'malformed');
  });

  it('finds the end of a long string without buffering it', () => {
    const long = `${'x'.repeat(SHORT_STRING_BYTES_MAX)}\\\\\\"é${'y\\\\'.repeat(SHORT_STRING_BYTES_MAX)}`;
    const text = `{"${long}":"${long}","z":["${long}", 1]}`;
    for (const step of [1 << 20, 65_537, 4096, 1000]) {
      assert.deepEqual(read(Buffer.from(text), [step]), JSON.parse(text), `${step}`);
    }
  });

  it('treats a string as long by its length alone', () => {
    for (const length of [SHORT_STRING_BYTES_MAX - 1, SHORT_STRING_BYTES_MAX, SHORT_STRING_BYTES_MAX + 1]) {
      const text = Buffer.from(`{"${'k'.repeat(length)}":"${'v'.repeat(length)}"}`);
      for (const step of [4096, 30_000, 65_536, 70_000, 1 << 20]) {
        const told: string[] = [];
        const tell = (word: string) => () => told.push(word);
        const events = { open: () => {}, close: () => {}, bare: () => {}, piece: () => {} };
        const reader = new JsonReader({
          ...events,
          key: tell('key'),
          string: tell('string'),
          long: tell('long'),
        });
        feedIn(reader, text, step);
        const wanted = length > SHORT_STRING_BYTES_MAX ? ['long', 'long'] : ['key', 'string'];
        assert.deepEqual(told, wanted, `${length} bytes in chunks of ${step}`);
      }
    }
  });

  it('reads a string of a hundred megabytes in constant memory', () => {
    let pieces = 0;
    const ignore = () => {};
    const events = { open: ignore, close: ignore, key: ignore, string: ignore, bare: ignore, long: ignore };
    const reader = new JsonReader({ ...events, piece: ({ length }) => (pieces += length) });
    const chunk = Buffer.alloc(1 << 20, 'a');
    reader.feed(Buffer.from('"'));
    const before = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < 100; i++) reader.feed(chunk);
    reader.feed(Buffer.from('"'));
    reader.end();
    assert.equal(pieces, 100 << 20);
    assert.equal(process.memoryUsage().arrayBuffers - before < 16 << 20, true);
  });
});
