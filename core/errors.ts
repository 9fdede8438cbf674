/**
 * What failed, as a word that callers can act on. `docs/errors.md` has a heading for each, and the command
 * line turns each into an exit code.
 */
export type ErrorCode =
  /** The request itself is wrong: a flag, a name, a value. */
  | 'INVALID_ARGUMENT'
  | 'NOT_FOUND'
  /** Refused for safety: nothing was changed, and the hint says what would be needed. */
  | 'REFUSED'
  /** Another process has it. */
  | 'IN_USE'
  /** Stored bytes are not what they were. */
  | 'DAMAGED'
  /** Written by a newer version, with a feature that this one does not know. */
  | 'TOO_NEW'
  /** Not built yet. */
  | 'UNIMPLEMENTED'
  /** The operating system said no: a full disk, a missing right, a read error. */
  | 'IO'
  /** Asked to stop. */
  | 'CANCELLED'
  /** It took longer than it may. */
  | 'DEADLINE'
  /** The other side cannot be reached. */
  | 'UNAVAILABLE'
  /** A fault in Lightkeeper itself. */
  | 'INTERNAL';

/** The one error of this project: what failed on what, how to mend it, and what was underneath. */
export class LightkeeperError extends Error {
  override readonly name = 'LightkeeperError';
  readonly code: ErrorCode;
  /** One sentence that begins with a verb; empty where nothing can be done. */
  readonly hint: string;
  /** What was wrong, one by one, where it was several things; the message ends with them, a line each. */
  readonly details: readonly string[];

  /** `message` reads *Cannot <do> "<what>"[ as <rule>]: <state>*, without a full stop. */
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
  EACCES: 'give this user the right, or run as the user who owns it',
  EPERM: 'give this user the right, or run as the user who owns it',
  EMFILE: 'raise the limit of open files (ulimit -n)',
  ENFILE: 'raise the limit of open files of the machine (fs.file-max)',
  EIO: 'the disk reports errors: look at the kernel log and copy the store elsewhere',
  ENOENT: 'check the path',
  ENOTDIR: 'a part of the path is a file: check the path',
  ENAMETOOLONG: 'use a shorter path',
};

/** The `code` of a Node system error, or undefined. */
export function systemCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || error instanceof LightkeeperError) return undefined;
  const code = (error as NodeJS.ErrnoException).code;
  return typeof code === 'string' ? code : undefined;
}

/** How the system words what its codes mean: LevelDB passes on only the words. */
const IO_WORDS: Readonly<Record<string, string>> = {
  'No space left on device': 'ENOSPC',
  'Disk quota exceeded': 'EDQUOT',
  'Read-only file system': 'EROFS',
  'Permission denied': 'EACCES',
  'Operation not permitted': 'EPERM',
  'Too many open files': 'EMFILE',
  'Input/output error': 'EIO',
};

/** Why the system said no, looked for in an error and what was underneath; undefined if it was not the system. */
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

/**
 * Makes a system error readable: what was being done, on what, and the mend. Errors of this project pass
 * through as they are.
 */
export function ioError(doing: string, what: string, error: unknown): LightkeeperError {
  if (error instanceof LightkeeperError) return error;
  const code = ioCode(error);
  const state = error instanceof Error ? error.message : String(error);
  const hint = code === undefined ? undefined : IO_HINTS[code];
  return new LightkeeperError('IO', `Cannot ${doing} "${what}": ${state}`, {
    ...(hint === undefined ? {} : { hint }),
    cause: error,
  });
}

/** Any thrown value as an error of this project. */
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
