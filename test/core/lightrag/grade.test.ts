import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { errorFinding, finding, warning } from '../../../core/finding.ts';
import type { CheckFinding } from '../../../core/lightrag/check.ts';
import { type GradeConditions, gradeAlone, judge, mayStand } from '../../../core/lightrag/grade.ts';
import { setOf } from '../../../core/lightrag/sorted-numbers.ts';
import {
  acceptNames,
  advanceSightings,
  NAMES_MAX,
  STANDS_MS,
  splitStanding,
  standingKeys,
} from '../../../core/lightrag/standing.ts';
import type { Sighting } from '../../../gen/lightkeeper/store/v1/annotation_pb.ts';
import { type Finding, Grade_Value, Severity_Value } from '../../../gen/lightkeeper/v1/types_pb.ts';

const NEW: GradeConditions = { atRest: false, sightings: [], elapsedMs: 0, isCapture: true };
const MINUTE = 60_000;
const FILE = 'kv_store_text_chunks.json';

/** A broken promise, by the numbers of its names. */
interface Broken {
  readonly code: string;
  readonly numbers: readonly number[];
}

function broken(numbers: readonly number[] = [1], code = 'chunk_without_vector'): Broken {
  return { code, numbers };
}

/** Splits broken promises as the checks do. */
function found(lacks: readonly Broken[], sightings: readonly Sighting[]): CheckFinding[] {
  return lacks.flatMap(({ code, numbers }) => {
    const all = { code, file: FILE, numbers: setOf(numbers) };
    const { standing, others } = splitStanding(standingKeys(sightings), all);
    return [
      { part: standing, stands: true },
      { part: others, stands: false },
    ].flatMap(({ part, stands }) =>
      part.length === 0
        ? []
        : [
            {
              finding: errorFinding(code, FILE, { message: 'm', count: part.length }),
              numbers: part,
              stands,
            },
          ],
    );
  });
}

function plain(one: Finding): CheckFinding {
  return { finding: one, numbers: new Float64Array(0), stands: false };
}

function gradeOf(
  findings: readonly Finding[],
  more: Partial<GradeConditions> = {},
  ofCapture: Finding[] = [],
): string {
  return Grade_Value[judge(findings.map(plain), ofCapture, { ...NEW, ...more }).grade];
}

/** Grades a state again and again, as captures come. Returns the grades and the last sightings. */
function series(
  steps: readonly (readonly [waitMs: number, lacks: readonly Broken[]])[],
  { atRest = false, sightings: first = [] }: { atRest?: boolean; sightings?: Sighting[] } = {},
) {
  let sightings = first;
  const grades = steps.map(([elapsedMs, lacks]) => {
    const passed = { elapsedMs, isCapture: true };
    const advanced = advanceSightings(sightings, passed);
    const judged = judge(found(lacks, advanced), [], { ...NEW, ...passed, atRest, sightings: advanced });
    sightings = judged.sightings;
    return Grade_Value[judged.grade];
  });
  return { grades, sightings };
}

const gradesOf = (...given: Parameters<typeof series>) => series(...given).grades;

