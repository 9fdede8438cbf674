import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { WatchSchedule, type WatchStep } from '../../core/watch-schedule.ts';
import { checkTranscript } from '../support/golden.ts';

/** Performs one event of the transcript; a number is the time of the scan that an event causes. */
function perform(schedule: WatchSchedule, what: string, value: number, nowMs: number): WatchStep | number {
  switch (what) {
    case 'changed':
    case 'cache-changed':
    case 'unchanged':
      return schedule.scanned(
        { isChanged: what !== 'unchanged', isMinor: what === 'cache-changed', tookMs: value },
        nowMs,
      );
    case 'confirmed':
      return schedule.confirmed(nowMs);
    case 'captured':
      return schedule.captured(value, nowMs);
    case 'began':
      return schedule.watchBegan(nowMs);
    case 'stopped':
      return schedule.watchStopped(nowMs);
    case 'gave-up':
      schedule.watchGaveUp();
      return schedule.watchNotBegun(nowMs);
    case 'event':
      return schedule.event(nowMs);
    case 'absent':
    case 'error':
      return schedule.failed(what, nowMs);
    default:
      throw new Error(`there is no event "${what}"`);
  }
}

function stepText(step: WatchStep | number): string {
  if (typeof step === 'number') return `scan at ${step} if none is planned before`;
  return step.next === 'scan' ? `scan at ${step.atMs}` : step.next;
}

describe('the schedule of a watcher', () => {
  it('decides as recorded in golden/watching.txt', () => {
    const schedule = new WatchSchedule(1000);
    checkTranscript('watching.txt', (event) => {
      const [atMs = '', what = '', value = '0'] = event.split(' ');
      if (what !== 'start') return stepText(perform(schedule, what, Number(value), Number(atMs)));
      schedule.scanStarted();
      return 'scanning';
    });
  });

  it('scans at most every 50 ms, however many events arrive', () => {
    const schedule = new WatchSchedule(0);
    schedule.scanStarted();
    schedule.scanned({ isChanged: false, tookMs: 1 }, 1000);
    schedule.confirmed(1000);
    schedule.watchBegan(1000);
    assert.equal(schedule.event(1001), 1050);
    assert.equal(schedule.event(2000), 2000);
  });

  it('does not subscribe while it waits after vain events, at most a minute', () => {
    const schedule = new WatchSchedule(0);
    for (let i = 0; i < 100; i++) schedule.event(0);
    assert.equal(schedule.confirmed(59_999).next, 'scan');
    assert.equal(schedule.confirmed(60_000).next, 'begin-watching');
  });

  it('subscribes at once again after a change', () => {
    const schedule = new WatchSchedule(0);
    for (let i = 0; i < 100; i++) schedule.event(0);
    schedule.scanStarted();
    assert.equal(schedule.scanned({ isChanged: true, tookMs: 1 }, 60_000).next, 'capture');
    schedule.event(60_000);
    assert.equal(schedule.confirmed(60_000).next, 'begin-watching');
  });

  it('never subscribes after events were given up', () => {
    const schedule = new WatchSchedule(0);
    schedule.watchGaveUp();
    assert.deepEqual(schedule.confirmed(1e9), { next: 'scan', atMs: 1e9 + 1000 });
  });
});
