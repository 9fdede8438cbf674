import assert from 'node:assert/strict';
import {
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { generate } from '../../demo/generate.ts';
import { packFiles } from '../prove/store-calls.ts';
import { type Json, listOf, oneDocument, Place, suite } from '../support/cli-place.ts';
import { commandHere } from '../support/command-here.ts';
import { clockShifted, needing } from '../support/machine.ts';

const GRAPH = 'graph_chunk_entity_relation.graphml';
const CHUNKS = 'kv_store_text_chunks.json';
const VECTORS = 'vdb_chunks.json';

async function graphPlace(documents = 6, seed = 7): Promise<Place> {
  const place = new Place();
  await generate(place.dir, { seed, documents, dimension: 8 });
  return place;
}

/** Takes the first records out of a file of records; answers what was in it. */
function dropRecords(place: Place, name: string, count: number): Buffer {
  const path = join(place.dir, name);
  const bytes = readFileSync(path);
  const records = Object.entries(JSON.parse(bytes.toString()) as Json);
  writeFileSync(path, JSON.stringify(Object.fromEntries(records.slice(count)), null, 2));
  return bytes;
}

/** A snapshot that may end with findings. */
async function graded(
  place: Place,
  args: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): Promise<Json> {
  const words = ['snapshot', '--dir', place.dir, '--store', place.store, '--json', ...args];
  const outcome = await (Object.keys(env).length === 0 ? commandHere(words) : place.run(words, env));
  const snapshot = oneDocument(outcome);
  const isBad = ['TORN', 'INVALID'].includes(String(snapshot.grade));
  assert.equal(outcome.code, isBad ? 3 : 0, outcome.stdout);
  return snapshot;
}

function alarmsOf(snapshot: Json): unknown[] {
  return listOf(snapshot, 'alarms').map(({ code }) => code);
}

/** Returns the data pack that was written last. */
function newestDataPack(store: string): string {
  const ages = packFiles(store)
    .filter((path) => readFileSync(path)[10] === 1)
    .map((path) => ({ path, ms: statSync(path).mtimeMs }))
    .sort((a, b) => b.ms - a.ms);
  return ages[0]?.path ?? assert.fail('there is no data pack');
}

function codes(snapshot: Json): unknown[] {
  return listOf(snapshot, 'findings').map(({ code }) => code);
}

suite('the grade of a snapshot', () => {
  it('is VALID for a whole graph, with its statistics', async () => {
    const place = await graphPlace();
    const snapshot = await graded(place);
    assert.deepEqual([snapshot.grade, snapshot.findings], ['VALID', []]);
    const { documents, chunks, entities, dimension } = snapshot.stats as Json;
    assert.deepEqual([documents, dimension], ['6', 8]);
    assert.equal(Number(chunks) > 6 && Number(entities) > 6, true);
    assert.equal(Number(snapshot.gradeMs) > 0, true);
    const shown = await place.json(['show', String(snapshot.snapshotId)]);
    assert.deepEqual(shown.stats, snapshot.stats);
    assert.equal((shown.snapshot as Json).grade, 'VALID');
    const [listed] = listOf(await place.json(['list']), 'snapshots');
    assert.equal(listed?.grade, 'VALID');
  });

  it('is VALID for a directory without a graph', async () => {
    const place = new Place();
    const snapshot = await place.snapshot({ a: 'a' });
    assert.deepEqual([snapshot.grade, snapshot.stats], ['VALID', undefined]);
  });

  it('is TORN for a file that cannot be loaded and INVALID at rest; latest-valid skips both', async () => {
    const place = await graphPlace();
    const whole = await graded(place);
    const kept = readFileSync(join(place.dir, GRAPH));
    for (const [code, length] of [
      ['cut_file', 500],
      ['empty_file', 0],
    ] as const) {
      truncateSync(join(place.dir, GRAPH), length);
      const torn = await graded(place);
      assert.deepEqual([torn.grade, codes(torn)], ['TORN', [code]]);
      const broken = await graded(place, ['--instance-stopped']);
      assert.deepEqual([broken.grade, broken.unchanged], ['INVALID', true]);
      writeFileSync(join(place.dir, GRAPH), kept);
    }
    const back = await place.json(['restore', '--snapshot', 'latest-valid', '--to', place.path('back')]);
    assert.equal(back.snapshotId, whole.snapshotId);
    const last = await place.json(['restore', '--snapshot', 'latest', '--to', place.path('last')]);
    assert.notEqual(last.snapshotId, whole.snapshotId);
  });

  it(
    'is TORN for files that disagree, and INVALID after a minute without change',
    needing('faketime'),
    async () => {
      const place = await graphPlace();
      const whole = await graded(place);
      dropRecords(place, CHUNKS, 1);
      const torn = await graded(place);
      assert.equal(torn.grade, 'TORN');
      assert.equal(
        codes(torn).includes('promised_chunk_missing'),
        true,
        'a processed document lacks a chunk',
      );
      const latest = await place.json(['show', 'latest']);
      assert.equal((latest.snapshot as Json).snapshotId, whole.snapshotId, 'latest is not torn');
      const to = ['--to', place.path('torn'), '--store', place.store];
      await place.fails(['restore', '--snapshot', String(torn.snapshotId), ...to], 4);
      await place.json([
        'restore',
        '--snapshot',
        String(torn.snapshotId),
        '--to',
        place.path('torn'),
        '--allow-torn',
      ]);
      const { position } = torn as { position: Json };
      assert.equal(position.sequence, '2', 'it has a place in the history');
      const aged = await graded(place, [], clockShifted(61));
      assert.deepEqual([aged.grade, aged.unchanged], ['INVALID', true]);
      writeFileSync(join(place.dir, 'notes'), 'a change');
      const later = await graded(place, [], clockShifted(130));
      assert.deepEqual(
        [later.grade, later.unchanged],
        ['INVALID', false],
        'nothing had changed for a minute',
      );
    },
  );

  it('is added to an ungraded snapshot when the directory is captured again', async () => {
    const place = await graphPlace();
    const first = await graded(place, ['--no-grade']);
    assert.equal(first.grade, 'UNGRADED');
    const to = ['--to', place.path('to'), '--store', place.store];
    const { message } = await place.fails(['restore', '--snapshot', 'latest-valid', ...to], 1);
    assert.match(String(message), /1 of its snapshots is not graded/);
    const again = await graded(place);
    assert.deepEqual([again.snapshotId, again.unchanged, again.grade], [first.snapshotId, true, 'VALID']);
    await place.json(['restore', '--snapshot', 'latest-valid', '--to', place.path('to')]);
  });

  it('survives the loss of the index and a repack', async () => {
    const place = await graphPlace();
    const first = await graded(place);
    dropRecords(place, 'kv_store_llm_response_cache.json', 1);
    const second = await graded(place);
    for (let n = 0; n < 8; n++) await place.json(['tag', String(second.snapshotId), `n=${n}`]);
    await place.json(['prune', '--keep-last', '2']);
    rmSync(join(place.store, 'index'), { recursive: true });
    const list = listOf(await place.json(['list']), 'snapshots');
    assert.deepEqual(
      list.map(({ snapshotId, grade }) => [snapshotId, grade]),
      [
        [second.snapshotId, second.grade],
        [first.snapshotId, first.grade],
      ],
    );
    assert.deepEqual(listOf(await place.json(['verify', '--level', 'bytes']), 'findings'), []);
    dropRecords(place, 'kv_store_llm_response_cache.json', 1);
    assert.equal((await graded(place)).grade, second.grade, 'what was noted is still there');
  });

  it('comes with a line about what came and went', async () => {
    const place = await graphPlace();
    assert.equal((await graded(place)).summary, '');
    const other = await graphPlace(7);
    const words = ['snapshot', '--dir', other.dir, '--graph', 'rag', '--store', place.store];
    const { stdout } = await place.run(words);
    assert.match(stdout, /^snapshot \w{12}: VALID, .* 7 documents, .*\(\+1 document, \+\d+ chunks?, .*entit/);
    const [listed] = listOf(await place.json(['list']), 'snapshots');
    assert.match(String(listed?.summary), /^\+1 document, /);
  });
});

suite('a broken promise', () => {
  it('becomes a standing finding after three captures over ten minutes', needing('faketime'), async () => {
    const place = await graphPlace();
    await graded(place);
    dropRecords(place, CHUNKS, 1);
    const grades: unknown[] = [];
    // The ages include the time that the test itself takes.
    for (const seconds of [0, 30, 90, 480, 575])
      grades.push((await graded(place, [], clockShifted(seconds))).grade);
    assert.deepEqual(grades, ['TORN', 'TORN', 'INVALID', 'INVALID', 'DEGRADED']);
    const latest = await place.json(['show', 'latest-valid']);
    const [standing] = listOf(latest, 'findings').filter(({ severity }) => severity === 'ERROR');
    assert.equal((standing as { standing: Json }).standing.stands, true);
  });

  it('becomes a standing finding when accepted with a reason; a new one does not', async () => {
    const place = await graphPlace();
    await graded(place);
    dropRecords(place, CHUNKS, 2);
    const torn = await graded(place);
    const [lost] = listOf(torn, 'findings').filter(({ code }) => code === 'promised_chunk_missing');
    const keys = (lost as { keys?: string[] }).keys ?? [];
    const words = ['findings', 'accept', '--store', place.store];
    await place.fails(words, 2);
    await place.fails([...words, '--reason', 'x', '--code', 'none'], 1);
    const some = await place.json([
      'findings',
      'accept',
      '--reason',
      'x',
      '--key',
      String(keys[0]),
      '--dry-run',
    ]);
    const left = listOf(some, 'remaining').flatMap((one) => (one as { keys?: string[] }).keys ?? []);
    assert.deepEqual([some.grade, listOf(some, 'accepted').length, left], ['TORN', 1, keys.slice(1)]);
    const all = await place.json(['findings', 'accept', '--reason', 'known since spring']);
    assert.deepEqual([all.grade, all.remaining], ['DEGRADED', []]);
    const shown = await place.json(['show', 'latest-valid']);
    assert.equal((shown.snapshot as Json).snapshotId, torn.snapshotId);
    writeFileSync(join(place.dir, 'notes'), 'a change');
    assert.equal((await graded(place)).grade, 'DEGRADED', 'accepted once, accepted from then on');
    dropRecords(place, CHUNKS, 1);
    assert.equal((await graded(place)).grade, 'TORN');
  });

  it('cannot be accepted for an unreadable file', async () => {
    const place = await graphPlace();
    truncateSync(join(place.dir, VECTORS), 1000);
    await graded(place);
    await place.fails(['findings', 'accept', '--reason', 'x', '--store', place.store], 1);
  });
});

suite('an alarm', () => {
  it('is raised by a large loss, and retention removes nothing until it is acknowledged', async () => {
    const place = await graphPlace(20);
    const before = [];
    for (let n = 0; n < 3; n++) {
      writeFileSync(join(place.dir, 'notes'), `${n}`);
      before.unshift(String((await graded(place)).snapshotId));
    }
    const few = await graphPlace(5);
    const words = ['snapshot', '--dir', few.dir, '--graph', 'rag', '--store', place.store, '--json'];
    const taken = oneDocument(await place.run(words));
    assert.deepEqual([taken.grade, taken.summary !== ''], ['VALID', true]);
    assert.deepEqual(
      listOf(taken, 'alarms')
        .map(({ code, acknowledged, reason }) => [code, acknowledged, reason])
        .sort(),
      [
        ['graph_shrunk', false, ''],
        ['graph_shrunk', false, ''],
      ],
    );
    writeFileSync(join(few.dir, 'notes'), 'later');
    const later = oneDocument(await place.run(words));
    assert.deepEqual(later.alarms, [], 'only the first one has it');
    const list = listOf(await place.json(['list']), 'snapshots');
    assert.deepEqual(
      list.map(({ alarming }) => alarming),
      [false, true, false, false, false],
    );
    assert.match((await place.run(['list', '--store', place.store])).stdout, / ALARM /);
    const prune = async () => {
      const { keep } = await place.json(['prune', '--keep-last', '1', '--dry-run']);
      return (keep as Json[]).map(({ snapshotId }) => snapshotId);
    };
    const id = String(taken.snapshotId);
    assert.deepEqual(await prune(), [later.snapshotId, id, before[0]]);
    await place.fails(['ack', id, '--store', place.store], 2);
    await place.fails(['ack', String(later.snapshotId), '--reason', 'x', '--store', place.store], 2);
    await place.json(['ack', id, '--reason', 'the old documents were moved']);
    assert.deepEqual(await prune(), [later.snapshotId]);
    const shown = await place.json(['show', id]);
    assert.equal((shown.snapshot as Json).acknowledged, 'the old documents were moved');
  });
});

suite('an emptied directory', () => {
  it('is no usable point until its alarm is acknowledged, and costs no older one', async () => {
    const place = await graphPlace();
    const whole = await graded(place);
    for (const name of readdirSync(place.dir)) rmSync(join(place.dir, name));
    const empty = await graded(place);
    assert.deepEqual(
      [empty.grade, empty.usable, alarmsOf(empty)],
      ['VALID', false, ['emptied', 'graph_emptied']],
    );
    writeFileSync(join(place.dir, 'notes'), 'something else');
    const later = await graded(place);
    assert.deepEqual([later.usable, alarmsOf(later)], [false, ['emptied', 'graph_emptied']]);
    const { snapshot } = await place.json(['show', 'latest-valid']);
    assert.equal((snapshot as Json).snapshotId, whole.snapshotId);
    const { keep } = await place.json(['prune', '--keep-last', '1', '--dry-run']);
    const kept = (keep as Json[]).map(({ snapshotId }) => snapshotId);
    assert.deepEqual(kept, [later.snapshotId, empty.snapshotId, whole.snapshotId]);
    await place.json(['ack', String(later.snapshotId), '--reason', 'moved to another server']);
    const acknowledged = await place.json(['show', 'latest-valid']);
    assert.equal((acknowledged.snapshot as Json).snapshotId, later.snapshotId);
  });

  it('is no usable point without a graph either', async () => {
    const place = new Place();
    const full = await place.snapshot({ a: 'a', b: 'b' });
    for (const name of readdirSync(place.dir)) rmSync(join(place.dir, name));
    const empty = await graded(place);
    assert.deepEqual([full.usable, empty.usable, alarmsOf(empty)], [true, false, ['emptied']]);
    writeFileSync(join(place.dir, 'c'), 'c');
    assert.deepEqual(alarmsOf(await graded(place)), []);
  });
});

suite('the command grade', () => {
  it('grades what is not graded, a named snapshot, or all', async () => {
    const place = await graphPlace();
    const first = await graded(place, ['--no-grade']);
    dropRecords(place, CHUNKS, 1);
    const second = await graded(place, ['--no-grade', '--instance-stopped']);
    const gradesOf = async (...words: string[]) =>
      listOf(
        oneDocument(await place.run(['grade', ...words, '--store', place.store, '--json'])),
        'snapshots',
      ).map(({ snapshotId, grade }) => [snapshotId, grade]);
    const both = [
      [second.snapshotId, 'INVALID'],
      [first.snapshotId, 'VALID'],
    ];
    assert.deepEqual(await gradesOf(), both);
    assert.deepEqual(await gradesOf(), []);
    assert.deepEqual(await gradesOf(String(first.snapshotId).slice(0, 12)), both.slice(1));
    assert.deepEqual(await gradesOf('--all'), both);
    await place.fails(['grade', '--all', String(first.snapshotId), '--store', place.store], 2);
  });
});

suite('a damaged point', () => {
  it('is not usable from the check that finds it until one that finds it whole', async () => {
    const place = await graphPlace();
    const first = await graded(place);
    writeFileSync(
      join(place.dir, 'large'),
      Buffer.from(Array.from({ length: 30_000 }, (_, i) => (i * i) % 251)),
    );
    const second = await graded(place);
    const pack = newestDataPack(place.store);
    const bytes = readFileSync(pack);
    const flipped = Buffer.from(bytes);
    flipped[bytes.length >> 1] = (flipped[bytes.length >> 1] ?? 0) ^ 1;
    writeFileSync(pack, flipped);
    await place.run(['verify', '--level', 'bytes', '--store', place.store]);
    const states = async () =>
      listOf(await place.json(['list']), 'snapshots').map(({ snapshotId, damaged, usable, grade }) => [
        [first, second].findIndex((one) => one.snapshotId === snapshotId),
        damaged,
        usable,
        grade,
      ]);
    assert.deepEqual(await states(), [
      [1, true, false, 'VALID'],
      [0, false, true, 'VALID'],
    ]);
    const { snapshot } = await place.json(['show', 'latest-valid']);
    assert.equal((snapshot as Json).snapshotId, first.snapshotId);
    rmSync(join(place.store, 'index'), { recursive: true });
    assert.deepEqual((await states())[0], [1, true, false, 'VALID'], 'it is remembered without the index');
    writeFileSync(pack, bytes);
    await place.run(['verify', '--level', 'bytes', '--store', place.store]);
    assert.deepEqual((await states())[0], [1, false, true, 'VALID']);
  });
});

suite('a read that meets damage', () => {
  for (const [name, read] of [
    ['restore', (id: string, place: Place) => ['restore', id, '--to', place.path('to')]],
    ['dump', (id: string) => ['dump', id, 'large']],
  ] as const) {
    it(`by ${name} makes its point not usable, in a free store and through an agent`, async () => {
      for (const isGuarded of [false, true]) {
        const place = await graphPlace();
        const first = await graded(place);
        writeFileSync(
          join(place.dir, 'large'),
          Buffer.from(Array.from({ length: 30_000 }, (_, i) => (i * i) % 251)),
        );
        const { snapshotId } = await graded(place);
        const pack = newestDataPack(place.store);
        const flipped = readFileSync(pack);
        flipped[flipped.length >> 1] = (flipped[flipped.length >> 1] ?? 0) ^ 1;
        writeFileSync(pack, flipped);
        const agent = isGuarded ? await place.up() : undefined;
        const ended = await place.run([...read(String(snapshotId), place), '--store', place.store]);
        assert.equal(ended.code, 1, ended.stderr);
        const { snapshot } = await place.json(['show', 'latest-valid']);
        assert.equal((snapshot as Json).snapshotId, first.snapshotId);
        await agent?.stop();
      }
    });
  }
});

suite('the last usable point', () => {
  it('cannot be deleted; a broken one can', async () => {
    const place = await graphPlace();
    const whole = await graded(place);
    truncateSync(join(place.dir, GRAPH), 100);
    const broken = await graded(place);
    await place.fails(['delete', String(whole.snapshotId), '--store', place.store], 4);
    await place.json(['delete', String(broken.snapshotId)]);
    assert.equal(existsSync(place.store), true);
  });
});
