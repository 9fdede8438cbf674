import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { crc32 } from 'node:zlib';
import { toJson } from '@bufbuild/protobuf';
import { type AgentClient, withStore } from '../../agent/main.ts';
import { DirectoryPackStore } from '../../agent/pack/directory-pack-store.ts';
import { parsePackFooter, parsePackHeader, parsePackTrailer, STORE_FORMAT } from '../../agent/pack/format.ts';
import { allocateDecodeBuffer, decodeFrame, findDamagedUnits, parseFrame } from '../../agent/pack/frame.ts';
import { PackBytes } from '../../agent/pack/pack-bytes.ts';
import { readFrameUnits, readPackTable } from '../../agent/pack/reader.ts';
import { intactFrames, verifyPack } from '../../agent/pack/verify-pack.ts';
import { fileView, snapshotView, summaryView } from '../../agent/snapshots/views.ts';
import { readConfig } from '../../agent/store/config.ts';
import { recordKey } from '../../agent/store/index/keys.ts';
import { lastOf } from '../../cli/await-result.ts';
import { addAnnotation } from '../../core/annotations.ts';
import { LightkeeperError } from '../../core/errors.ts';
import { readNodeRefs } from '../../core/list.ts';
import { parseAnnotation, parseFileList, parseManifest, parsePosition } from '../../core/manifest.ts';
import { emptyRecord, isStored, snapshotState } from '../../core/snapshot.ts';
import { sha256, unitId } from '../../core/unit.ts';
import { type Random, random } from '../../demo/random.ts';
import { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import {
  FileSchema,
  SnapshotSchema,
  SnapshotSummarySchema,
  VerifyLevel_Value,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { makeGraphs, makeTree, someBytes } from './random-tree.ts';
import { callsInProcess, FAILURES_SHOWN, filesIn, packFiles, type Scratch, scratch } from './store-calls.ts';

const PACK_HEADER_BYTES = 40;
const TRAILER_BYTES = 56;
const FRAME_PREFIX_BYTES = 16;

/** The largest frame decodes to this; nothing may need more, whatever the bytes say. */
const GROWTH_BYTES_MAX = 96 * 1024 * 1024;
const CASE_CPU_MS_MAX = 5000;

/** Sound pieces of every kind, to be broken. */
export interface Corpus {
  readonly seed: number;
  readonly folder: Scratch;
  readonly store: string;
  readonly packs: readonly Buffer[];
  readonly frames: readonly Buffer[];
  readonly units: ReadonlyMap<UnitKind_Value, readonly Buffer[]>;
  readonly configs: readonly Buffer[];
}

/** Makes a store that holds records of every kind, and takes it apart. */
export async function makeCorpus(seed: number): Promise<Corpus> {
  const folder = scratch('mutate', { memory: true });
  const keeper = callsInProcess(folder.fresh('base'));
  const ids: string[] = [];
  const graphs = await makeGraphs(seed);
  for (let version = 0; version < 3; version++) {
    const dir = folder.fresh('dir');
    makeTree(dir, seed, { version, graphs });
    writeFileSync(join(dir, 'long'), someBytes(random(seed), 700_000 + version));
    // Enough files for several pieces of the list, and one file whose own list has pieces.
    for (let i = 0; i < 150; i++)
      writeFileSync(join(dir, `many-${i}`), `${version > 1 && i === 7 ? 'x' : i}`);
    ids.push((await keeper.snapshot(dir)).snapshotId);
  }
  await withStore(keeper.store, {}, async (client: AgentClient) => {
    await client.tagSnapshot({ snapshotId: ids[0] as string, set: { release: '1.0', note: 'ü' } });
    await client.pinSnapshot({ snapshotId: ids[1] as string, pinned: true });
    await client.acknowledgeSnapshot({ snapshotId: ids[2] as string, reason: 'a test' });
    await client.deleteSnapshot({ snapshotId: ids[0] as string, reason: 'a test' });
  });
  const packs = new DirectoryPackStore(keeper.store);
  const units = new Map<UnitKind_Value, Buffer[]>();
  const frames: Buffer[] = [];
  for await (const { packId, size } of packs.list()) {
    for (const info of (await readPackTable(packs, packId, size)).frames) {
      frames.push(await packs.get(packId, info.offset, info.length));
      const known = units.get(info.kind) ?? [];
      units.set(info.kind, [...known, ...(await readFrameUnits(packs, packId, info))]);
    }
  }
  await packs.close();
  const files = filesIn(keeper.store);
  const configs = ['config', 'config.copy'].map((name) => files.get(name) as Buffer);
  const bytes = packFiles(keeper.store).map(
    (path) => files.get(path.slice(keeper.store.length + 1)) as Buffer,
  );
  return { seed, folder, store: keeper.store, packs: bytes, frames, units, configs };
}

// ----- breaking things -----

const EXTREMES = [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff];

function pick<T>(draw: Random, items: readonly T[]): T {
  return items[draw(items.length)] as T;
}

/** Changes bytes in one of the ways in which disks, programs and enemies do. */
export function mutateBytes(draw: Random, sound: Buffer, others: readonly Buffer[]): Buffer {
  let bytes: Buffer = Buffer.from(sound);
  for (let round = draw(3); round >= 0; round--) bytes = mutateOnce(draw, bytes, others);
  return bytes;
}

function mutateOnce(draw: Random, bytes: Buffer, others: readonly Buffer[]): Buffer {
  const at = draw(bytes.length + 1);
  const to = at + draw(Math.min(64, bytes.length - at) + 1);
  const other = pick(draw, others);
  const from = draw(other.length + 1);
  const piece = other.subarray(from, from + draw(200));
  switch (draw(9)) {
    case 0:
    case 1:
      if (bytes.length > 0) bytes[at % bytes.length] = (bytes[at % bytes.length] as number) ^ (1 << draw(8));
      return bytes;
    case 2:
      return bytes.subarray(0, at);
    case 3:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(to)]);
    case 4:
      return Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(to)]);
    case 5:
      return Buffer.concat([bytes.subarray(0, to), bytes.subarray(at)]);
    case 6:
      if (at + 4 <= bytes.length) bytes.writeUInt32LE(pick(draw, EXTREMES), at);
      return bytes;
    case 7:
      // The longest number that protobuf can write, where there may have been a length.
      return Buffer.concat([bytes.subarray(0, at), varint(pick(draw, EXTREMES)), bytes.subarray(at + 1)]);
    default:
      if (bytes.length > 0) bytes[at % bytes.length] = pick(draw, EXTREMES) & 0xff;
      return bytes;
  }
}

