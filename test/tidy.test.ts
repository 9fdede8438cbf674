import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join, posix } from 'node:path';
import { describe, it } from 'node:test';
import * as ts from 'typescript/unstable/ast';
import { createVirtualFileSystem } from 'typescript/unstable/fs';
import { API } from 'typescript/unstable/sync';

const ROOT = join(import.meta.dirname, '..');
/** What is shipped and written by hand. */
const SHIPPED = ['core', 'host', 'agent', 'controller', 'cli', 'demo'];

interface Source {
  /** From the root of the repository. */
  readonly path: string;
  readonly tree: ts.SourceFile;
}

/** Syntax trees of TypeScript texts, by the compiler itself; nothing is resolved. */
function parse(texts: readonly (readonly [path: string, text: string])[]): Source[] {
  const config = '/tidy/tsconfig.json';
  const placed = texts.map(([path, text], i) => ({ path, text, place: `/tidy/${i}/${path}` }));
  const compilerOptions = { noLib: true, noResolve: true, types: [], module: 'nodenext' };
  const files = Object.fromEntries(placed.map(({ place, text }) => [place, text]));
  files[config] = JSON.stringify({ compilerOptions, files: Object.keys(files) });
  const api = new API({ cwd: '/tidy', fs: createVirtualFileSystem(files) });
  try {
    const project = api.updateSnapshot({ openProjects: [config] }).getProject(config);
    return placed.map(({ path, place }) => {
      const tree = project?.program.getSourceFile(place);
      assert.ok(tree, `the compiler reads ${path}`);
      return { path, tree };
    });
  } finally {
    api.close();
  }
}

function textsOf(folders: readonly string[]): [path: string, text: string][] {
  return folders
    .flatMap((folder) => namesIn(join(ROOT, folder)).map((name) => posix.join(folder, name)))
    .filter((path) => path.endsWith('.ts'))
    .map((path) => [path, readFileSync(join(ROOT, path), 'utf8')]);
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort();
  } catch {
    return []; // Not built yet.
  }
}

function* nodesBelow(node: ts.Node): Generator<ts.Node> {
  const children: ts.Node[] = [];
  node.forEachChild((child) => {
    children.push(child);
    return undefined;
  });
  for (const child of children) {
    yield child;
    yield* nodesBelow(child);
  }
}

function at({ path, tree }: Source, node: ts.Node): string {
  return `${path}:${tree.getLineAndCharacterOfPosition(node.getStart(tree)).line + 1}`;
}

// ----- imports -----

interface Import {
  readonly place: string;
  readonly from: string;
  /** A file of this repository, or what is written. */
  readonly to: string;
  readonly own: boolean;
  readonly lazy: boolean;
  /** Undefined where the whole module is taken. */
  readonly names: readonly string[] | undefined;
}

/** What a node brings in: import, export … from, import(), import types and require. */
function importedBy(node: ts.Node): ts.Node | 'computed' | undefined {
  if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) return node.moduleSpecifier;
  if (ts.isImportTypeNode(node))
    return ts.isLiteralTypeNode(node.argument) ? node.argument.literal : 'computed';
  if (!ts.isCallExpression(node)) return undefined;
  const { expression } = node;
  const dynamic = expression.kind === ts.SyntaxKind.ImportKeyword;
  const required = ts.isIdentifier(expression) && expression.text === 'require';
  const made =
    ts.isCallExpression(expression) &&
    ts.isIdentifier(expression.expression) &&
    expression.expression.text === 'createRequire';
  return dynamic || required || made ? (node.arguments[0] ?? 'computed') : undefined;
}

function namesOf(node: ts.Node): string[] | undefined {
  const bindings = ts.isImportDeclaration(node) ? node.importClause?.namedBindings : undefined;
  if (bindings === undefined || !ts.isNamedImports(bindings)) return undefined;
  return bindings.elements.map(({ name, propertyName }) => (propertyName ?? name).text);
}

