import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  checkPath,
  isUtf8,
  NAME_BYTES_MAX,
  PATH_BYTES_MAX,
  pathBytes,
  pathFromBytes,
  pathFromText,
  pathMatcher,
  pathProblem,
  pathText,
} from '../../core/path.ts';

const fatal = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** What Node makes of the bytes, or undefined if they are not UTF-8. */
function decoded(bytes: Uint8Array): string | undefined {
  try {
    return fatal.decode(bytes);
  } catch {
    return undefined;
  }
}

/** Bytes that are near the edges of UTF-8: leads, continuations, cut and overlong sequences. */
const nearUtf8 = fc
  .array(
    fc.oneof(
      fc.constantFrom(0x00, 0x2f, 0x41, 0x5c, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf),
      fc.constantFrom(0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xf5, 0xff),
      fc.integer({ min: 0, max: 255 }),
    ),
    { maxLength: 12 },
  )
  .map((bytes) => Uint8Array.from(bytes));
const anyBytes = fc.oneof(
  nearUtf8,
  fc.uint8Array({ maxLength: 40 }),
  fc.string({ unit: 'binary', maxLength: 20 }).map((text) => new Uint8Array(Buffer.from(text))),
);

const matches = (pattern: string, path: string) => pathMatcher(pattern)(pathFromText(path));

describe('the bytes of a path', () => {
  it('survive a round trip and compare bytewise', () => {
    fc.assert(
      fc.property(anyBytes, anyBytes, (a, b) => {
        assert.deepEqual(new Uint8Array(pathBytes(pathFromBytes(a))), Uint8Array.from(a));
        const order = pathFromBytes(a) < pathFromBytes(b) ? -1 : pathFromBytes(a) > pathFromBytes(b) ? 1 : 0;
        assert.equal(order, Buffer.compare(a, b));
      }),
    );
  });

  it('are UTF-8 exactly if Node can decode them', () => {
    fc.assert(
      fc.property(anyBytes, (bytes) => {
        assert.equal(isUtf8(pathFromBytes(bytes)), decoded(bytes) !== undefined);
      }),
      { numRuns: 5000 },
    );
  });

  it('of every start of a sequence are judged as by Node', () => {
    for (let first = 0x7e; first < 256; first++) {
      for (const second of [0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0]) {
        for (const rest of [[], [0x80], [0x80, 0x80], [0xbf, 0xbf, 0xbf]]) {
          const bytes = Uint8Array.from([first, second, ...rest]);
          assert.equal(isUtf8(pathFromBytes(bytes)), decoded(bytes) !== undefined, String(bytes));
        }
      }
    }
  });
});

describe('the text of a path', () => {
  it('is unique and leads back to the bytes', () => {
    fc.assert(
      fc.property(anyBytes, (bytes) => {
        const path = pathFromBytes(bytes);
        assert.equal(pathFromText(pathText(path)), path);
      }),
      { numRuns: 2000 },
    );
  });

  it('is the plain text where the name is UTF-8 without a backslash', () => {
    fc.assert(
      fc.property(anyBytes, (bytes) => {
        const text = decoded(bytes);
        if (text === undefined || text.includes('\\')) return;
        assert.equal(pathText(pathFromBytes(bytes)), text);
        assert.equal(pathFromText(text), pathFromBytes(bytes));
      }),
    );
  });

  it('shows other bytes and the backslash as \\xNN', () => {
    const path = pathFromBytes(
      Buffer.concat([Buffer.from('é\\'), Buffer.from([0xff, 0xc3]), Buffer.from('/a')]),
    );
    assert.equal(pathText(path), 'é\\x5c\\xff\\xc3/a');
  });

  it('is well-formed for encoded surrogates too', () => {
    const encodes = (bytes: Uint8Array) => {
      // A lone surrogate would make this throw.
      encodeURIComponent(pathText(pathFromBytes(bytes)));
    };
    fc.assert(fc.property(anyBytes, encodes));
    assert.equal(pathText(pathFromBytes(Buffer.from([0xed, 0xa0, 0x80]))), '\\xed\\xa0\\x80');
  });
});