function varint(value: number): Buffer {
  const out: number[] = [];
  let rest = BigInt(value);
  for (; rest >= 0x80n; rest >>= 7n) out.push(Number(rest & 0x7fn) | 0x80);
  out.push(Number(rest));
  return Buffer.from(out);
}

/** A frame whose checksum holds, around a header and a body. */
export function sealFrame(header: Buffer, body: Buffer): Buffer {
  const frame = Buffer.concat([Buffer.alloc(FRAME_PREFIX_BYTES), header, body]);
  frame.write('LKF1', 0, 'latin1');
  frame.writeUInt32LE(header.length, 4);
  frame.writeUInt32LE(body.length, 8);
  frame.writeUInt32LE(crc32(header, crc32(frame.subarray(0, 12))), 12);
  return frame;
}

/** A pack all of whose checksums hold, whatever is in it. */
export function sealPack(head: Buffer, frames: Buffer, footer: Buffer): Buffer {
  const trailer = Buffer.alloc(TRAILER_BYTES);
  const header = Buffer.from(head);
  if (header.length === PACK_HEADER_BYTES) header.writeUInt32LE(crc32(header.subarray(0, 36)), 36);
  trailer.writeBigUInt64LE(BigInt(header.length + frames.length), 0);
  trailer.writeUInt32LE(footer.length, 8);
  trailer.writeUInt32LE(crc32(footer), 12);
  const hashed = Buffer.concat([header, frames, footer, trailer.subarray(0, 16)]);
  createHash('sha256').update(hashed).digest().copy(trailer, 16);
  trailer.write('LKEND\r\n\0', 48, 'latin1');
  return Buffer.concat([header, frames, footer, trailer]);
}