function importsOf(source: Source): Import[] {
  const imports: Import[] = [];
  for (const node of nodesBelow(source.tree)) {
    const specifier = importedBy(node);
    if (specifier === undefined) continue;
    const lazy = ts.isCallExpression(node);
    const about = { place: at(source, node), from: source.path, lazy, names: namesOf(node) };
    if (
      specifier === 'computed' ||
      !(ts.isStringLiteral(specifier) || ts.isNoSubstitutionTemplateLiteral(specifier))
    ) {
      imports.push({ ...about, to: 'a name that is computed', own: false });
      continue;
    }
    const own = specifier.text.startsWith('.');
    const to = own ? posix.join(posix.dirname(source.path), specifier.text) : specifier.text;
    imports.push({ ...about, to, own });
  }
  return imports;
}

interface Allowed {
  /** Files, and folders with a slash at the end. */
  readonly own: readonly string[];
  readonly libraries: readonly string[] | 'any';
  readonly node: readonly string[] | 'any';
}

const MAINS = ['agent/main.ts', 'controller/main.ts'];

/** The table of DESIGN.md, section 3, with docs/decisions/0002. */
const TABLE: Readonly<Record<string, Allowed>> = {
  gen: { own: ['gen/'], libraries: ['@bufbuild/protobuf'], node: [] },
  core: {
    own: ['gen/', 'core/'],
    libraries: ['@bufbuild/protobuf'],
    node: ['node:buffer', 'node:crypto', 'node:zlib'],
  },
  host: {
    own: ['gen/', 'host/', 'core/errors.ts', 'core/assert.ts', 'core/backoff.ts'],
    libraries: 'any',
    node: 'any',
  },
  agent: { own: ['gen/', 'core/', 'host/', 'agent/'], libraries: 'any', node: 'any' },
  controller: { own: ['gen/', 'core/', 'host/', 'controller/'], libraries: 'any', node: 'any' },
  cli: {
    own: ['gen/', 'core/errors.ts', 'host/', 'cli/', ...MAINS],
    libraries: ['commander', '@bufbuild/protobuf'],
    node: 'any',
  },
  demo: { own: ['gen/', 'core/errors.ts', 'host/', 'cli/', 'demo/', ...MAINS], libraries: [], node: 'any' },
};

/** What may be imported beside the table, and only when it is needed: docs/decisions/0002. */
const BESIDE_TABLE: ReadonlySet<string> = new Set(['cli/commands/demo.ts -> demo/story.ts']);

/** Packages that shipped code may import although they are not installed with it: their code is in the bundle. */
const BUNDLED = [
  '@bufbuild/protobuf',
  '@connectrpc/connect',
  '@connectrpc/connect-node',
  '@grpc/grpc-js',
  '@peculiar/x509',
  'chokidar',
  'commander',
  'pino',
  'prom-client',
  'reflect-metadata',
  'yaml',
];

const PACKAGE = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Readonly<
  Record<'dependencies' | 'optionalDependencies' | 'devDependencies', object>
>;
const INSTALLED = Object.keys({ ...PACKAGE.dependencies, ...PACKAGE.optionalDependencies });
const LIBRARIES: ReadonlySet<string> = new Set([
  ...INSTALLED,
  ...BUNDLED.filter((name) => name in PACKAGE.devDependencies),
]);

/** Names of Node modules that return the same for the same input, synchronously. */
const PURE_NAMES: Readonly<Record<string, RegExp>> = {
  'node:buffer': /^isUtf8$/,
  'node:crypto': /^(?:createHash|hash|createHmac|timingSafeEqual)$/,
  'node:zlib': /^(?:\w+Sync|crc32|constants)$/,
};

