import { statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { LightkeeperError } from '../core/errors.ts';

const RESERVE_BYTES_MIN = 1024 ** 3;
const RESERVE_SHARE = 0.05;

/** What is about to be written, and where. */
export interface Need {
  /** What cannot be done if the space is short: the words after "Cannot". */
  readonly doing: string;
  /** A path on the disk, which need not be there yet. */
  readonly place: string;
  /** At most this many bytes will be written. */
  readonly bytes: number;
  /** Of the graph's largest file, where an instance writes to the same disk: it may rewrite it whole. */
  readonly largestBytes?: number;
  /** Free bytes that must remain; undefined for the formula, 0 for no check. */
  readonly reserveBytes: bigint | undefined;
}

/**
 * Refuses to write what could leave less than max(1 GiB, twice the largest file, 5 %) of a disk free: an old
 * LightRAG truncates in place, and if its disk is full at its next flush, its graph is gone.
 */
export async function checkReserve(need: Need): Promise<void> {
  if (need.reserveBytes === 0n) return;
  let { place } = need;
  let disk = await statfs(place).catch(() => undefined);
  while (disk === undefined && place !== dirname(place)) {
    place = dirname(place);
    disk = await statfs(place).catch(() => undefined);
  }
  // A path none of whose folders can be asked fails at the first write, with a reason.
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