/** Breaks one part of a pack and makes all checksums hold again. */
function resealed(draw: Random, corpus: Corpus): Buffer {
  const pack = pick(draw, corpus.packs);
  const footerAt = Number(pack.readBigUInt64LE(pack.length - TRAILER_BYTES));
  const parts = [
    pack.subarray(0, PACK_HEADER_BYTES),
    pack.subarray(PACK_HEADER_BYTES, footerAt),
    pack.subarray(footerAt, pack.length - TRAILER_BYTES),
  ] as [Buffer, Buffer, Buffer];
  const broken = draw(3);
  parts[broken] = mutateBytes(draw, parts[broken] as Buffer, corpus.packs);
  const whole = sealPack(...parts);
  // The footer's own place may be a lie too.
  if (draw(8) === 0 && whole.length > TRAILER_BYTES) {
    whole.writeUInt32LE(pick(draw, EXTREMES), whole.length - TRAILER_BYTES + pick(draw, [0, 4, 8]));
  }
  return whole;
}

// ----- what may come of it -----

type Target = (draw: Random, corpus: Corpus) => void | Promise<void>;

/** Runs a reader: its answer, or undefined if it refused with an error of this project. */
function typed<T>(run: () => T): T | undefined {
  try {
    return run();
  } catch (error) {
    if (error instanceof LightkeeperError && error.code !== 'INTERNAL') return undefined;
    throw error;
  }
}

function ofKind(corpus: Corpus, kind: UnitKind_Value): readonly Buffer[] {
  return corpus.units.get(kind) ?? [];
}

function broken(draw: Random, corpus: Corpus, kind: UnitKind_Value): Buffer {
  return mutateBytes(
    draw,
    pick(draw, ofKind(corpus, kind)),
    ofKind(corpus, pick(draw, [...corpus.units.keys()])),
  );
}

function breakFrame(draw: Random, corpus: Corpus): void {
  const frame = pick(draw, corpus.frames);
  const headEnd = FRAME_PREFIX_BYTES + frame.readUInt32LE(4);
  const header = frame.subarray(FRAME_PREFIX_BYTES, headEnd);
  const body = frame.subarray(headEnd);
  const bytes =
    draw(3) === 0
      ? mutateBytes(draw, frame, corpus.frames)
      : draw(2) === 0
        ? sealFrame(mutateBytes(draw, header, corpus.frames), body)
        : sealFrame(header, mutateBytes(draw, body, corpus.frames));
  const parsed = typed(() => parseFrame(bytes));
  if (parsed === undefined) return;
  const { buffer, decoded } = allocateDecodeBuffer(parsed.decodedLength);
  const wrong = typed(() => {
    decodeFrame(parsed, decoded);
    return new Set(findDamagedUnits(parsed, buffer));
  });
  if (wrong === undefined) return;
  let at = 0;
  for (const [i, length] of parsed.header.unitLengths.entries()) {
    const id = parsed.header.unitIds.subarray(i * 32, i * 32 + 32);
    const holds = unitId(parsed.header.kind, decoded.subarray(at, at + length)).equals(id);
    assert.equal(holds, !wrong.has(i), 'a unit is believed if and only if it hashes to its id');
    at += length;
  }
  assert.equal(at, decoded.length);
}