function mayImport(folder: string, { from, to, own, lazy, names }: Import): boolean {
  const allowed = TABLE[folder];
  if (allowed === undefined) return false;
  if (own) {
    const named = allowed.own.some((place) => (place.endsWith('/') ? to.startsWith(place) : to === place));
    return named || (lazy && BESIDE_TABLE.has(`${from} -> ${to}`));
  }
  if (to.startsWith('node:')) {
    const pure = folder === 'core' ? PURE_NAMES[to] : undefined;
    if (pure !== undefined && !(names ?? ['*']).every((name) => pure.test(name))) return false;
    return allowed.node === 'any' || allowed.node.includes(to);
  }
  const [library = ''] = /^(?:@[^/]+\/)?[^/]+/.exec(to) ?? [];
  return LIBRARIES.has(library) && (allowed.libraries === 'any' || allowed.libraries.includes(library));
}

function forbiddenImports(source: Source): string[] {
  const [folder = ''] = source.path.split('/');
  return importsOf(source)
    .filter((one) => !mayImport(folder, one))
    .map(({ place, to }) => `${place} imports ${to}`);
}

// ----- the floors of agent/ -----

/** The rooms of agent/ by floor, from the top. A room imports rooms on lower floors alone. */
const FLOORS: readonly (readonly string[])[] = [
  ['main.ts'],
  ['run'],
  ['api'],
  ['graph'],
  ['capture', 'grade', 'diff'],
  ['snapshots', 'restore', 'peer'],
  ['store', 'config', 'role'],
  ['workers', 'instance'],
  ['pack', 'watch'],
];

/** Returns the floor of a path below agent/, counted from the top; -1 if it is in no room. */
function floorOf(path: string): number {
  const [, room = ''] = path.split('/');
  return FLOORS.findIndex((rooms) => rooms.includes(room));
}

/** Returns `from -> to` of each import, lazy ones included, that does not lead to a lower floor of agent/. */
function upwardImports(source: Source): string[] {
  const roomOf = (path: string) => path.split('/')[1];
  return importsOf(source)
    .filter(({ from, to }) => from.startsWith('agent/') && to.startsWith('agent/'))
    .filter(({ from, to }) => roomOf(from) !== roomOf(to) && floorOf(from) >= floorOf(to))
    .map(({ from, to }) => `${from} -> ${to}`);
}

// ----- one file at a time -----

const EMPTY_NAME = /^(?:utils?|commons?|helpers?|misc)$|(?:utils?|managers?|helpers?)$/i;

function emptyNames(source: Source): string[] {
  const found = source.path
    .split('/')
    .map((part) => basename(part, '.ts'))
    .filter((part) => EMPTY_NAME.test(part))
    .map((part) => `${source.path} is named ${part}`);
  for (const node of nodesBelow(source.tree)) {
    if (!ts.isClassDeclaration(node) && !ts.isClassExpression(node) && !ts.isInterfaceDeclaration(node))
      continue;
    const name = node.name?.text ?? '';
    if (EMPTY_NAME.test(name)) found.push(`${at(source, node)} is named ${name}`);
  }
  return found;
}

/** Words that are no part of a public name. */
const BANNED_WORDS = /^(?:look|keep|told|tell|note|hand|room|stretch|passage|moment)(?:s|d|es|ed|ing)?$/;

function isExported(node: ts.Node): boolean {
  const { modifiers } = node as { modifiers?: readonly ts.Node[] };
  return modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword) === true;
}

/** Returns the names that a file exports. */
function exportedNames({ tree }: Source): string[] {
  return tree.statements.flatMap((node) => {
    if (ts.isExportDeclaration(node)) {
      const clause = node.exportClause;
      return clause !== undefined && ts.isNamedExports(clause)
        ? clause.elements.map((one) => one.name.text)
        : [];
    }
    if (!isExported(node)) return [];
    if (ts.isVariableStatement(node))
      return node.declarationList.declarations.flatMap(({ name }) =>
        ts.isIdentifier(name) ? [name.text] : [],
      );
    const { name } = node as { name?: ts.Node };
    return name !== undefined && ts.isIdentifier(name) ? [name.text] : [];
  });
}

