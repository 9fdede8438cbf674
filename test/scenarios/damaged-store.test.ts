import { after, describe, it } from 'node:test';
import { random } from '../../demo/random.ts';
import {
  both,
  type Damage,
  drawCut,
  drawFlip,
  drawIndexLoss,
  drawLoss,
  makeVictim,
  runDamage,
} from '../prove/damage.ts';
import { inParallel } from '../prove/store-calls.ts';

const SEED = Number(process.env.LIGHTKEEPER_SEED ?? 1);

const victim = await makeVictim(SEED);
after(() => victim.folder.drop());

/** Damages of one kind are found, named, mended; `npm run prove -- damage` does a thousand flips. */
async function several(count: number, next: () => Damage): Promise<void> {
  const damages = Array.from({ length: count }, (_, i) => ({ damage: next(), repair: i % 2 === 0 }));
  await inParallel(2, damages, ({ damage, repair }) => runDamage(victim, damage, { repair }));
}

describe(`a damaged store (seed ${SEED})`, () => {
  const draw = random(SEED);
  it('with one flipped bit is diagnosed and repaired', () => several(4, () => drawFlip(victim, draw)));
  it('with a cut file is diagnosed and repaired', () => several(1, () => drawCut(victim, draw)));
  it('without one of its packs is diagnosed and repaired', () => several(1, () => drawLoss(victim, draw)));
  it('with a lost or damaged index rebuilds it', () => several(2, () => drawIndexLoss(draw)));
  it('with a lost index and damaged packs is diagnosed and repaired', async () => {
    await several(1, () => both(drawFlip(victim, draw), drawIndexLoss(draw)));
    await several(1, () => both(drawLoss(victim, draw), drawIndexLoss(draw)));
  });
});