/** Without new checksums every change of a pack is seen, and what is called good is good. */
function breakPack(draw: Random, corpus: Corpus): void {
  const sound = pick(draw, corpus.packs);
  const reseal = draw(2) === 0;
  const bytes = reseal ? resealed(draw, corpus) : mutateBytes(draw, sound, corpus.packs);
  const packId = createHash('sha256')
    .update(reseal ? bytes : sound)
    .digest('hex');
  const path = corpus.folder.fresh('pack');
  writeFileSync(path, bytes);
  const report = verifyPack({ file: path }, packId);
  if (!reseal) assert.equal(report.state === 'whole', bytes.equals(sound), 'a change is seen');
  const pack = PackBytes.open({ file: path });
  try {
    for (const { kind, ids, units } of intactFrames(pack))
      for (const [i, unit] of units.entries())
        assert.equal(unitId(kind, unit).toString('hex'), ids[i], 'what is salvaged is what its id says');
  } finally {
    pack.close();
    rmSync(path);
  }
  typed(() => parsePackHeader(bytes.subarray(0, PACK_HEADER_BYTES)));
  const trailer = typed(() => parsePackTrailer(Buffer.from(bytes.subarray(-TRAILER_BYTES)), bytes.length));
  if (trailer === undefined) return;
  const { footerOffset, footerLength } = trailer;
  const footer = bytes.subarray(footerOffset, footerOffset + footerLength);
  const frames = typed(() => parsePackFooter(footer, trailer));
  const sum = frames?.reduce((total, { length }) => total + length, PACK_HEADER_BYTES);
  assert.ok(sum === undefined || sum === footerOffset, 'the frames fill the pack');
}

function breakManifest(draw: Random, corpus: Corpus): void {
  const bytes = broken(draw, corpus, UnitKind_Value.MANIFEST);
  const manifest = typed(() => parseManifest(bytes));
  if (manifest === undefined) return;
  const digest = sha256(bytes);
  const record = emptyRecord(digest);
  record.manifest = manifest;
  recordKey(manifest, digest);
  const snapshot = snapshotState(record, new Uint8Array(16));
  if (!isStored(snapshot)) return;
  toJson(SnapshotSchema, snapshotView(snapshot), { alwaysEmitImplicit: true });
  toJson(SnapshotSummarySchema, summaryView(snapshot), { alwaysEmitImplicit: true });
  typed(() => readNodeRefs(manifest.files?.entries ?? new Uint8Array()));
}

function breakFiles(draw: Random, corpus: Corpus): void {
  const bytes = broken(draw, corpus, UnitKind_Value.FILES);
  const files = typed(() => parseFileList(bytes, ''));
  let last = '';
  for (const file of files ?? []) {
    const path = Buffer.from(file.path).toString('latin1');
    assert.ok(path > last && !path.startsWith('/') && !path.split('/').includes('..'), 'paths are safe');
    assert.ok(!path.includes('\0') && !path.split('/').includes(''), 'paths are paths');
    last = path;
    toJson(FileSchema, fileView(file), { alwaysEmitImplicit: true });
    typed(() => readNodeRefs(file.content?.entries ?? new Uint8Array()));
  }
}

function breakList(draw: Random, corpus: Corpus): void {
  const bytes = broken(draw, corpus, UnitKind_Value.LIST);
  const refs = typed(() => readNodeRefs(bytes));
  assert.ok(refs === undefined || refs.length * 40 === bytes.length);
  for (const { id, span } of refs ?? [])
    assert.ok(id.length === 32 && Number.isSafeInteger(span) && span >= 0);
}

function breakNotes(draw: Random, corpus: Corpus): void {
  const annotation = typed(() => parseAnnotation(broken(draw, corpus, UnitKind_Value.ANNOTATION)));
  if (annotation !== undefined) addAnnotation(emptyRecord(annotation.digest), annotation);
  typed(() => parsePosition(broken(draw, corpus, UnitKind_Value.POSITION)));
}

