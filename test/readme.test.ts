import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { generate } from '../demo/generate.ts';
import { tempFolder } from './support/place.ts';
import { Agent, lightkeeper, outcomeText } from './support/program.ts';

const ROOT = join(import.meta.dirname, '..');
const README = readFileSync(join(ROOT, 'README.md'), 'utf8');

/** The text of the fenced blocks of a kind. */
function blocks(kind: string): string[] {
  return [...README.matchAll(new RegExp(`\`\`\`${kind}\\n([\\s\\S]*?)\`\`\``, 'g'))].map(
    ([, text]) => text ?? '',
  );
}

test('README: every npx lightkeeper line works beside a running up', async (t) => {
  const place = await tempFolder(t);
  const dir = join(place, 'rag_storage');
  await generate(dir, { seed: 1, documents: 4, dimension: 8 });
  const env = { XDG_RUNTIME_DIR: place, LIGHTKEEPER_STATE: join(place, 'state') };
  const agent = new Agent(t, ['--dir', dir], { env });
  await agent.point(1);
  const lines = blocks('sh')
    .flatMap((block) => block.split('\n'))
    .filter((line) => line.startsWith('npx lightkeeper '));
  assert.ok(lines.length >= 5, 'the README shows commands');
  for (const line of lines) {
    const words = line.replaceAll('/data/', `${place}/`).split(' ').slice(2);
    const ended = await lightkeeper(words, { env });
    assert.equal(ended.code, 0, `${line}\n${outcomeText(ended)}`);
  }
  assert.equal((await agent.stop()).code, 0);
});

test('README: the demo prints what is shown, figures apart', async () => {
  const ended = await lightkeeper(['demo']);
  assert.equal(ended.code, 0, outcomeText(ended));
  const shape = (line: string) =>
    line
      .replace(/[0-9a-f]{12,64}/g, '#')
      .replace(/[0-9]+(?:\.[0-9]+)?/g, '#')
      .replace(/# (?:B|kB|MB|GB|ms|s|min)\b/g, '#')
      .replace(/\s+/g, ' ');
  const printed = new Set(ended.stdout.split('\n').map(shape));
  const [, shown = ''] = /```\n(1\. An instance[\s\S]*?)```/.exec(README) ?? [];
  const lines = shown.split('\n').filter((line) => line.trim() !== '' && !line.includes('…'));
  assert.ok(lines.length >= 10);
  for (const line of lines)
    assert.ok(printed.has(shape(line)), `the demo does not print: ${line}\n${ended.stdout}`);
});

test('README: every npm script named exists', () => {
  const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>;
  };
  const named = [...README.matchAll(/npm (?:run )?([a-z]+)/g)]
    .map(([, name]) => name ?? '')
    .filter((name) => name !== 'ci');
  assert.ok(named.length > 0);
  for (const name of named) assert.ok(name in scripts, name);
});

test('README: every linked document exists', () => {
  for (const [, path] of README.matchAll(/\]\((docs\/[^)]+)\)/g)) {
    assert.ok(existsSync(join(ROOT, path ?? '')), path);
  }
});
