import { writeSync } from 'node:fs';
import { ioError, LightkeeperError } from '../../core/errors.ts';

/** Where units of one frame are to be written: place in the frame, file descriptor, position. */
export interface RestoreTargets {
  readonly places: Uint32Array;
  readonly fds: Int32Array;
  readonly positions: Float64Array;
}

export function wrongBytes(storeIsRight: boolean): LightkeeperError {
  return storeIsRight
    ? new LightkeeperError('IO', 'Cannot restore: the disk gave back other bytes than were written', {
        hint: 'restore to another disk',
      })
    : new LightkeeperError('DAMAGED', 'Cannot restore: a unit does not hash to its id', {
        hint: 'run lightkeeper verify --level bytes, then lightkeeper repair',
      });
}

/** The first target after `from` that does not follow the one before it both in the frame and in the file. */
export function runEnd(targets: RestoreTargets, starts: Float64Array, from: number): number {
  const { places, fds, positions } = targets;
  let to = from + 1;
  const delta = (positions[from] as number) - (starts[places[from] as number] as number);
  while (
    to < places.length &&
    fds[to] === fds[from] &&
    places[to] === (places[to - 1] as number) + 1 &&
    (positions[to] as number) - (starts[places[to] as number] as number) === delta
  ) {
    to += 1;
  }
  return to;
}

export function writeWhole(fd: number, bytes: Buffer, position: number): void {
  try {
    let done = 0;
    while (done < bytes.length) done += writeSync(fd, bytes, done, bytes.length - done, position + done);
  } catch (error) {
    throw ioError('write', 'a restored file', error);
  }
}