async function breakConfig(draw: Random, corpus: Corpus): Promise<void> {
  const root = corpus.folder.fresh('config');
  mkdirSync(root);
  for (const [i, name] of ['config', 'config.copy'].entries()) {
    const sound = corpus.configs[i] as Buffer;
    const [line = ''] = sound.toString().split('\n');
    const bytes = mutateBytes(draw, draw(2) === 0 ? sound : Buffer.from(line), corpus.configs);
    const sum = `\nsha256 ${createHash('sha256').update(bytes.toString()).digest('hex')}\n`;
    writeFileSync(join(root, name), draw(3) === 0 ? bytes : `${bytes}${sum}`);
  }
  try {
    const read = await readConfig(root);
    assert.ok(read !== undefined && read.config.format === STORE_FORMAT && read.config.storeId.length === 16);
  } catch (error) {
    if (!(error instanceof LightkeeperError) || error.code === 'INTERNAL') throw error;
  } finally {
    rmSync(root, { recursive: true });
  }
}

/** A pack that hashes to its name and lies, in a store that is opened and used. */
async function breakStore(draw: Random, corpus: Corpus): Promise<void> {
  const store = corpus.folder.fresh('store');
  cpSync(corpus.store, store, { recursive: true, preserveTimestamps: true });
  rmSync(join(store, 'index'), { recursive: true });
  const victim = pick(draw, packFiles(store));
  const bytes = draw(2) === 0 ? resealed(draw, corpus) : resealedUnits(draw, corpus);
  const packId = createHash('sha256').update(bytes).digest('hex');
  if (draw(2) === 0) rmSync(victim);
  mkdirSync(join(store, 'packs', packId.slice(0, 2)), { recursive: true });
  writeFileSync(join(store, 'packs', packId.slice(0, 2), `${packId}.pack`), bytes);
  const steps: ((client: AgentClient, ids: string[]) => Promise<unknown>)[] = [
    async (client, ids) => {
      for (const snapshot of (await client.listSnapshots({})).snapshots) {
        ids.push(snapshot.snapshotId);
        toJson(SnapshotSummarySchema, snapshot);
      }
    },
    (client) => lastOf(client.verifyStore({ level: VerifyLevel_Value.BYTES })),
    async (client, ids) => {
      const to = corpus.folder.fresh('restored');
      for (const snapshotId of ids)
        await lastOf(
          client.restoreSnapshot({
            snapshotId,
            target: { case: 'to', value: Buffer.from(to) },
            diskReserveBytes: 0n,
          }),
        ).catch(mustBeTyped);
      rmSync(to, { recursive: true, force: true });
    },
    (client) => lastOf(client.pruneSnapshots({ policy: { last: 1 } })),
    (client) => lastOf(client.repairStore({})),
  ];
  const ids: string[] = [];
  for (const step of steps) await withStore(store, {}, (client) => step(client, ids)).catch(mustBeTyped);
  rmSync(store, { recursive: true });
}

function mustBeTyped(error: unknown): void {
  const wire = error instanceof Error && 'rawMessage' in error ? String(error) : '';
  if (wire !== '' && !wire.includes('[internal]')) return;
  if (!(error instanceof LightkeeperError) || error.code === 'INTERNAL') throw error;
}

/** A pack with one frame of one broken unit: its frame, footer and name all hold. */
function resealedUnits(draw: Random, corpus: Corpus): Buffer {
  const kind = pick(
    draw,
    [...corpus.units.keys()].filter((one) => one !== UnitKind_Value.BYTES),
  );
  return packOf(pick(draw, corpus.packs), kind, broken(draw, corpus, kind));
}

