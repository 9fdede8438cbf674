import { isUtf8 } from 'node:buffer';
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { ioError } from '../core/errors.ts';

// LevelDB and the arguments of a process take text alone, and a name of a file need not be valid text.
/** Runs a call with a path of a folder that is valid UTF-8. The path holds as long as the call runs. */
export async function withTextPath<T>(folder: Buffer, run: (path: string) => Promise<T>): Promise<T> {
  if (isUtf8(folder)) return await run(folder.toString());
  const handle = await open(folder, constants.O_RDONLY | constants.O_DIRECTORY).catch((error: unknown) => {
    throw ioError('open', folder, error);
  });
  try {
    return await run(`/proc/${process.pid}/fd/${handle.fd}`);
  } finally {
    await handle.close();
  }
}
