// Writes the licences of the packages whose code is in the bundle.
import { readdir, readFile } from 'node:fs/promises';

const LICENCE_FILE = /^(?:licen[cs]e|notice|copying)/i;
const COMMENTS = /\/\*[\s\S]*?\*\/|(?:^[ \t]*\/\/.*(?:\r?\n|$))+/gm;
const RULE = `\n${'-'.repeat(80)}\n\n`;

/** Folder of the package that a file of the bundle comes from, or undefined for a file of this repository. */
function packageOf(path) {
  return /^.*node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(path)?.[0];
}

/** Comment without its marks. */
function plain(comment) {
  return comment.replace(/^[ \t]*(?:\/\*+|\*+\/|\*(?!\/)|\/\/) ?|\*\/\s*$/gm, '').trim();
}

/** Copyright notices in the comments of some files, each once. */
async function copyrightsIn(files) {
  const found = new Set();
  for (const file of files) {
    const comments = (await readFile(file, 'utf8')).match(COMMENTS) ?? [];
    for (const comment of comments) if (/copyright/i.test(comment)) found.add(plain(comment));
  }
  return [...found];
}

async function noticeOf(folder, files) {
  const { name, version, license } = JSON.parse(await readFile(`${folder}/package.json`, 'utf8'));
  const names = (await readdir(folder)).filter((file) => LICENCE_FILE.test(file)).sort();
  const texts = [];
  for (const file of names) texts.push((await readFile(`${folder}/${file}`, 'utf8')).trim());
  if (texts.length === 0) {
    // Some packages state their licence only above their code, and Apache-2.0 only by its name.
    texts.push(...(await copyrightsIn(files)));
    if (/\bApache-2\.0\b/.test(license)) texts.push((await readFile('LICENSE', 'utf8')).trim());
  }
  if (texts.length === 0) throw new Error(`Cannot bundle "${name}": it has no licence text`);
  return { name, text: `${name} ${version}\nLicence: ${license}\n\n${texts.join('\n\n')}\n` };
}

/** Returns the notices of the packages in the outputs of an esbuild metafile. */
export async function thirdPartyNotices({ outputs }) {
  const files = new Map();
  for (const { inputs } of Object.values(outputs)) {
    for (const [path, { bytesInOutput }] of Object.entries(inputs)) {
      const folder = packageOf(path);
      if (folder === undefined || bytesInOutput === 0) continue;
      files.set(folder, (files.get(folder) ?? new Set()).add(path));
    }
  }
  const notices = await Promise.all([...files].map(([folder, paths]) => noticeOf(folder, paths)));
  notices.sort((a, b) => (a.name < b.name ? -1 : 1));
  const head = 'The files in dist contain code of these packages:\n\n';
  const list = notices.map(({ text }) => `- ${text.slice(0, text.indexOf('\n'))}\n`).join('');
  return [head + list, ...notices.map(({ text }) => text)].join(RULE);
}
