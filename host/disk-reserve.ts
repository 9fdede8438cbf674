import { statfs } from 'node:fs/promises';
import { LightkeeperError } from '../core/errors.ts';
import { parentFolder } from './disk.ts';

const RESERVE_BYTES_MIN = 1024 ** 3;
const RESERVE_SHARE = 0.05;

/** A planned write. */
export interface Need {
  /** What the write does: the words after "Cannot" in the error. */
  readonly doing: string;
  /** A path on the disk, which may not exist yet. */
  readonly place: string | Buffer;
  /** Most bytes of the write. */
  readonly bytes: number;
  // An instance on the same disk may rewrite its largest file as a whole.
  /** Bytes of the graph's largest file; undefined if no instance writes to the disk. */
  readonly largestBytes?: number;
  /** Free bytes that must remain; undefined is the formula, 0 is no check. */
  readonly reserveBytes: bigint | undefined;
}

// An old LightRAG truncates in place: if its disk is full at the next flush, its graph is lost.
/** Refuses a write that could leave less than max(1 GiB, twice the largest file, 5 %) of the disk free. */
export async function checkReserve(need: Need): Promise<void> {
  if (need.reserveBytes === 0n) return;
  let { place } = need;
  let disk = await statfs(place).catch(() => undefined);
  while (disk === undefined && place.length > 1) {
    place = parentFolder(place);
    disk = await statfs(place).catch(() => undefined);
  }
  // Where no folder of the path can be read, the first write fails with the reason.
  if (disk === undefined) return;
  const free = disk.bavail * disk.bsize;
  const formula = Math.max(
    RESERVE_BYTES_MIN,
    2 * (need.largestBytes ?? 0),
    RESERVE_SHARE * disk.blocks * disk.bsize,
  );
  const reserve = need.reserveBytes === undefined ? formula : Number(need.reserveBytes);
  if (free - need.bytes >= reserve) return;
  const mib = (bytes: number) => `${Math.round(bytes / 2 ** 20)} MiB`;
  throw new LightkeeperError(
    'REFUSED',
    `Cannot ${need.doing} as the disk reserve must stay free: ${mib(free)} are free, ` +
      `it may need ${mib(need.bytes)}, ${mib(reserve)} must remain`,
    { hint: 'free space on that disk, name another one, or set --disk-reserve (0 turns this off)' },
  );
}