describe('a grade', () => {
  it('is VALID without a finding above INFO, DEGRADED with warnings', () => {
    assert.equal(gradeOf([]), 'VALID');
    assert.equal(gradeOf([warning('vector_without_node', 'a', { message: 'm' })]), 'DEGRADED');
    assert.equal(gradeOf([finding('no_graph', Severity_Value.INFO, 'a', { message: 'm' })]), 'VALID');
  });

  it('is DEGRADED if the capture skipped something, not for what the instance or a hook did', () => {
    assert.equal(gradeOf([], {}, [warning('special_file', 'fifo', { message: 'm' })]), 'DEGRADED');
    assert.equal(gradeOf([], {}, [warning('outside_storage', 'kv', { message: 'm' })]), 'DEGRADED');
    for (const code of ['instance_silent', 'other_directory', 'hook_failed'])
      assert.equal(gradeOf([], {}, [warning(code, 'x', { message: 'm' })]), 'VALID');
    assert.equal(gradeOf([], {}, [errorFinding('unreadable', 'notes.txt', { message: 'm' })]), 'DEGRADED');
  });

  it('of a broken promise or a file that cannot be loaded is TORN, and INVALID at rest', () => {
    const cases: [Finding[], Finding[]][] = [
      [[errorFinding('chunk_without_vector', FILE, { message: 'm' })], []],
      [[errorFinding('cut_file', FILE, { message: 'm' })], []],
      [[errorFinding('status_missing', FILE, { message: 'm' })], []],
      [[], [errorFinding('unreadable', 'vdb_chunks.json', { message: 'm' })]],
    ];
    for (const [findings, ofCapture] of cases) {
      assert.equal(gradeOf(findings, {}, ofCapture), 'TORN');
      assert.equal(gradeOf(findings, { atRest: true }, ofCapture), 'INVALID');
    }
  });

  it('of a directory alone is INVALID at any time if a server cannot load it', () => {
    const cut = errorFinding('cut_file', FILE, { message: 'm' });
    const lack = errorFinding('chunk_without_vector', FILE, { message: 'm' });
    const grades = [false, true].map((atRest) =>
      [[cut], [lack], [], [warning('x', FILE, { message: 'm' })]].map(
        (all) => Grade_Value[gradeAlone(all, atRest)],
      ),
    );
    assert.deepEqual(grades, [
      ['INVALID', 'TORN', 'VALID', 'DEGRADED'],
      ['INVALID', 'INVALID', 'VALID', 'DEGRADED'],
    ]);
  });

  it('of a file that cannot be loaded stays, however old it is', () => {
    for (const code of ['empty_file', 'cut_file', 'malformed_file', 'matrix_length', 'mixed_dimensions']) {
      assert.equal(mayStand(errorFinding(code, FILE, { message: 'm' })), false);
      const steps = [0, STANDS_MS, STANDS_MS].map((wait) => [wait, [broken([0], code)]] as const);
      let sightings: Sighting[] = [];
      for (const [elapsedMs] of steps) {
        const advanced = advanceSightings(sightings, { elapsedMs, isCapture: true });
        const judged = judge([plain(errorFinding(code, FILE, { message: 'm' }))], [], {
          ...NEW,
          sightings: advanced,
          atRest: true,
        });
        assert.equal(judged.grade, Grade_Value.INVALID);
        sightings = judged.sightings;
      }
      assert.deepEqual(sightings, []);
    }
  });
});

