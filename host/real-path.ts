import { realpathSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

/** Returns the path of a directory without links, as far as it exists. */
export function realPathOf(path: Uint8Array): Buffer {
  try {
    // Without `native`, Node takes the bytes for UTF-8.
    return realpathSync.native(Buffer.from(path), { encoding: 'buffer' });
  } catch {
    // It does not exist yet, or cannot be read: a folder above it may still be a link.
    const text = Buffer.from(path).toString('latin1');
    const above = dirname(text);
    if (above === text) return Buffer.from(path);
    const realAbove = realPathOf(Buffer.from(above, 'latin1')).toString('latin1');
    return Buffer.from(join(realAbove, basename(text)), 'latin1');
  }
}

/** Reports whether two paths lead to one directory, also through links or another mount of it. */
export function isSameDirectory(a: Uint8Array, b: Uint8Array): boolean {
  if (realPathOf(a).equals(realPathOf(b))) return true;
  const [one, other] = [identityOf(a), identityOf(b)];
  return one !== undefined && one === other;
}

function identityOf(path: Uint8Array): string | undefined {
  try {
    const { dev, ino } = statSync(Buffer.from(path), { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    // It does not exist on this machine, or cannot be read: it is no other name of a directory that does.
    return undefined;
  }
}
