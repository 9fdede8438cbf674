import { LightkeeperError } from '../../core/errors.ts';
import { type BytePath, pathFromBytes, pathText } from '../../core/path.ts';
import { idOf, type StoredSnapshot } from '../../core/snapshot.ts';
import type { FileEntry } from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { FileType_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import type { Store } from '../store/store.ts';
import { readBytes } from './graph-files.ts';

/** Yields the bytes of one file of a snapshot, with every unit's hash checked. NOT_FOUND if there is none. */
export async function* dumpFile(
  store: Store,
  snapshot: StoredSnapshot,
  path: BytePath,
): AsyncGenerator<Buffer> {
  const endRead = store.beginRead();
  try {
    const entry = await findFile(store, snapshot, path);
    const isLink = entry.type === FileType_Value.HARD_LINK;
    const file = isLink ? await findFile(store, snapshot, pathFromBytes(entry.target)) : entry;
    if (file.type !== FileType_Value.REGULAR) {
      throw new LightkeeperError('INVALID_ARGUMENT', `Cannot dump "${pathText(path)}": it is not a file`, {
        hint: 'name a file; restore folders and links with lightkeeper restore --path',
      });
    }
    let length = 0n;
    for await (const bytes of readBytes(store, file.content)) {
      length += BigInt(bytes.length);
      yield bytes;
    }
    if (length !== file.size) {
      throw new LightkeeperError(
        'DAMAGED',
        `Cannot dump "${pathText(path)}": its units do not add up to its size`,
      );
    }
  } finally {
    endRead();
  }
}

async function findFile(store: Store, snapshot: StoredSnapshot, path: BytePath): Promise<FileEntry> {
  for await (const file of store.files(snapshot.manifest.files))
    if (pathFromBytes(file.path) === path) return file;
  throw new LightkeeperError(
    'NOT_FOUND',
    `Cannot find "${pathText(path)}" in snapshot "${idOf(snapshot)}": there is no such name`,
    { hint: 'list the names with lightkeeper show' },
  );
}
