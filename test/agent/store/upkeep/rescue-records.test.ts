import assert from 'node:assert/strict';
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { UnitKind_Value } from '../../../../gen/lightkeeper/store/v1/pack_pb.ts';
import { makeVictim, withoutDamage } from '../../../prove/damage.ts';
import { callsInProcess, portrait } from '../../../prove/store-calls.ts';

const victim = await makeVictim(1);
after(() => victim.folder.drop());

/** The meta packs that hold annotations, with the place of the first such frame. */
const annotated = [...victim.files.keys()].flatMap((file) => {
  const frames = victim.parts.get(file.slice(file.lastIndexOf('/') + 1))?.frames ?? [];
  const frame = frames.find(({ kind }) => kind === UnitKind_Value.ANNOTATION);
  return frame === undefined ? [] : [{ file, at: (frame.from + frame.to) >> 1 }];
});

/** Damages a copy of the store, repairs it, removes its index, and compares the records with those before. */
async function assertRescued(damage: (store: string) => void): Promise<void> {
  const calls = callsInProcess(victim.folder.fresh('store'));
  cpSync(victim.store, calls.store, { recursive: true, preserveTimestamps: true });
  damage(calls.store);
  await calls.repair();
  // Those packs also hold lists of files: a snapshot without them is damaged, and that is recorded.
  const before = withoutDamage(victim.said);
  assert.deepEqual(withoutDamage(await portrait(calls)), before, 'after the repair');
  rmSync(join(calls.store, 'index'), { recursive: true });
  assert.deepEqual(withoutDamage(await portrait(calls)), before, 'after the index was made again');
  rmSync(calls.store, { recursive: true });
}

describe('records of the index', () => {
  it('hold annotations of every kind in the store that is damaged here', () => {
    const kinds = [...victim.said.annotations.values()].flat().flatMap((one) => Object.keys(one as object));
    for (const kind of ['measured', 'tagged', 'pinned', 'graded', 'acknowledged'])
      assert.equal(kinds.includes(kind), true, kind);
    assert.equal(annotated.length > 5, true);
  });

  it('bring back annotations of every kind when all packs with annotations are missing', async () => {
    await assertRescued((store) => {
      for (const { file } of annotated) rmSync(join(store, file));
    });
  });

  it('bring back annotations of every kind when all packs with annotations are damaged', async () => {
    await assertRescued((store) => {
      for (const { file, at } of annotated) {
        const bytes = readFileSync(join(store, file));
        bytes[at] = (bytes[at] as number) ^ 1;
        writeFileSync(join(store, file), bytes);
      }
    });
  });
});
