// Damaged files, each judged by LightRAG's own storages and by `validate`.
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { random } from '../../../demo/random.ts';
import { damagesOf } from '../../support/lightrag/damages.ts';
import { FakeOpenAi } from '../../support/lightrag/fake-openai.ts';
import { codesOf, type Judged, validate } from '../../support/lightrag/grading.ts';
import { Judge, type Verdict, verdictText } from '../../support/lightrag/judge.ts';
import { ALICE, BOB, paragraphs } from '../../support/lightrag/scenarios/texts.ts';
import { LightRagServer, ServerRefused } from '../../support/lightrag/server.ts';
import { World } from '../../support/lightrag/world.ts';
import { type Scope, tempFolder } from '../../support/place.ts';
import { inParallel, withScope } from '../../support/scope.ts';
import type { Part } from './part.ts';

/** How many verdicts are compared with those of a server process. */
const COMPARED = 12;
const FILES_NAMED = 3;
/** A vector that is no number is never found, and nothing else suffers. */
const BAD_ROWS = /^a row of (?:NaN|infinities|zeros)$/;
/** What a server needs to delete a document, and nothing else. */
const NAME_FILES = /^kv_store_full_(?:entities|relations)\.json/;
const OLDER = 'an older state';
/**
 * Files that are older together with the one that promises what they lost: nothing in the directory tells that from a
 * state that a server left. Only the point before knows.
 */
const ALONE_UNSEEN = new Set([
  'kv_store_doc_status.json kv_store_full_docs.json',
  'kv_store_doc_status.json kv_store_full_entities.json',
  'kv_store_full_entities.json vdb_entities.json',
  'kv_store_full_relations.json vdb_relationships.json',
]);

/** Kinds of damage that a grade and a server judge differently, with the reason. */
const KNOWN_DIFFERENCES: ReadonlyMap<string, string> = new Map([
  ['a document type', 'it could define entities; no version writes one'],
  ['two rows with one __id__ (vdb_entities.json)', 'searches find both rows by their names; a warning'],
  ['two rows with one __id__ (vdb_relationships.json)', 'searches find both rows by their names; a warning'],
]);

/** Returns why a difference between grade and server is accepted; undefined if it is none of those. */
function reasonOf({ kind, files }: DamageCase): string | undefined {
  return KNOWN_DIFFERENCES.get(kind) ?? KNOWN_DIFFERENCES.get(`${kind} (${files.join(' ')})`);
}

/** Files of one directory, and what they are instead of what they were. */
interface DamageCase {
  readonly kind: string;
  readonly files: readonly string[];
  /** New contents; undefined: the file is gone. */
  readonly contents: ReadonlyMap<string, Buffer | undefined>;
}

interface Outcome {
  readonly damage: DamageCase;
  readonly verdict: Verdict;
  readonly judged: Judged;
}

/** Two states of one directory. */
interface Base {
  readonly whole: string;
  readonly older: string;
}

/** Makes a directory by a server, in two states. */
async function makeBase(scope: Scope, part: Part): Promise<Base> {
  const root = await tempFolder(scope);
  const world = await World.make({ scope, installed: part.installed, root, onState: async () => {} });
  const [whole, older] = [join(root, 'whole'), join(root, 'older')];
  await world.start();
  await world.insert(ALICE, 'alice.txt');
  await world.insert(paragraphs(6), 'book.txt');
  await world.say('entity', world.api.createEntity('Hand Made', { description: 'by hand' }));
  await world.settle();
  cpSync(world.dir, older, { recursive: true });
  await world.insert(BOB, 'bob.txt');
  await world.insert(paragraphs(4, 'Another'), 'another.txt');
  const relation = { description: 'by hand', keywords: 'hand' };
  await world.do('relation', world.api.createRelation('Hand Made', 'Alice Johnson', relation));
  await world.stop();
  cpSync(world.dir, whole, { recursive: true });
  return { whole, older };
}