/** Returns the exported names of which a word is banned: a camelCase word, or one between underscores. */
function bannedNames(source: Source): string[] {
  return exportedNames(source).filter((name) =>
    (name.match(/[A-Z]?[a-z0-9]+|[A-Z0-9]+(?![a-z])/g) ?? []).some((word) =>
      BANNED_WORDS.test(word.toLowerCase()),
    ),
  );
}

/** `object.name` as written, for calls and values alike. */
function isMember(node: ts.Node, object: string, name: string): boolean {
  if (!ts.isPropertyAccessExpression(node) || node.name.text !== name) return false;
  return ts.isIdentifier(node.expression) && node.expression.text === object;
}

const WORLD = new Set(
  `process performance setTimeout setInterval setImmediate queueMicrotask fetch crypto console globalThis
  require WebSocket Worker`.split(/\s+/),
);

function worldly(node: ts.Node): string | undefined {
  if (ts.isAwaitExpression(node) || (ts.isForOfStatement(node) && node.awaitModifier !== undefined))
    return 'await';
  if (node.kind === ts.SyntaxKind.AsyncKeyword) return 'async';
  if (isMember(node, 'Date', 'now')) return 'Date.now';
  if (isMember(node, 'Math', 'random')) return 'Math.random';
  const bare = (ts.isNewExpression(node) && (node.arguments?.length ?? 0) === 0) || ts.isCallExpression(node);
  if (bare && ts.isIdentifier(node.expression) && node.expression.text === 'Date') return 'the present date';
  if (!ts.isIdentifier(node) || !WORLD.has(node.text)) return undefined;
  const { parent } = node;
  const member = ts.isPropertyAccessExpression(parent) && parent.name === node;
  return member || ts.isQualifiedName(parent) ? undefined : node.text;
}

/** What makes core depend on more than its arguments. */
function impurities(source: Source): string[] {
  const found: string[] = [];
  for (const node of nodesBelow(source.tree)) {
    const what = worldly(node);
    if (what !== undefined) found.push(`${at(source, node)} uses ${what}`);
  }
  return found;
}

// ----- the checkers, on snippets -----

type Check = (source: Source) => string[];

/** How many faults a checker finds in each snippet. */
function faults(check: Check, snippets: readonly string[], path = 'core/a.ts'): number[] {
  return parse(snippets.map((text) => [path, text])).map((source) => check(source).length);
}

const ones = (things: readonly unknown[]) => things.map(() => 1);
const zeros = (things: readonly unknown[]) => things.map(() => 0);

