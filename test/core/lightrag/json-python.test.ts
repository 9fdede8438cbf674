import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type JsonEvents, JsonReader, unescaped } from '../../../core/lightrag/json.ts';
import { Utf8Reader } from '../../../core/lightrag/utf8-reader.ts';
import { random } from '../../../demo/random.ts';
import { feedIn, flawOf } from '../../support/chunks.ts';
import { lacksPython, readWithPython } from '../../support/python-readers.ts';

const SEED = Number(process.env.LIGHTKEEPER_SEED ?? 1);
const INPUTS = Number(process.env.LIGHTKEEPER_INPUTS ?? 1500);

type Reading = null | string | { bare: true } | { list: Reading[] } | { map: [string, Reading][] };

/** Builds what Python's dicts, lists and strings hold after the same text. */
class Builder implements JsonEvents {
  value: Reading = null;
  readonly #open: { list: Reading[]; map: Map<string, Reading>; isList: boolean; key: string }[] = [];
  #pieces: Buffer[] = [];

  #put(value: Reading): void {
    const top = this.#open.at(-1);
    if (top === undefined) this.value = value;
    else if (top.isList) top.list.push(value);
    else top.map.set(top.key, value);
  }

  open(isList: boolean): void {
    this.#open.push({ list: [], map: new Map(), isList, key: '' });
  }

  close(): void {
    const { list, map, isList } = this.#open.pop() ?? assert.fail('an open value');
    this.#put(isList ? { list } : { map: [...map] });
  }

  key(bytes: Buffer, escaped: boolean): void {
    const top = this.#open.at(-1) ?? assert.fail('an open map');
    top.key = unescaped(bytes, escaped).toString('utf8');
  }

  string(bytes: Buffer, escaped: boolean): void {
    this.#put(unescaped(bytes, escaped).toString('utf8'));
  }

  piece(bytes: Buffer): void {
    this.#pieces.push(Buffer.from(bytes));
  }

  long(_: number, isKey: boolean): void {
    const bytes = Buffer.concat(this.#pieces);
    this.#pieces = [];
    if (isKey) this.key(bytes, true);
    else this.string(bytes, true);
  }

  bare(text: string): void {
    this.#put(text === 'null' ? null : { bare: true });
  }
}

const LONG = 'x'.repeat(66_000);
const PIECES: readonly string[] = [
  ...[
    '\\n',
    '\\"',
    '\\\\',
    '\\/',
    '\\b',
    '\\u0041',
    '\\u00e9',
    '\\ud83d\\ude00',
    '\\ud83d',
    '\\udE00',
    '\\u0000',
  ],
  ...['\\x', '\\u12G4', '\\u12', '\\u', '\\U0041', '\\', "\\'", '\\0', '\\u 123', '\\u+123', '\\u-123'],
  ...[
    '\u0000',
    '\u0001',
    '\u000b',
    '\u001f',
    '\u007f',
    '\u0085',
    '\u2028',
    '\u00a0',
    '\ufeff',
    '\t',
    '\n',
    '\r',
    ' ',
  ],
  ...['é', '中', '\u{1f600}', '"', "'", '{', '}', '[', ']', ':', ',', '//', '/* */', '#'],
  ...[
    'NaN',
    '-NaN',
    'Infinity',
    '-Infinity',
    '+1',
    '-1',
    '01',
    '1.',
    '.1',
    '1e5',
    '1E+5',
    '1e',
    '-',
    '-0',
    '0x1',
  ],
  ...[
    '1.5e-3',
    '1_0',
    'true',
    'True',
    'null',
    'None',
    'undefined',
    'nul',
    '9'.repeat(4300),
    '9'.repeat(4301),
  ],
  ...[
    `${'9'.repeat(5000)}.5`,
    `"${LONG}"`,
    `"${LONG}\\u0041\\n"`,
    `"${LONG}\n"`,
    `"${LONG}\\q"`,
    '1e999',
    '{}',
    '[]',
  ],
];
const STARTS: readonly string[] = [
  '{"a": "b", "c": [1, -2.5e+3, true, null, "x\\"\\\\"], "d": {"e": {}, "f": []}}',
  '{\n  "chunk-1": {\n    "content": "a\\nb \\u4e2d",\n    "tokens": 12\n  },\n  "chunk-2": {}\n}',
  '[{"a": 1, "a": "\\u00e9"}, "\\ud83d\\ude00", [[[""]]]]\r\n',
  ' "text" ',
  '12.5',
  '\ufeff{"a": "b"}',
  '',
];

function documents(count: number, draw: (below: number) => number): Buffer[] {
  const pick = <T>(list: readonly T[]): T => list[draw(list.length)] as T;
  return Array.from({ length: count }, () => {
    let text = pick(STARTS);
    for (let changes = draw(3); changes > 0; changes--) {
      const at = draw(text.length + 1);
      const length = draw(3) === 0 ? draw(4) : 0;
      text = text.slice(0, at) + (draw(8) === 0 ? '' : pick(PIECES)) + text.slice(at + length);
    }
    const bytes = Buffer.from(text);
    // A byte that is no UTF-8, now and then.
    if (draw(30) === 0 && bytes.length > 0) bytes[draw(bytes.length)] = 0x80 + draw(0x80);
    return bytes;
  });
}

describe('a JSON reader beside Python', () => {
  for (const [kind, byteOrderMark] of [
    ['json', false],
    ['record-json', true],
  ] as const)
    it(`reads and refuses the same as ${kind} (seed ${SEED})`, { skip: lacksPython() }, () => {
      const draw = random(SEED);
      const inputs = documents(INPUTS, draw);
      let accepted = 0;
      for (const [i, wanted] of readWithPython(kind, inputs).entries()) {
        const bytes = inputs[i] as Buffer;
        const builder = new Builder();
        const scale = draw(4) === 0 ? 40_000 : 40;
        const lengths = Array.from({ length: 4 }, () => 1 + draw(bytes.length > 1000 ? 40_000 : scale));
        const flaw = flawOf(() =>
          feedIn(new Utf8Reader(new JsonReader(builder, { byteOrderMark })), bytes, ...lengths),
        );
        const text = `${JSON.stringify(bytes.toString('utf8')).slice(0, 300)}: ${JSON.stringify(wanted).slice(0, 200)}`;
        assert.equal(flaw === undefined, 'value' in wanted, `${text} but here ${flaw}`);
        if (!('value' in wanted)) continue;
        accepted += 1;
        assert.deepEqual(builder.value, wanted.value, text);
      }
      assert.equal(accepted > INPUTS / 10 && accepted < INPUTS * 0.9, true, `${accepted} of ${INPUTS}`);
    });
});
