import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { durationText, parseDuration, parseSize, sizeText } from '../../host/quantity.ts';

const refusal = { code: 'INVALID_ARGUMENT', message: /^Cannot use ".*" as a /s, hint: /^write it like / };

describe('a duration', () => {
  it('is a number with a unit', () => {
    const cases: [string, number][] = [
      ['300ms', 300],
      ['30s', 30_000],
      ['5m', 300_000],
      ['5min', 300_000],
      ['2h', 7_200_000],
      ['30d', 2_592_000_000],
      ['1w', 604_800_000],
      ['1.5h', 5_400_000],
      ['0.5ms', 1],
      ['0', 0],
      ['0s', 0],
      [' 30 s ', 30_000],
      ['30S', 30_000],
    ];
    for (const [text, ms] of cases) assert.equal(parseDuration(text), ms, text);
  });

  it('that is malformed is refused with an example', () => {
    const wrong = [
      '',
      ' ',
      '5',
      's',
      '-1s',
      '+1s',
      '1e3s',
      '1,5s',
      '.5s',
      '1.s',
      '1y',
      '1 s 2',
      '0x1s',
      'NaNs',
    ];
    for (const text of [...wrong, '5constructor', '5MB'])
      assert.throws(() => parseDuration(text), refusal, text);
  });

  it('that is too large is refused', () => {
    assert.throws(() => parseDuration(`${'9'.repeat(400)}d`), refusal);
  });
});

describe('a size', () => {
  it('is a number with a decimal or a binary unit', () => {
    const cases: [string, number][] = [
      ['0', 0],
      ['1B', 1],
      ['1kB', 1000],
      ['1KiB', 1024],
      ['500MB', 500e6],
      ['1GiB', 1024 ** 3],
      ['1.5GiB', 1.5 * 1024 ** 3],
      ['2tb', 2e12],
      ['1TiB', 1024 ** 4],
      ['3 gib', 3 * 1024 ** 3],
    ];
    for (const [text, bytes] of cases) assert.equal(parseSize(text), bytes, text);
  });

  it('that is malformed is refused with an example', () => {
    for (const text of ['', '5', 'GiB', '-1GiB', '1e3B', '5s', '5constructor', '1GiBs'])
      assert.throws(() => parseSize(text), refusal, text);
  });

  it('that is too large is refused', () => {
    assert.throws(() => parseSize(`${'9'.repeat(400)}GiB`), refusal);
  });
});

describe('a quantity', () => {
  it('from any text is a whole number of at least 0 or refused', () => {
    const words = fc.constantFrom(
      '1',
      '20',
      '.5',
      ' ',
      'k',
      'ms',
      's',
      'GiB',
      'constructor',
      '-',
      'e9',
      '\n',
    );
    const texts = fc.oneof(
      fc.array(words, { maxLength: 4 }).map((parts) => parts.join('')),
      fc.string(),
    );
    const check = (text: string) => {
      for (const parse of [parseDuration, parseSize]) {
        let value: number;
        try {
          value = parse(text);
        } catch (error) {
          assert.equal((error as { code?: unknown }).code, 'INVALID_ARGUMENT');
          continue;
        }
        assert.ok(Number.isInteger(value) && value >= 0, `${text}: ${value}`);
      }
    };
    fc.assert(fc.property(texts, check), { numRuns: 2000 });
  });
});

describe('text for people', () => {
  it('shows sizes in decimal units', () => {
    const cases: [number, string][] = [
      [0, '0 B'],
      [999, '999 B'],
      [1000, '1.0 kB'],
      [3_900_000, '3.9 MB'],
      [123_456_789, '123 MB'],
      [2e15, '2.0 PB'],
    ];
    for (const [bytes, text] of cases) assert.equal(sizeText(bytes), text);
  });

  it('shows durations in the unit that fits', () => {
    const cases: [number, string][] = [
      [0, '0 ms'],
      [45.4, '45 ms'],
      [2100, '2.1 s'],
      [180_000, '3 min'],
      [5 * 3_600_000, '5 h'],
      [48 * 3_600_000, '2 d'],
    ];
    for (const [ms, text] of cases) assert.equal(durationText(ms), text);
  });

  it('never shows a thousand, or sixty, of a unit', () => {
    fc.assert(fc.property(fc.nat({ max: 2 ** 31 }), (n) => assert.doesNotMatch(sizeText(n), /^1000/)));
    for (const n of [999_949, 999_950, 999_999, 99_950_000, 999_999_999]) {
      assert.doesNotMatch(sizeText(n), /^1000/, String(n));
    }
    for (const n of [999.6, 59_960, 59_999])
      assert.doesNotMatch(durationText(n), /^(?:1000 ms|60\.0 s)/, String(n));
    assert.doesNotMatch(durationText(3_599_999), /^60 min/);
  });
});
