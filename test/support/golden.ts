import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';

/**
 * Replays the events of a golden transcript and compares the decisions with the recorded ones.
 *
 * A transcript is a text: `#` begins a comment, `->` the decision after an event, every other line is an event.
 * UPDATE_GOLDEN=1 records the decisions anew.
 */
export function checkTranscript(name: string, decide: (event: string) => string): void {
  const file = new URL(`../golden/${name}`, import.meta.url);
  const recorded = readFileSync(file, 'utf8');
  const lines: string[] = [];
  for (const line of recorded.split('\n')) {
    if (line.trimStart().startsWith('->')) continue;
    lines.push(line);
    if (line.trim() !== '' && !line.startsWith('#')) lines.push(`  -> ${decide(line.trim())}`);
  }
  const replayed = lines.join('\n');
  if (process.env.UPDATE_GOLDEN === '1') writeFileSync(file, replayed);
  else assert.equal(replayed, recorded);
}