describe("tidy's checks", () => {
  it('find every way to import', () => {
    const ways = [
      "import 'node:fs';",
      "import fs from 'node:fs';",
      "import * as fs from 'node:fs';",
      "import { readFileSync } from 'node:fs';",
      "import type { Stats } from 'node:fs';",
      "export * from 'node:fs';",
      "const fs = await import('node:fs');",
      'const fs = await import(`node:fs`);',
      'const fs = await import(name);',
      "type Fs = typeof import('node:fs');",
      "const fs = require('node:fs');",
      "const fs = createRequire(import.meta.url)('node:fs');",
    ];
    assert.deepEqual(faults(forbiddenImports, ways), ones(ways));
    assert.deepEqual(faults(forbiddenImports, ['// import "node:fs";\nconst a = `import "node:fs"`;']), [0]);
  });

  it('report exactly the imports that the table does not allow', () => {
    const sources = (pairs: string) =>
      parse(
        pairs.split(',').map((pair) => {
          const [from = '', to = ''] = pair.trim().split(/\s+/);
          return [from, `import '${to}';`] as const;
        }),
      );
    const refused = sources(`
      gen/a.ts ../core/path.ts, core/a.ts ../host/disk.ts, core/a.ts level, core/a.ts node:timers/promises,
      host/a.ts ../core/path.ts, host/a.ts ../agent/main.ts, host/a.ts fast-check,
      agent/a.ts ../controller/main.ts, agent/a.ts ../cli/print.ts, controller/a.ts ../agent/main.ts,
      cli/a.ts ../agent/service.ts, cli/a.ts ../agent/up.ts, cli/a.ts ../core/path.ts, cli/a.ts level,
      demo/a.ts ../agent/store/store.ts, cli/commands/demo.ts ../../demo/story.ts, nowhere/a.ts node:fs`);
    for (const one of refused) assert.equal(forbiddenImports(one).length, 1, one.tree.text);
    const allowed = sources(`
      gen/a.ts @bufbuild/protobuf/wkt, core/a.ts ./path.ts, host/a.ts @connectrpc/connect-node,
      host/b.ts ../gen/lightkeeper/v1/types_pb.ts,
      agent/store/a.ts ../../core/path.ts, agent/a.ts node:fs, demo/a.ts ../core/errors.ts,
      cli/commands/a.ts ../../agent/main.ts`);
    for (const one of allowed) assert.deepEqual(forbiddenImports(one), []);
    const story = ["await import('../../demo/story.ts');"];
    assert.deepEqual(faults(forbiddenImports, story, 'cli/commands/demo.ts'), [0]);
    assert.deepEqual(faults(forbiddenImports, story, 'cli/commands/up.ts'), [1]);
  });

  it('let core hash and inflate but not draw random numbers', () => {
    const bad = [
      "import { randomBytes } from 'node:crypto';",
      "import { gunzip } from 'node:zlib';",
      "import crypto from 'node:crypto';",
      "import * as zlib from 'node:zlib';",
    ];
    assert.deepEqual(faults(forbiddenImports, bad), ones(bad));
    const good = [
      "import { createHash } from 'node:crypto';",
      "import { inflateSync as i } from 'node:zlib';",
    ];
    assert.deepEqual(faults(forbiddenImports, good), zeros(good));
  });

  it('find imports that do not lead to a lower floor', () => {
    const pairs = [
      ['agent/graph/a.ts', "const a = () => import('../api/b.ts');", 1],
      ['agent/capture/a.ts', "import type { B } from '../grade/b.ts';", 1],
      ['agent/run/a.ts', "import '../main.ts';", 1],
      ['agent/store/index/a.ts', "import '../store.ts'; import '../../pack/b.ts';", 0],
      ['agent/main.ts', "import './run/a.ts'; import '../core/a.ts';", 0],
    ] as const;
    for (const [path, text, count] of pairs)
      assert.deepEqual(faults(upwardImports, [text], path), [count], `${path}: ${text}`);
  });

  it('find exported names with a banned word', () => {
    const bad = [
      'export function lookAt() {}',
      'export const A = 1, KEEP_ALL = 2;',
      'export class FileNotes {}',
      'export interface Stretch {}',
      "export { a as atHand } from './b.ts';",
      'export type OneMoment = 1;',
      'export enum Told {}',
    ];
    assert.deepEqual(faults(bannedNames, bad), ones(bad));
    const good = ['function lookAt() {}', 'export class Handler { keep() {} }', 'export const notebook = 1;'];
    assert.deepEqual(faults(bannedNames, good), zeros(good));
  });

  it('find empty names', () => {
    const files = ['core/utils.ts', 'core/common/a.ts', 'agent/pathHelper.ts', 'host/packManager.ts'];
    for (const file of files) assert.deepEqual(faults(emptyNames, [''], file), [1], file);
    const bad = ['class StoreManager {}', 'interface PathHelper {}', 'const A = class Utils {};'];
    assert.deepEqual(faults(emptyNames, bad), ones(bad));
    assert.deepEqual(faults(emptyNames, ["import { AManager } from 'a';\nclass Store {}"]), [0]);
  });

  it('find what core may not depend on', () => {
    const bad = [
      'const a = Date.now();',
      'const now = Date.now;',
      'const a = new Date();',
      'const a = new Date;',
      'const a = Math.random();',
      'const a = process.env.HOME;',
      'setTimeout(f, 1);',
      'const a = performance.now();',
      'const a = crypto.randomUUID();',
      'async function f() {}',
      'await f();',
      'for await (const a of b) f(a);',
    ];
    assert.deepEqual(faults(impurities, bad), ones(bad));
    const good = ['const a = new Date(ms);', 'd.process(e);', 'type F = NodeJS.ErrnoException; // await'];
    assert.deepEqual(faults(impurities, good), zeros(good));
  });
});

