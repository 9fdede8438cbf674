import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it, type TestContext } from 'node:test';
import { Store } from '../../../../agent/store/store.ts';
import { Case } from '../../../support/case.ts';
import { fillGraph } from '../../../support/fill.ts';
import { tempFolder } from '../../../support/place.ts';

const GRAPH = 'data';
/** Only the index has this: it is gone once the index has been made again. */
const CONFIRMED_MS = 1_234_567;

interface Sealed {
  readonly subject: Case;
  readonly index: string;
  /** The files that LevelDB reads. */
  readonly files: readonly string[];
}

/** Makes a store with a snapshot, closed well. */
async function makeSealed(place: string): Promise<Case> {
  const subject = new Case(join(place, 'data'), join(place, 'store'));
  fillGraph(subject.dir);
  await subject.snapshot();
  const store = await Store.open(subject.store);
  const batch = store.index.batch();
  store.index.local.putConfirmedAt(batch, GRAPH, CONFIRMED_MS);
  await batch.write();
  await store.close();
  return subject;
}

const folder = mkdtempSync(join(tmpdir(), 'lightkeeper-seal-'));
after(() => rmSync(folder, { recursive: true }));
const original = await makeSealed(folder);

/** Returns a copy of a store with a snapshot, closed well. */
async function sealed(t: TestContext): Promise<Sealed> {
  const place = await tempFolder(t);
  const subject = new Case(join(place, 'data'), join(place, 'store'));
  // The seal knows files by their times to the nanosecond.
  execFileSync('cp', ['-a', original.dir, original.store, place]);
  const index = join(subject.store, 'index');
  const files = readdirSync(index).filter((name) => /\.log$|\.ldb$|MANIFEST|CURRENT/.test(name));
  assert.equal(files.length >= 3, true, files.join(' '));
  return { subject, index, files };
}

/** Whether the index is the one that was there; the store must be sound either way. */
async function isKept({ subject }: Sealed): Promise<boolean> {
  const store = await Store.open(subject.store);
  const confirmed = await store.index.local.confirmedAt(GRAPH);
  await store.close();
  assert.equal(await subject.assertSound(), 1);
  return confirmed === CONFIRMED_MS;
}

describe('the seal of an index', () => {
  it('accepts an index that was closed well and not touched', async (t) => {
    const one = await sealed(t);
    assert.equal(await isKept(one), true);
    assert.equal(await isKept(one), true);
  });

  it('rejects an index with a file cut, zeroed or removed', async (t) => {
    const ways: readonly ((path: string) => void)[] = [
      (path) => rmSync(path),
      (path) => writeFileSync(path, readFileSync(path).subarray(0, -1)),
      (path) => writeFileSync(path, Buffer.alloc(readFileSync(path).length)),
    ];
    for (const [i, damage] of ways.entries()) {
      const { files } = await sealed(t);
      for (const which of files.keys()) {
        const one = await sealed(t);
        damage(join(one.index, one.files[which] as string));
        assert.equal(await isKept(one), false, `${i}: ${one.files[which]}`);
        assert.equal(await isKept(one), false);
      }
    }
  });

  it('accepts an index after one crash, not after several in a row', async (t) => {
    const one = await sealed(t);
    const seal = join(one.index, 'SEAL');
    writeFileSync(seal, '{"deaths":1}');
    assert.equal(await isKept(one), true);
    writeFileSync(seal, '{"deaths":2}');
    assert.equal(await isKept(one), false);
  });

  it('that is missing, cut or malformed does not reject the index', async (t) => {
    for (const text of [undefined, '', '{"deaths":', '[]', '{"deaths":"x"}', '{"deaths":0,"files":[3]}']) {
      const one = await sealed(t);
      const seal = join(one.index, 'SEAL');
      if (text === undefined) rmSync(seal);
      else writeFileSync(seal, text);
      assert.equal(await isKept(one), true, text);
    }
  });

  it('accepts a copy whose times are not exact to the nanosecond', async (t) => {
    const one = await sealed(t);
    const aside = `${one.index}-aside`;
    cpSync(one.index, aside, { recursive: true, preserveTimestamps: true });
    rmSync(one.index, { recursive: true });
    cpSync(aside, one.index, { recursive: true, preserveTimestamps: true });
    rmSync(aside, { recursive: true });
    assert.equal(await isKept(one), true);
  });
});
