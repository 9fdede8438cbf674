import { bytesText } from './path-text.ts';

/**
 * The kind of a failure, for callers to act on.
 *
 * `docs/errors.md` has a heading for each, and the command line maps each to an exit code.
 */
export type ErrorCode =
  /** The request itself is wrong: a flag, a name, a value. */
  | 'INVALID_ARGUMENT'
  | 'NOT_FOUND'
  /** Refused for safety: nothing was changed, and the hint says what would be needed. */
  | 'REFUSED'
  /** Another process holds it. */
  | 'IN_USE'
  /** Stored bytes have changed or are missing. */
  | 'DAMAGED'
  /** Written by a newer version, with a feature that this version does not know. */
  | 'TOO_NEW'
  /** Written by an older version, in a format that this version does not read any more. */
  | 'TOO_OLD'
  /** Not in this version. */
  | 'UNIMPLEMENTED'
  /** The operating system refused: a full disk, a missing permission, a read error. */
  | 'IO'
  /** Interrupted. */
  | 'CANCELLED'
  /** The time limit has passed. */
  | 'DEADLINE'
  /** The other side cannot be reached. */
  | 'UNAVAILABLE'
  /** What another agent sent breaks a rule of the protocol. */
  | 'PEER_INVALID'
  /** A fault in Lightkeeper itself. */
  | 'INTERNAL';

/** The error type of this project: what failed on what, the hint, and the cause. */
export class LightkeeperError extends Error {
  override readonly name = 'LightkeeperError';
  readonly code: ErrorCode;
  /** One sentence that begins with a verb; empty if nothing can be done. */
  readonly hint: string;
  /** The individual problems where there are several; the message ends with them, one per line. */
  readonly details: readonly string[];

  /** Makes an error. `message` reads *Cannot <do> "<what>"[ as <rule>]: <state>*, without a full stop. */
  constructor(
    code: ErrorCode,
    message: string,
    options: { hint?: string; cause?: unknown; details?: readonly string[] } = {},
  ) {
    const details = options.details ?? [];
    super(
      [message, ...details].join('\n'),
      options.cause === undefined ? undefined : { cause: options.cause },
    );
    this.code = code;
    this.hint = options.hint ?? '';
    this.details = details;
  }
}

const IO_HINTS: Readonly<Record<string, string>> = {
  ENOSPC: 'free space on that disk, or put the store on another one',
  EDQUOT: 'raise the quota, or put the store on another disk',
  EROFS: 'that filesystem is read-only: remount it, or name another place',
  EACCES: 'grant this user access, or run as the user who owns it',
  EPERM: 'grant this user access, or run as the user who owns it',
  EMFILE: 'raise the limit of open files (ulimit -n)',
  ENFILE: 'raise the limit of open files of the machine (fs.file-max)',
  EIO: 'the disk reports errors: check the kernel log and copy the store elsewhere',
  ENOENT: 'check the path',
  ENOTDIR: 'a part of the path is a file: check the path',
  ENAMETOOLONG: 'use a shorter path',
};

/** Returns the `code` of a Node system error, or undefined. */
export function systemCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || error instanceof LightkeeperError) return undefined;
  const code = (error as NodeJS.ErrnoException).code;
  return typeof code === 'string' ? code : undefined;
}

/** The system's words for some codes. */
// LevelDB passes on only the words.
const IO_WORDS: Readonly<Record<string, string>> = {
  'No space left on device': 'ENOSPC',
  'Disk quota exceeded': 'EDQUOT',
  'Read-only file system': 'EROFS',
  'Permission denied': 'EACCES',
  'Operation not permitted': 'EPERM',
  'Too many open files': 'EMFILE',
  'Input/output error': 'EIO',
};

/** Returns the system's error code from an error or its causes; undefined if the system was not involved. */
export function ioCode(error: unknown): string | undefined {
  for (let under = error; under instanceof Error; under = under.cause) {
    const code = systemCode(under);
    if (code !== undefined && Object.hasOwn(IO_HINTS, code)) return code;
    const { message } = under;
    const words = Object.keys(IO_WORDS).find((some) => message.includes(some));
    if (words !== undefined) return IO_WORDS[words];
  }
  return undefined;
}

/** Wraps a system error with what was done, on what, and a hint. Returns a LightkeeperError as it is. */
export function ioError(doing: string, what: string | Uint8Array, error: unknown): LightkeeperError {
  if (error instanceof LightkeeperError) return error;
  const code = ioCode(error);
  const name = typeof what === 'string' ? what : bytesText(what);
  const state = error instanceof Error ? error.message : String(error);
  const hint = code === undefined ? undefined : IO_HINTS[code];
  return new LightkeeperError('IO', `Cannot ${doing} "${name}": ${state}`, {
    ...(hint === undefined ? {} : { hint }),
    cause: error,
  });
}

/** Returns any thrown value as a LightkeeperError. */
export function normalise(error: unknown): LightkeeperError {
  if (error instanceof LightkeeperError) return error;
  if (error instanceof Error && error.name === 'AbortError') {
    return new LightkeeperError('CANCELLED', 'Cannot finish: it was interrupted', { cause: error });
  }
  if (systemCode(error) !== undefined && error instanceof Error) {
    return ioError('finish', (error as NodeJS.ErrnoException).path ?? 'the call', error);
  }
  const state = error instanceof Error ? error.message : String(error);
  return new LightkeeperError('INTERNAL', `Cannot finish: ${state}`, { cause: error });
}
