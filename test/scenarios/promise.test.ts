import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { validateDirectory } from '../../agent/grade/validate.ts';
import { Grade_Value, Severity_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { tempFolder } from '../support/place.ts';
import { brokenPromises } from '../support/promise.ts';

const FIXTURES = join(import.meta.dirname, '../../../shared/fixtures');
const NAMES = listFixtures();
const skip = NAMES.length === 0 ? 'the directories of real servers are not on this machine' : false;
/** Errors that the second statement does not make: a whole file is lacking. */
const FILE_ERRORS: ReadonlySet<string> = new Set(['missing_file']);

function listFixtures(): string[] {
  try {
    return readdirSync(FIXTURES).filter((name) => /^(?:real|wild|gustobot)/.test(name));
  } catch {
    // The fixtures are optional.
    return [];
  }
}

describe('directories of real servers and from the wild', { skip }, () => {
  for (const name of NAMES) {
    const isRefused = name.includes('refused');
    it(`${name}: ${isRefused ? 'is INVALID' : 'keeps its promises as a second statement of them says'}`, async (t) => {
      const dir = join(await tempFolder(t), name);
      await cp(join(FIXTURES, name), dir, { recursive: true });
      const { grade, findings } = await validateDirectory(Buffer.from(dir), { instanceStopped: true });
      if (isRefused) {
        assert.equal(Grade_Value[grade], 'INVALID');
        return;
      }
      const errors = findings.filter(({ severity }) => severity === Severity_Value.ERROR);
      const broken = brokenPromises(dir);
      assert.equal(errors.length > 0, broken.length > 0, `${broken[0]}; ${errors[0]?.message}`);
      if (!errors.some(({ code }) => FILE_ERRORS.has(code)))
        assert.equal(
          errors.reduce((sum, { count }) => sum + count, 0),
          broken.length,
        );
      const isWhole = !/^gustobot@0[1-7]$/.test(name);
      assert.equal(grade !== Grade_Value.INVALID, isWhole, Grade_Value[grade]);
    });
  }
});
