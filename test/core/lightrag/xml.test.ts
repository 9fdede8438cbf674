import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { XmlReader } from '../../../core/lightrag/xml.ts';
import type { XmlTag } from '../../../core/lightrag/xml-tag.ts';
import { random } from '../../../demo/random.ts';
import { feedIn, flawOf } from '../../support/chunks.ts';
import { lacksPython, readWithPython } from '../../support/python-readers.ts';

const SEED = Number(process.env.LIGHTKEEPER_SEED ?? 1);
const INPUTS = Number(process.env.LIGHTKEEPER_INPUTS ?? 3000);

type Tree = [tag: string, attributes: [string, string][], text: string, children: [Tree, string][]];

/** Returns the tree of a document, as ElementTree builds it, read in chunks of random lengths. */
function read(bytes: Buffer, draw: (below: number) => number): Tree {
  const root: Tree = ['', [], '', []];
  const open: Tree[] = [root];
  const events = {
    wantsText: true,
    open: (tag: XmlTag) => {
      const named = (uri: string, local: string) => (uri === '' ? local : `{${uri}}${local}`);
      const attributes = tag.names
        .filter((name) => name !== 'xmlns' && !name.startsWith('xmlns:'))
        .map((name): [string, string] => [name, tag.text(name) ?? '']);
      const element: Tree = [named(tag.uri, tag.name), attributes, '', []];
      open.at(-1)?.[3].push([element, '']);
      open.push(element);
    },
    close: () => void open.pop(),
    text: (piece: Buffer) => {
      const last = open.at(-1) ?? root;
      const child = last[3].at(-1);
      if (child === undefined) last[2] += piece.toString('latin1');
      else child[1] += piece.toString('latin1');
    },
  };
  feedIn(new XmlReader(events), bytes, ...Array.from({ length: 4 }, () => 1 + draw(40)));
  return joined(root[3][0]?.[0] ?? assert.fail('a root'));
}

/** Decodes texts once they are whole: a piece may end within a character. */
function joined([tag, attributes, text, children]: Tree): Tree {
  const whole = (latin1: string) => Buffer.from(latin1, 'latin1').toString('utf8');
  return [tag, attributes, whole(text), children.map(([child, tail]) => [joined(child), whole(tail)])];
}