/** Returns every kind of damage of every file, then each file, and each two, of the older state among the others. */
function casesOf({ whole, older }: Base): DamageCase[] {
  const names = readdirSync(whole).sort();
  const cases: DamageCase[] = [];
  const add = (kind: string, files: readonly string[], of: (name: string) => Buffer | undefined) => {
    const contents = new Map(files.map((name) => [name, of(name)]));
    const isSame = ([name, bytes]: [string, Buffer | undefined]) =>
      bytes?.equals(readFileSync(join(whole, name))) === true;
    if (![...contents].every(isSame)) cases.push({ kind, files, contents });
  };
  for (const name of names) {
    const bytes = readFileSync(join(whole, name));
    for (const [kind, damage] of Object.entries(damagesOf(name))) add(kind, [name], () => damage(bytes));
  }
  const olderNames = names.filter((name) => existsSync(join(older, name)));
  const ofOlder = (name: string) => readFileSync(join(older, name));
  for (const [i, name] of olderNames.entries()) {
    add(OLDER, [name], ofOlder);
    for (const other of olderNames.slice(i + 1)) add(`${OLDER} of two`, [name, other], ofOlder);
  }
  return cases;
}

function writeCase(base: Base, { contents }: DamageCase, dir: string): void {
  rmSync(dir, { recursive: true, force: true });
  cpSync(base.whole, dir, { recursive: true });
  for (const [name, bytes] of contents) {
    if (bytes === undefined) rmSync(join(dir, name));
    else writeFileSync(join(dir, name), bytes);
  }
}

/** Returns what of a verdict counts: an older vector of the same name was merged from less, and is none that is lost. */
function counted({ kind }: DamageCase, verdict: Verdict): Verdict {
  if (!kind.startsWith(OLDER)) return verdict;
  return { ...verdict, lost: (verdict.lost ?? []).filter((what) => !what.endsWith(': another vector')) };
}

function isHarm({ kind, files }: DamageCase, { refused, broken = [], lost = [] }: Verdict): boolean {
  if (refused !== undefined) return true;
  const isNamed = files.some((name) => NAME_FILES.test(name));
  const failing = broken.filter((why) => !(isNamed && why.startsWith('delete:')));
  return failing.length > 0 || (lost.length > 0 && !BAD_ROWS.test(kind));
}

function failureOf({ damage, verdict, judged }: Outcome): string | undefined {
  const isInvalid = judged.grade === 'INVALID';
  if (isHarm(damage, verdict) === isInvalid) return undefined;
  if (damage.kind.startsWith(OLDER) && ALONE_UNSEEN.has(damage.files.join(' '))) return undefined;
  if (reasonOf(damage) !== undefined) return undefined;
  const what = `${damage.files.join(', ')}: ${damage.kind}`;
  return `${what}: the server ${verdictText(verdict)}, but ${judged.grade} ${codesOf(judged)}`;
}

/** Returns a line for each kind of damage, verdict and grade. */
function table(outcomes: readonly Outcome[]): string[] {
  const lines = new Map<string, string[]>();
  for (const { damage, verdict, judged } of outcomes) {
    const [word = ''] = verdictText(verdict).split(/[: ]/);
    const codes = judged.findings.filter(({ severity }) => severity === 'ERROR').map(({ code }) => code);
    const because = [...new Set(codes)].sort().join(' ');
    const line = `${damage.kind.padEnd(44)} ${word.padEnd(9)} ${judged.grade.padEnd(9)} ${because}`;
    lines.set(line, [...(lines.get(line) ?? []), damage.files.join('+')]);
  }
  return [...lines].map(([line, files]) => {
    const short = files.map((name) => name.replace(/kv_store_|\.json|_chunk_entity_relation\.graphml/g, ''));
    return `${line.trimEnd()} (${files.length > FILES_NAMED ? `${files.length} files` : short.join(', ')})`;
  });
}

