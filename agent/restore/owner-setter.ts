import { systemCode } from '../../core/errors.ts';
import { warning } from '../../core/finding.ts';
import { type BytePath, pathText } from '../../core/path.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';

/** Owner and group that all written names get; undefined for those in the snapshot. */
export interface Owner {
  readonly uid?: number;
  readonly gid?: number;
}

/** Bits of a mode by which a program runs with the rights of its owner and group. */
const SET_ID_BITS = 0o6000;

/** Codes of a change of owner that this user may not make: root without that right, or in a user namespace. */
const DENIED = new Set(['EPERM', 'EINVAL', 'ENOTSUP']);

/** Reports whether an error says that this user may not set an owner. */
export function isOwnerDenied(error: unknown): boolean {
  return DENIED.has(systemCode(error) ?? '');
}

/** Sets the owners of restored names. What this user may not set becomes a finding. */
export class OwnerSetter {
  readonly #owner: Owner;
  readonly #isRoot = process.getuid?.() === 0;
  #denied = 0;
  #first: BytePath = '';

  constructor(owner: Owner = {}) {
    this.#owner = owner;
  }

  /** Sets the owner of a name by a call. Returns the mode that the name may have. */
  async set(
    path: BytePath,
    entry: { readonly uid: number; readonly gid: number; readonly mode: number },
    change: (uid: number, gid: number) => Promise<void>,
  ): Promise<number> {
    if (!this.#isRoot) return entry.mode;
    const { uid, gid } = { ...entry, ...this.#owner };
    try {
      await change(uid, gid);
      return entry.mode;
    } catch (error) {
      if (!isOwnerDenied(error)) throw error;
      if (this.#denied === 0) this.#first = path;
      this.#denied += 1;
      // A program must not get the rights of another user than it had.
      return entry.mode & ~SET_ID_BITS;
    }
  }

  /** Returns a finding if owners could not be set. */
  findings(): Finding[] {
    if (this.#denied === 0) return [];
    return [
      warning('owner_not_set', pathText(this.#first), {
        message: 'its owner could not be set: it belongs to the user that restored it',
        hint: 'set the owner with chown as a user who may, or run with the capability CAP_CHOWN',
        count: this.#denied,
      }),
    ];
  }
}