describe('a standing finding', () => {
  it('is a broken promise of three captures over ten minutes, at rest or not', () => {
    assert.equal(STANDS_MS < 10 * MINUTE, true);
    const steps = [
      [0, [broken()]],
      [MINUTE, [broken()]],
      [STANDS_MS - MINUTE - 1, [broken()]],
      [1, [broken()]],
    ] as const;
    assert.deepEqual(gradesOf(steps), ['TORN', 'TORN', 'TORN', 'DEGRADED']);
    assert.deepEqual(gradesOf(steps, { atRest: true }), ['INVALID', 'INVALID', 'INVALID', 'DEGRADED']);
    assert.deepEqual(
      gradesOf([
        [0, [broken()]],
        [STANDS_MS, [broken()]],
        [0, [broken()]],
      ]),
      ['TORN', 'TORN', 'DEGRADED'],
    );
  });

  it('stands name by name: new ones of the same kind are judged anew', () => {
    const { grades, sightings } = series([
      [0, [broken([1, 2])]],
      [5 * MINUTE, [broken([1, 2])]],
      [5 * MINUTE, [broken([1, 2, 3])]],
      [0, [broken([1, 2])]],
    ]);
    assert.deepEqual(grades, ['TORN', 'TORN', 'TORN', 'DEGRADED']);
    const advanced = advanceSightings(sightings, { elapsedMs: 0, isCapture: true });
    const parts = found([broken([2, 3])], advanced).map(({ numbers, stands }) => [[...numbers], stands]);
    assert.deepEqual(parts, [
      [[2], true],
      [[3], false],
    ]);
  });

  it('stands although others of its kind were mended', () => {
    assert.deepEqual(
      gradesOf([
        [0, [broken([1, 2, 3])]],
        [5 * MINUTE, [broken([1, 3])]],
        [5 * MINUTE, [broken([3])]],
      ]),
      ['TORN', 'TORN', 'DEGRADED'],
    );
  });

  it('is recognised after a torn capture that hid it', () => {
    const { grades } = series([
      [0, [broken([1])]],
      [MINUTE, [broken([9])]],
      [MINUTE, [broken([1])]],
      [8 * MINUTE, [broken([9])]],
      [0, [broken([1])]],
      [0, [broken([1, 4])]],
    ]);
    assert.deepEqual(grades, ['TORN', 'TORN', 'TORN', 'TORN', 'DEGRADED', 'TORN']);
  });

  it('counts only the captures that show it', () => {
    const { grades } = series([
      [0, [broken([1])]],
      [5 * MINUTE, [broken([9])]],
      [5 * MINUTE, [broken([9])]],
      [0, [broken([1])]],
      [0, [broken([1])]],
    ]);
    assert.deepEqual(grades, ['TORN', 'TORN', 'TORN', 'TORN', 'DEGRADED']);
  });

  it('starts again after a whole state', () => {
    assert.deepEqual(
      gradesOf([
        [0, [broken()]],
        [5 * MINUTE, []],
        [5 * MINUTE, [broken()]],
        [0, [broken()]],
        [9 * MINUTE, [broken()]],
        [MINUTE, [broken()]],
      ]),
      ['TORN', 'VALID', 'TORN', 'TORN', 'TORN', 'DEGRADED'],
    );
  });

  it('is listed with its age', () => {
    const { sightings } = series([[0, [broken()]]]);
    const passed = { elapsedMs: 61_000, isCapture: true };
    const advanced = advanceSightings(sightings, passed);
    const { findings } = judge(found([broken()], advanced), [], { ...NEW, ...passed, sightings: advanced });
    const { captures, ageMs, stands } = findings[0]?.standing ?? assert.fail();
    assert.deepEqual([captures, ageMs, stands], [2, 61_000n, false]);
  });

  it('stands at once, and for ever, where an operator accepted it', () => {
    const { sightings } = series([[0, [broken([1, 2])]]]);
    const where = { code: 'chunk_without_vector', file: FILE };
    const one = acceptNames(sightings, { ...where, numbers: setOf([2]) }, 'known');
    assert.deepEqual(gradesOf([[0, [broken([2])]]], { sightings: one }), ['DEGRADED']);
    assert.deepEqual(gradesOf([[0, [broken([1, 2])]]], { sightings: one }), ['TORN']);
    const all = acceptNames(sightings, { ...where, numbers: 'all' }, 'known');
    const steps = [
      [0, [broken([1, 2])]],
      [0, []],
      [0, [broken([2])]],
    ] as const;
    assert.deepEqual(gradesOf(steps, { sightings: all }), ['DEGRADED', 'VALID', 'DEGRADED']);
    const other = acceptNames(sightings, { ...where, code: 'other', numbers: 'all' }, 'known');
    assert.deepEqual(other, sightings);
  });

  it('stands as a whole if it has very many names', () => {
    const many = Array.from({ length: NAMES_MAX + 1 }, (_, i) => i);
    const { grades, sightings } = series([
      [0, [broken(many)]],
      [5 * MINUTE, [broken(many)]],
      [5 * MINUTE, [broken(many)]],
      [0, [broken([...many, 99_999])]],
    ]);
    assert.deepEqual(grades, ['TORN', 'TORN', 'DEGRADED', 'TORN']);
    assert.equal(
      sightings.every(({ hashes }) => hashes.length === 0),
      true,
      'the names are not remembered',
    );
  });

  it('is forgotten after two hundred newer ones', () => {
    let { sightings } = series([[0, [broken()]]]);
    for (let i = 0; i < 200; i++) ({ sightings } = series([[1, [broken([i], 'other')]]], { sightings }));
    assert.equal(sightings.length, 200);
    assert.equal(
      sightings.some(({ code }) => code === 'chunk_without_vector'),
      false,
    );
  });
});