/** A pack of one raw frame of one unit, written by hand from the description of the format. */
export function packOf(like: Buffer, kind: UnitKind_Value, unit: Buffer): Buffer {
  const id = unitId(kind, unit);
  const field = (number: number, value: Buffer) =>
    Buffer.concat([varint((number << 3) | 2), varint(value.length), value]);
  const whole = (number: number, value: number) => Buffer.concat([varint(number << 3), varint(value)]);
  const stream = Buffer.concat([whole(2, unit.length), whole(3, unit.length)]);
  const lengths = field(8, varint(unit.length));
  const header = Buffer.concat([
    whole(1, 1),
    whole(4, kind),
    whole(5, unit.length),
    field(6, stream),
    field(7, id),
    lengths,
  ]);
  const frame = sealFrame(header, unit);
  const info = Buffer.concat([
    whole(1, PACK_HEADER_BYTES),
    whole(2, frame.length),
    whole(3, kind),
    field(4, varint(0)),
    field(5, id),
    field(6, varint(unit.length)),
  ]);
  const table = field(1, info);
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32LE(table.length, 1);
  const head = Buffer.from(like.subarray(0, PACK_HEADER_BYTES));
  head[10] = kind === UnitKind_Value.BYTES ? 1 : 2;
  return sealPack(head, frame, Buffer.concat([prefix, table]));
}

/** What is broken, and how often among a hundred. */
export const TARGETS: readonly (readonly [name: string, share: number, target: Target])[] = [
  ['frames', 24, breakFrame],
  ['packs', 18, breakPack],
  ['manifests', 16, breakManifest],
  ['lists of files', 14, breakFiles],
  ['list pieces', 8, breakList],
  ['annotations and positions', 12, breakNotes],
  ['configs', 6, breakConfig],
  ['stores', 2, breakStore],
];

/** One seeded case; fails on another exception, too long a run, or too much memory. */
export async function runCase(corpus: Corpus, name: string, target: Target, seed: number): Promise<void> {
  const before = process.memoryUsage();
  // Not the time that passed: what else the machine does must not count.
  const started = process.cpuUsage();
  try {
    await target(random(seed), corpus);
    const now = process.memoryUsage();
    const grown = now.arrayBuffers - before.arrayBuffers + Math.max(0, now.heapUsed - before.heapUsed);
    assert.ok(grown < GROWTH_BYTES_MAX, `it took ${grown} bytes of memory`);
    const { user, system } = process.cpuUsage(started);
    assert.ok((user + system) / 1000 < CASE_CPU_MS_MAX, 'it took too long');
  } catch (error) {
    throw new Error(`${name}, seeds ${corpus.seed} and ${seed}: ${String(error)}`, { cause: error });
  }
}

/** Cases of every target, by their shares; answers how many of each were run. */
export async function runCases(
  corpus: Corpus,
  count: number,
  fail: (error: unknown) => void,
): Promise<Map<string, number>> {
  const draw = random(corpus.seed);
  const counts = new Map<string, number>();
  for (const [name, share, target] of TARGETS) {
    const cases = Math.ceil((count * share) / 100);
    counts.set(name, cases);
    for (let i = 0; i < cases; i++) await runCase(corpus, name, target, draw(2 ** 31)).catch(fail);
  }
  return counts;
}

/** The proof: tens of thousands of mutations. */
export async function run(log: (line: string) => void): Promise<void> {
  const seed = Number(process.env.LIGHTKEEPER_SEED ?? 1);
  const count = Number(process.env.LIGHTKEEPER_COUNT ?? 20_000);
  const corpus = await makeCorpus(seed);
  const failures: string[] = [];
  const started = performance.now();
  const rss = process.memoryUsage.rss();
  log(`seed ${seed}: ${corpus.packs.map((pack) => pack.length)} bytes of packs, ${basename(corpus.store)}`);
  try {
    const counts = await runCases(corpus, count, (error) => failures.push(String(error)));
    for (const [name, cases] of counts) log(`${cases} ${name}`);
  } finally {
    corpus.folder.drop();
  }
  const grown = Math.round((process.memoryUsage.rss() - rss) / 1024 / 1024);
  const seconds = ((performance.now() - started) / 1000).toFixed(0);
  log(`${failures.length} failures, ${seconds} s, resident memory grew by ${grown} MiB`);
  for (const failure of failures.slice(0, FAILURES_SHOWN)) log(failure);
  assert.equal(failures.length, 0, `${failures.length} failures`);
}