const PIECES: readonly string[] = [
  ...['&amp;', '&lt;', '&#10;', '&#13;', '&#x4e2d;', '&#7;', '&#0;', '&#xFFFE;', '&#xD800;', '&#x110000;'],
  ...[
    '&#x10FFFF;',
    '&#00065;',
    '&#;',
    '&#x;',
    '&#xg;',
    '&',
    '&a;',
    '&a',
    '& ',
    '&amp',
    ';',
    ']]>',
    ']]',
    ']',
    '>',
  ],
  ...[
    '<!-- c -->',
    '<!---->',
    '<!-- -- -->',
    '<!--->',
    '<!-- a',
    '<![CDATA[x&]]>',
    '<![CDATA[]]]]>',
    '<![CDATA[',
  ],
  ...[
    '<?p i?>',
    '<?p?>',
    '<?p',
    '<?xml version="1.0"?>',
    '<?XML x?>',
    '<?p:q r?>',
    '<?1?>',
    '<!DOCTYPE a>',
    '<!',
  ],
  ...[
    '\x00',
    '\x01',
    '\x0b',
    '\x1f',
    '\x7f',
    '\x85',
    '\r',
    '\r\n',
    '\n',
    '\t',
    ' ',
    '\ufeff',
    '\ufffe',
    '\uffff',
  ],
  ...[
    'é',
    '中',
    '\u0301',
    '\u{1f600}',
    '\u{1fffe}',
    '\u00d7',
    '"',
    "'",
    '<',
    '/',
    '/>',
    '=',
    ':',
    '::',
    '-',
    '1',
  ],
  ...[
    '<a>',
    '</a>',
    '<a/>',
    '<b',
    '<a b="c"/>',
    ' b="1"',
    " b='2'",
    ' b = "3" ',
    ' b=4',
    ' b',
    'b="5"',
    ' p:b="6"',
  ],
  ...[
    ' xmlns="u"',
    ' xmlns:p="u"',
    ' xmlns:q="u"',
    ' q:b="7"',
    ' xmlns:p=""',
    ' xmlns:xml="u"',
    ' xmlns:xmlns="u"',
  ],
  ...[
    '<p:a xmlns:p="v">',
    '</p:a>',
    '<p:a/>',
    ' xml:lang="en"',
    ' xmlns:r="a}b"',
    'p:',
    '<é/>',
    '<\u{10400}/>',
  ],
  ...['<!DOCTYPE a SYSTEM "s">', '<!DOCTYPE a PUBLIC "p" "s">', "<!DOCTYPE a PUBLIC '{' ''>", '<!DOCTYPE>'],
  ...[
    '<?xml version="1.0" encoding="UTF-8"?>',
    "<?xml version='1.0' standalone='no' ?>",
    '<?xml version="1.0',
  ],
];
const STARTS: readonly string[] = [
  '<a>text<b c="d">more</b>rest</a>',
  '<?xml version="1.0" encoding="utf-8"?>\n<a xmlns="u" xmlns:p="v" p:c="d"><b/><p:e f="g">h</p:e>i</a>\n',
  '<!-- c --><a\n b="1"\tc = \'2\'  ><![CDATA[<x>]]>y<?z?></a >\n<!-- d -->',
  '\ufeff<!DOCTYPE a><a b="x&amp;y&#10;z">&lt;&#x20AC;</a>',
  '<?xml version="1.0" encoding="ascii"?><a>x</a>',
  '<!DOCTYPE a SYSTEM "s"><a b="x">y</a>',
];

/** Documents that are well-formed, or were so before a few pieces were put in or taken out. */
function documents(count: number, draw: (below: number) => number): Buffer[] {
  const pick = <T>(list: readonly T[]): T => list[draw(list.length)] as T;
  return Array.from({ length: count }, () => {
    let text = pick(STARTS);
    for (let changes = draw(4); changes > 0; changes--) {
      const at = draw(text.length + 1);
      const length = draw(3) === 0 ? draw(6) : 0;
      text = text.slice(0, at) + (draw(8) === 0 ? '' : pick(PIECES)) + text.slice(at + length);
    }
    return Buffer.from(text);
  });
}

describe('an XML reader', () => {
  it(`reads what Python reads and refuses what it refuses (seed ${SEED})`, { skip: lacksPython() }, () => {
    const draw = random(SEED);
    const inputs = documents(INPUTS, draw);
    let accepted = 0;
    for (const [i, wanted] of readWithPython('xml', inputs).entries()) {
      const bytes = inputs[i] as Buffer;
      const text = `${JSON.stringify(bytes.toString('utf8'))}: ${JSON.stringify(wanted)}`;
      let found: Tree | undefined;
      const flaw = flawOf(() => (found = read(bytes, draw)));
      assert.equal(flaw === undefined, 'value' in wanted, `${text} but here ${flaw}`);
      if (!('value' in wanted)) continue;
      accepted += 1;
      assert.deepEqual(withoutPrefixes(found as Tree), withoutPrefixes(wanted.value as Tree), text);
    }
    assert.equal(accepted > INPUTS / 10 && accepted < INPUTS * 0.9, true, `${accepted} of ${INPUTS}`);
  });
});

/** Attributes with prefixes are compared by number only: no reader of a graph uses them. */
function withoutPrefixes([tag, attributes, text, children]: Tree): unknown {
  const plain = attributes.filter(([name]) => !/[:{]/.test(name)).sort(([a], [b]) => (a < b ? -1 : 1));
  return [
    tag,
    attributes.length,
    plain,
    text,
    children.map(([child, tail]) => [withoutPrefixes(child), tail]),
  ];
}