/** Asks a real server: whether it starts, and how many documents and names it lists. */
async function serverText(scope: Scope, part: Part, dir: string): Promise<string> {
  const root = await tempFolder(scope);
  cpSync(dir, join(root, 'rag'), { recursive: true });
  const fake = await FakeOpenAi.start(scope);
  const place = { installed: part.installed, fake, dir: join(root, 'rag'), beside: join(root, 'beside') };
  try {
    const server = await LightRagServer.start(scope, place);
    const listed = await server.api.documents().catch(() => undefined);
    await server.stop();
    return listed === undefined ? 'fails' : 'starts';
  } catch (error) {
    if (error instanceof ServerRefused) return 'refuses';
    throw error;
  }
}

/** Compares some verdicts with what a server process does. */
async function compare(
  scope: Scope,
  part: Part,
  base: Base,
  outcomes: readonly Outcome[],
): Promise<string[]> {
  const draw = random(part.seed);
  const failures: string[] = [];
  const root = await tempFolder(scope);
  for (let i = 0; i < Math.min(COMPARED, outcomes.length); i++) {
    const outcome = outcomes[draw(outcomes.length)];
    if (outcome === undefined) continue;
    const dir = join(root, 'rag');
    writeCase(base, outcome.damage, dir);
    const said = await serverText(scope, part, dir);
    const { refused, broken = [] } = outcome.verdict;
    const isListed = !broken.some((why) => why.startsWith('documents:'));
    const expected = refused !== undefined ? 'refuses' : isListed ? 'starts' : 'fails';
    const what = `${outcome.damage.files.join(', ')}: ${outcome.damage.kind}`;
    if (said !== expected)
      failures.push(`${what}: a server ${said}, the judge: ${verdictText(outcome.verdict)}`);
  }
  part.log(
    `${Math.min(COMPARED, outcomes.length)} verdicts compared with a server process: ${failures.length} differ`,
  );
  return failures;
}

/** Judges all damaged directories of a version, prints a table, and returns what does not hold. */
export async function proveDamage(part: Part): Promise<string[]> {
  return await withScope(async (scope) => {
    const base = await makeBase(scope, part);
    const all = casesOf(base).filter(({ kind, files }) => part.only.test(`${files.join(',')} ${kind}`));
    const cases = all.slice(0, part.count ?? all.length);
    const outcomes: Outcome[] = [];
    const root = await tempFolder(scope);
    const fake = await FakeOpenAi.start(scope);
    const judges = Array.from({ length: part.jobs }, (_, i) => {
      const beside = join(root, `beside-${i}`);
      return {
        judge: new Judge(scope, { installed: part.installed, fake, beside }),
        dir: join(root, `rag-${i}`),
      };
    });
    const numbered = cases.map((damage, i) => ({ damage, i }));
    await inParallel(numbered, part.jobs, async ({ damage, i }) => {
      const free = judges.pop();
      if (free === undefined) throw new Error('more jobs than judges');
      writeCase(base, damage, free.dir);
      const verdict = counted(damage, await free.judge.judge(free.dir, base.whole, { writes: true }));
      outcomes[i] = { damage, verdict, judged: await validate(free.dir, { isStopped: true }) };
      if (part.saved !== undefined && failureOf(outcomes[i]) !== undefined) {
        const place = join(part.saved, part.installed.version, 'damage', `${i}`);
        mkdirSync(place, { recursive: true });
        cpSync(free.dir, place, { recursive: true });
      }
      judges.push(free);
    });
    for (const line of table(outcomes)) part.log(line);
    for (const { damage, verdict, judged } of outcomes) {
      const reason = reasonOf(damage);
      if (reason === undefined || isHarm(damage, verdict) === (judged.grade === 'INVALID')) continue;
      const what = `${damage.files.join(', ')}: ${damage.kind}`;
      part.log(
        `known difference: ${what}: the server ${verdictText(verdict)}, but ${judged.grade}: ${reason}`,
      );
    }
    const failures = outcomes.map(failureOf).filter((failure) => failure !== undefined);
    part.log(
      `${outcomes.length} damaged directories: ${failures.length} judged otherwise than by the server`,
    );
    return [...failures, ...(await compare(scope, part, base, outcomes))];
  });
}