describe('an unsafe path', () => {
  it('is refused', () => {
    const unsafe = [
      '',
      '/',
      '/etc/passwd',
      '.',
      '..',
      '../a',
      'a/..',
      'a/../../b',
      'a/./b',
      'a//b',
      'a/',
      'a\0b',
      'x'.repeat(NAME_BYTES_MAX + 1),
      `a/${'x'.repeat(NAME_BYTES_MAX + 1)}/b`,
      'x/'.repeat(PATH_BYTES_MAX / 2).concat('x'),
    ];
    for (const path of unsafe) {
      assert.notEqual(pathProblem(path), undefined, path);
      assert.throws(() => checkPath(path), { code: 'DAMAGED', message: /^Cannot use the path "/ });
    }
  });

  it('is not confused with one that only looks odd', () => {
    const fine = [
      'a',
      '...',
      '..a',
      'a..',
      '.hidden',
      ' ',
      '-rf',
      'a\\..\\b',
      'a\nb',
      'x'.repeat(NAME_BYTES_MAX),
      'x/'.repeat(PATH_BYTES_MAX / 2 - 1).concat('xx'),
      '\xff\xfe',
    ];
    for (const path of fine) {
      assert.equal(pathProblem(path), undefined, path);
      assert.doesNotThrow(() => checkPath(path));
    }
  });

  it('never resolves to anything outside', () => {
    const part = fc.constantFrom('', '.', '..', 'a', '...', 'b\0');
    fc.assert(
      fc.property(fc.array(part, { maxLength: 6 }), (parts) => {
        const path = parts.join('/');
        if (pathProblem(path) !== undefined) return;
        const { pathname } = new URL(path, 'file:///root/');
        assert.equal(pathname, `/root/${path}`);
      }),
    );
  });
});

describe('a pattern', () => {
  it('limits * and ? to a name and lets ** cross folders', () => {
    const cases: [string, string, boolean][] = [
      ['a/*.json', 'a/x.json', true],
      ['a/*.json', 'a/b/x.json', false],
      ['a/?.json', 'a/x.json', true],
      ['a/?.json', 'a/xy.json', false],
      ['a?b', 'a/b', false],
      ['a/**', 'a/b/c', true],
      ['a/**/c', 'a/c', true],
      ['a/**/c', 'a/b/b/c', true],
      ['a/**/c', 'a/bc', false],
      ['**/c', 'c', true],
      ['**/c', 'a/b/c', true],
      ['**/c', 'a/bc', false],
      ['*/c', 'a/c', true],
      ['*/c', 'c', false],
      ['*/c', 'a/b/c', false],
    ];
    for (const [pattern, path, wanted] of cases)
      assert.equal(matches(pattern, path), wanted, `${pattern} on ${path}`);
  });

  it('without a slash matches the last name, and a folder with all below it', () => {
    const cases: [string, string, boolean][] = [
      ['*.json', 'x.json', true],
      ['*.json', 'a/b/x.json', true],
      ['cache', 'a/cache/x', true],
      ['cache', 'cache', true],
      ['cache', 'mycache', false],
      ['cache', 'cachex', false],
      ['a/b', 'a/b/c/d', true],
      ['a/b', 'x/a/b', false],
      ['a', 'ab', false],
    ];
    for (const [pattern, path, wanted] of cases)
      assert.equal(matches(pattern, path), wanted, `${pattern} on ${path}`);
  });

  it('may begin with ./ or / and end with /', () => {
    for (const pattern of ['./a/b', '/a/b', 'a/b/', './a/b//']) assert.ok(matches(pattern, 'a/b/c'), pattern);
  });

  it('matches every other character literally', () => {
    const characters = [...'.+^$()[]{}|-!@#%&=~`\'",;:<> '];
    for (const character of characters) {
      assert.ok(matches(`a${character}b`, `a${character}b`), character);
      assert.ok(!matches(`a${character}b`, 'aab'), character);
      assert.ok(!matches(`a${character}b`, 'axb'), character);
    }
    assert.equal(matches('a.json', 'axjson'), false);
    assert.equal(matches('[ab]', 'a'), false);
  });

  it('without wildcards matches its name', () => {
    const names = anyBytes
      .map(pathFromBytes)
      .filter((path) => pathProblem(path) === undefined && !/[*?]/.test(path));
    fc.assert(fc.property(names, (path) => assert.equal(pathMatcher(pathText(path))(path), true)));
  });

  it('matches names that are not UTF-8 by their escapes', () => {
    const path = pathFromBytes(Buffer.from([0x61, 0xff]));
    assert.equal(pathMatcher('a\\xff')(path), true);
    assert.equal(pathMatcher('a?')(path), true);
    assert.equal(pathMatcher('a*')(path), true);
    assert.equal(pathMatcher('a\\xfe')(path), false);
  });

  it('matches a character of several bytes with one ?', () => {
    assert.equal(matches('caf?.json', 'café.json'), true);
    assert.equal(matches('?.json', '文.json'), true);
    assert.equal(matches('?.json', '😀.json'), true);
    assert.equal(matches('caf??.json', 'café.json'), false);
  });

  it('matches names with line feeds too', () => {
    assert.equal(matches('a*b', 'a\nb'), true);
    assert.equal(matches('a/**', 'a/b\nc/d'), true);
    assert.equal(matches('a', 'a\n'), false);
  });
});
