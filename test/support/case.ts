import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { type DescMessage, type Message, toJson } from '@bufbuild/protobuf';
import { type AgentClient, withStore } from '../../agent/main.ts';
import { lastOf } from '../../cli/await-result.ts';
import {
  GetSnapshotResponseSchema,
  ListSnapshotsResponseSchema,
  RestoreResultSchema,
  SnapshotSchema,
  VerifyLevel_Value,
  VerifyResultSchema,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { type Ended, jsonOf, lightkeeper, type StartOptions } from './program.ts';

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
  readonly position: {
    readonly epoch: string;
    readonly mintId: string;
    readonly sequence: string;
    readonly digest: string;
  };
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

/** Returns a message in the shape in which the command line prints it. */
export function asPrinted<T>(schema: DescMessage, message: Message): T {
  return toJson(schema, message, { alwaysEmitImplicit: true }) as T;
}

/**
 * A store and the directory that it protects. What is asked for plainly is done in this process, as starting
 * another one costs more than most of it; with any option it is the built program that does it.
 */
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

  /**
   * A snapshot, which must be settled, or with options one that the command takes and ends with `code`. The
   * directory is taken as quiet sooner than by default.
   */
  async snapshot(options?: StartOptions & { code?: number; flags?: string[] }): Promise<Snapshot> {
    if (options !== undefined) {
      const words = this.snapshotWords(...(options.flags ?? []));
      return await jsonOf([...words, '--store', this.store], options);
    }
    const [dir, store] = [resolve(this.dir), resolve(this.store)];
    const request = { dir: Buffer.from(dir), quietMs: 50n };
    const taken = await withStore(store, { create: true, protects: request.dir }, (client) =>
      lastOf(client.createSnapshot(request)),
    );
    const snapshot: Snapshot = asPrinted(SnapshotSchema, taken);
    assert.equal(snapshot.cutMethod, 'SETTLED', JSON.stringify(snapshot.findings));
    return snapshot;
  }

  #here<T>(run: (client: AgentClient) => Promise<T>): Promise<T> {
    return withStore(resolve(this.store), { reading: true }, run);
  }

  /** With flags or options it is the command; they may ask for anything. */
  async restore(
    snapshotId: string,
    to: string,
    options: StartOptions & { flags?: string[]; allowTorn?: boolean } = {},
  ): Promise<Restored> {
    const { allowTorn = false, ...others } = options;
    if (Object.keys(others).length > 0) {
      const words = ['restore', '--snapshot', snapshotId, '--to', to, '--disk-reserve', '0'];
      const flags = [...(others.flags ?? []), ...(allowTorn ? ['--allow-torn'] : [])];
      return await jsonOf([...words, ...flags, '--store', this.store], others);
    }
    const target = { case: 'to' as const, value: Buffer.from(to) };
    const request = { snapshotId, target, allowTorn, diskReserveBytes: 0n };
    const restored = await this.#here((client) => lastOf(client.restoreSnapshot(request)));
    return asPrinted(RestoreResultSchema, restored);
  }

  async show(snapshotId: string, options?: StartOptions): Promise<Shown> {
    if (options !== undefined) return await jsonOf(['show', snapshotId, '--store', this.store], options);
    const request = { snapshotId, pageSize: 10_000 };
    return asPrinted(GetSnapshotResponseSchema, await this.#here((client) => client.getSnapshot(request)));
  }

  async list(options?: StartOptions): Promise<Snapshot[]> {
    const listed: { snapshots: Snapshot[] } =
      options === undefined
        ? asPrinted(ListSnapshotsResponseSchema, await this.#here((client) => client.listSnapshots({})))
        : await jsonOf(['list', '--store', this.store], options);
    return listed.snapshots;
  }

  /** Every byte of the store, which must hold; answers how many snapshots there are. */
  async assertSound(options?: StartOptions): Promise<number> {
    const level = VerifyLevel_Value.BYTES;
    const verified: Verified =
      options === undefined
        ? asPrinted(VerifyResultSchema, await this.#here((client) => lastOf(client.verifyStore({ level }))))
        : await jsonOf(['verify', '--level', 'bytes', '--store', this.store], options);
    assert.deepEqual(verified.findings, []);
    return verified.checkedSnapshots;
  }
}

/** Codes and objects of findings, in order, for a look at all of them at once. */
export function briefly(findings: readonly Finding[]): string[] {
  return findings.map(({ code, object }) => `${code} ${object}`).sort();
}
