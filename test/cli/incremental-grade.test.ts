import assert from 'node:assert/strict';
import { cpSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { deleteDocument, generate, growCache, ingest } from '../../demo/generate.ts';
import { type Json, listOf, oneDocument, Place, suite } from '../support/cli-place.ts';

const ENTITIES = 'vdb_entities.json';

async function looked(place: Place, words: readonly string[]): Promise<Json> {
  const answer = oneDocument(await place.run([...words, '--dir', place.dir, '--json']));
  const findings = listOf(answer, 'findings').map(({ code, object, count }) => [code, object, count]);
  return { stats: answer.stats, findings };
}

/** The data packs of a store, the newest first. */
function packsOf(store: string): string[] {
  const packs = readdirSync(join(store, 'packs'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.pack'))
    .map((name) => join(store, 'packs', name));
  return packs.sort(
    (a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs || statSync(b).size - statSync(a).size,
  );
}

const made = new Place();
const madeState = await generate(made.dir, { seed: 3, documents: 160, dimension: 384 });

/** Returns a place with a copy of one large graph. */
function largeGraph(): Place {
  const place = new Place();
  cpSync(made.dir, place.dir, { recursive: true, preserveTimestamps: true });
  return place;
}

suite('an incremental grade', () => {
  it('works although the snapshot before is damaged', async () => {
    const place = largeGraph();
    let state = madeState;
    await place.snapshot();
    state = await ingest(place.dir, state, 1);
    const first = new Set(packsOf(place.store));
    await place.snapshot();
    for (const pack of packsOf(place.store))
      if (!first.has(pack) && statSync(pack).size > 100_000) rmSync(pack);
    await place.json(['verify', '--level', 'bytes'], 3);
    await ingest(place.dir, state, 1);
    const { grade, findings } = await place.snapshot();
    assert.deepEqual([grade, findings], ['VALID', []]);
  });

  it('equals a grade of a full read', async () => {
    const place = largeGraph();
    let state = madeState;
    // What is held against the point before is not what one directory tells.
    const agrees = async (what: string, ...also: readonly string[]) => {
      const graded = await looked(place, ['snapshot', '--store', place.store]);
      const whole = await looked(place, ['validate']);
      const known = (graded.findings as unknown[][]).filter(([code]) => !also.includes(String(code)));
      assert.deepEqual({ ...graded, findings: known }, whole, what);
    };
    await agrees('all');
    state = await growCache(place.dir, await ingest(place.dir, state, 1));
    await agrees('a document and an answer more');
    state = await deleteDocument(place.dir, state, 130);
    await agrees('a document less');
    const rows = readFileSync(join(place.dir, ENTITIES));
    truncateSync(join(place.dir, ENTITIES), rows.length - 1000);
    await agrees('a cut file', 'graph_emptied');
    const spoiled = rows.toString('latin1').replace(/"entity_name": "[^"]*"/, '"entity_name": "nobody"');
    writeFileSync(join(place.dir, ENTITIES), spoiled, 'latin1');
    await agrees('a row of another name');
    writeFileSync(join(place.dir, ENTITIES), rows);
    state = await ingest(place.dir, state, 2);
    await agrees('two documents more');
  });
});
