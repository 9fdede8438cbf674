import assert from 'node:assert/strict';
import { answerOf, type Ended, lightkeeper, type StartOptions } from './command.ts';

/** The answers of the command line that tests look at, as they come in JSON. */
export interface Finding {
  readonly code: string;
  readonly severity: string;
  readonly object: string;
  readonly message: string;
  readonly hint: string;
  readonly snapshots: readonly string[];
}

export interface Snapshot {
  readonly snapshotId: string;
  readonly graphId: string;
  readonly parentId: string;
  readonly position: { readonly sequence: string; readonly digest: string };
  readonly grade: string;
  readonly cutMethod: string;
  readonly capturedAt: string;
  readonly unchanged: boolean;
  readonly files: number;
  readonly rawBytes: string;
  readonly newBytes: string;
  readonly storedBytes: string;
  readonly findings: readonly Finding[];
}

export interface ShownFile {
  readonly path: string;
  readonly pathBytes?: string;
  readonly type: string;
  readonly size: string;
  readonly mode: number;
  readonly mtime: string;
  readonly target?: string;
}

export interface Shown {
  readonly snapshot: Snapshot;
  readonly files: readonly ShownFile[];
  readonly findings: readonly Finding[];
}

export interface Verified {
  readonly checkedSnapshots: number;
  readonly checkedPacks: number;
  readonly findings: readonly Finding[];
}

export interface Restored {
  readonly files: number;
  readonly bytes: string;
  readonly findings: readonly Finding[];
}

/** A store and the directory that it protects, driven from outside. */
export class Case {
  readonly dir: string;
  readonly store: string;

  constructor(dir: string, store: string) {
    this.dir = dir;
    this.store = store;
  }

  /** The command, as text for people. */
  run(words: readonly string[], options?: StartOptions): Promise<Ended> {
    return lightkeeper([...words, '--store', this.store], options);
  }

  snapshotWords(...more: string[]): string[] {
    return ['snapshot', '--dir', this.dir, '--quiet', '50ms', ...more];
  }

  /** A snapshot that must end with `code`; the directory is taken as quiet sooner than by default. */
  async snapshot(options: StartOptions & { code?: number; flags?: string[] } = {}): Promise<Snapshot> {
    const words = this.snapshotWords(...(options.flags ?? []));
    return await answerOf([...words, '--store', this.store], options);
  }

  async restore(
    id: string,
    to: string,
    options: StartOptions & { flags?: string[] } = {},
  ): Promise<Restored> {
    const words = ['restore', '--snapshot', id, '--to', to, '--disk-reserve', '0', ...(options.flags ?? [])];
    return await answerOf([...words, '--store', this.store], options);
  }

  async show(id: string, options?: StartOptions): Promise<Shown> {
    return await answerOf(['show', id, '--store', this.store], options);
  }

  async list(options?: StartOptions): Promise<Snapshot[]> {
    return (await answerOf<{ snapshots: Snapshot[] }>(['list', '--store', this.store], options)).snapshots;
  }

  /** Every byte of the store, which must hold; answers how many snapshots there are. */
  async assertSound(options?: StartOptions): Promise<number> {
    const words = ['verify', '--level', 'bytes', '--store', this.store];
    const { findings, checkedSnapshots } = await answerOf<Verified>(words, options);
    assert.deepEqual(findings, []);
    return checkedSnapshots;
  }
}

/** Codes and objects of findings, in order, for a look at all of them at once. */
export function briefly(findings: readonly Finding[]): string[] {
  return findings.map(({ code, object }) => `${code} ${object}`).sort();
}
