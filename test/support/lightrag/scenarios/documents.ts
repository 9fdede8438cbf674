// Inserts, duplicates, uploads and scans.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Scenario, World } from '../world.ts';
import { ALICE, BOB, paragraphs } from './texts.ts';

async function uploads(
  world: World,
  files: readonly (readonly [name: string, content: string | Uint8Array<ArrayBuffer>])[],
): Promise<void> {
  for (const [name, content] of files)
    await world.do(`upload ${name.slice(0, 20)}`, world.api.upload(name, content));
}

export const DOCUMENTS: readonly Scenario[] = [
  { name: 'empty-start', run: async () => {} },
  { name: 'one-small', run: async (world) => void (await world.insert(ALICE, 'alice.txt')) },
  {
    name: 'no-file-source',
    run: async (world) => {
      await world.insert(ALICE);
      await world.insert(BOB, '');
    },
  },
  {
    name: 'tiny',
    run: async (world) => {
      await world.insert('Hi.', 'hi.txt');
      await world.insert('x', 'x.txt');
    },
  },
  {
    name: 'nothing-to-extract',
    run: async (world) =>
      void (await world.insert('nothing is named here, all is lower case and dull.', 'dull.txt')),
  },
  {
    name: 'blank-text',
    run: async (world) => {
      await world.insert(ALICE, 'alice.txt');
      for (const text of ['', ' ', '\n\n', '\u200b', '\u0000'])
        await world.say(JSON.stringify(text), world.api.insert(text, 'blank.txt'));
    },
  },
  {
    name: 'several-texts',
    run: async (world) =>
      void (await world.do(
        'texts',
        world.api.insertAll([ALICE, BOB, paragraphs(4)], ['a.txt', 'b.txt', 'c.txt']),
      )),
  },
  {
    name: 'texts-fewer-sources',
    run: async (world) => {
      await world.do('one source', world.api.insertAll([ALICE, BOB], ['only-one.txt']));
      await world.do('no source', world.api.insertAll([`${ALICE} More.`, `${BOB} More.`]));
    },
  },
  { name: 'large', run: async (world) => void (await world.insert(paragraphs(160), 'large.txt')) },
  {
    name: 'many-entities-long',
    run: async (world) => void (await world.insert('@@MANY:120@@ @@LONGDESC:4000@@ a series', 'many.txt')),
  },
  {
    name: 'same-document-twice',
    run: async (world) => {
      await world.insert(ALICE, 'alice.txt');
      await world.insert(ALICE, 'alice.txt');
      await world.insert(ALICE, 'alice-again.txt');
      await world.insert(BOB, 'alice.txt');
    },
  },
  {
    name: 'same-chunk-two-documents',
    run: async (world) => {
      const shared = paragraphs(2, 'Shared');
      await world.insert(shared, 'p1.txt');
      await world.insert(`${shared} `, 'p2.txt');
      await world.insert(`${shared}\n\nDaniel Defoe saw Friday.`, 'p3.txt');
    },
  },
  {
    name: 'upload-kinds',
    run: (world) =>
      uploads(world, [
        ['a.txt', ALICE],
        ['b.md', `# Title\n\n${BOB}`],
        ['c.json', JSON.stringify({ text: `${ALICE} Json Person.` })],
        ['d.csv', 'name,city\nErika Mann,Munich\nKlaus Mann,Paris\n'],
        ['e.html', '<p>Franz Kafka lived in Prague.</p>'],
        ['名前 with spaces & 🎉.txt', 'Unicode Filename Person met Emoji Person.'],
        ['f.py', 'class Hello: pass\n# Guido Rossum wrote Python'],
      ]),
  },
  {
    name: 'upload-duplicates',
    run: (world) =>
      uploads(world, [
        ['a.txt', ALICE],
        ['a.txt', ALICE],
        ['a.txt', BOB],
        ['other.txt', ALICE],
      ]),
  },
  {
    name: 'upload-bad',
    run: async (world) => {
      await world.insert(ALICE, 'alice.txt');
      await uploads(world, [
        ['empty.txt', ''],
        ['spaces.txt', '   \n '],
        ['latin1.txt', new Uint8Array([0x41, 0xe9, 0xff, 0xfe, 0x20, 0x42])],
        ['nul.txt', 'Nul Person\u0000met Other Person.'],
        ['bom.txt', '\ufeffBom Person met Utf Person.'],
        ['broken.pdf', 'not a pdf'],
        ['broken.docx', 'PK not a docx'],
        ['odd.xyz', 'unknown kind'],
        ['../up.txt', 'Path Traversal Person met Root.'],
        [`${'n'.repeat(200)}.txt`, 'Long Name Person met Short Name.'],
      ]);
    },
  },
  {
    name: 'scan',
    run: async (world) => {
      const write = (name: string, text: string) => writeFileSync(join(world.inputs, name), text);
      write('s1.txt', ALICE);
      write('s2.md', BOB);
      write('s3.txt', '');
      await world.do('scan', world.api.scan());
      await world.do('scan again', world.api.scan());
      write('s1.txt', `${ALICE} Changed Person.`);
      await world.do('scan of a changed file', world.api.scan());
    },
  },
];