// ----- the repository -----

const shipped = parse(textsOf(SHIPPED));
const generated = parse(textsOf(['gen']));
const written = [...shipped, ...parse(textsOf(['test', 'bench']))];
const everywhere = (check: Check, sources: readonly Source[]) =>
  assert.deepEqual(
    sources.flatMap((source) => check(source)),
    [],
  );

/** Violations that were there when the rule was made. The lists are exact, so that they can only shrink. */
const PRESENT_VIOLATIONS = {
  /** Imports that run upwards between the rooms of agent/. */
  floors: `
`,
  /** Exported names with a banned word. */
  names: `
`,
};

/** Asserts that what is found is what a list of present violations says, a line each. */
function assertPresent(found: readonly string[], list: string): void {
  const listed = list.split('\n').filter((line) => line !== '');
  assert.deepEqual([...new Set(found)].sort(), listed.sort());
}

interface Locked {
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

describe('the repository', () => {
  it('is covered by the checks', () => {
    const folders = new Set([...generated, ...shipped].map(({ path }) => path.split('/')[0] ?? ''));
    for (const folder of ['gen', 'core', 'host', 'agent', 'cli', 'demo'])
      assert.equal(folders.has(folder), true, folder);
  });

  for (const folder of ['gen', ...SHIPPED]) {
    it(`imports in ${folder} only what the table allows`, () => {
      const sources = [...generated, ...shipped].filter(({ path }) => path.startsWith(`${folder}/`));
      everywhere(forbiddenImports, sources);
    });
  }

  it('imports in agent/ only from lower floors', () => {
    assertPresent(shipped.flatMap(upwardImports), PRESENT_VIOLATIONS.floors);
  });

  it('has no file in agent/ outside a room', () => {
    const paths = shipped.map(({ path }) => path).filter((path) => path.startsWith('agent/'));
    assert.deepEqual(
      paths.filter((path) => floorOf(path) === -1),
      [],
    );
  });

  it('exports no name with a banned word', () => {
    assertPresent(shipped.flatMap(bannedNames), PRESENT_VIOLATIONS.names);
  });

  it('locks every package that one of its packages may need on some system', () => {
    // npm leaves out what its registry does not hold, and then refuses its own lock file elsewhere.
    const lock = readFileSync(join(ROOT, 'package-lock.json'), 'utf8');
    const { packages } = JSON.parse(lock) as { packages: Record<string, Locked> };
    const names = new Set(Object.keys(packages).map((place) => place.split('node_modules/').at(-1)));
    const wanted = Object.values(packages).flatMap((one) => Object.keys(one.optionalDependencies ?? {}));
    assert.deepEqual(
      wanted.filter((name) => !names.has(name)),
      [],
    );
    assert.equal(wanted.length > 0, true);
  });

  it('has no unused exception to the table', () => {
    const real = new Set(shipped.flatMap(importsOf).map(({ from, to }) => `${from} -> ${to}`));
    assert.deepEqual(
      [...BESIDE_TABLE].filter((exception) => !real.has(exception)),
      [],
    );
  });

  it('has no file or class that is named utils, common, Manager or Helper', () =>
    everywhere(emptyNames, written));
  it('has a core that depends only on its arguments', () =>
    everywhere(
      impurities,
      shipped.filter(({ path }) => path.startsWith('core/')),
    ));
});
