import { once } from 'node:events';
import { createServer as createHttp2, type Http2Server, type ServerHttp2Stream } from 'node:http2';
import { type AddressInfo, createServer as createTcp, type Server, type Socket } from 'node:net';
import { create, toBinary } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { parseFrame } from '../../agent/pack/frame.ts';
import { BULK_CODECS } from '../../agent/peer/bulk-codec.ts';
import { splitFrame } from '../../agent/peer/frame-parts.ts';
import { encodeProvenFrame } from '../../agent/store/meta-writer.ts';
import { positionEntry } from '../../core/position.ts';
import { hex, sha256, splitUnitIds, unitId } from '../../core/unit.ts';
import {
  type FileEntry,
  FileEntrySchema,
  FileListSchema,
  ListRootSchema,
  type Manifest,
  ManifestSchema,
  PositionEntrySchema,
} from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import {
  type FollowRequest,
  type FollowResponse,
  FollowResponseSchema,
  type Hello,
  type ListedSnapshot,
  ListedSnapshotSchema,
  PeerService,
  type UnitsWanted,
  type WatchGraphsResponse,
} from '../../gen/lightkeeper/v1/peer_pb.ts';
import { CutMethod_Value, FileType_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { grpcService, serveGrpc } from '../../host/grpc/server.ts';
import { atEnd, type Scope } from './place.ts';

/** Store and mint id of every lying source. */
export const LIAR = Buffer.alloc(16, 0x11);
export const MINT_ID = Buffer.alloc(16, 0x22);

/** What a message says. */
export type Said = FollowResponse['message'];

/** Makes a message of a source. */
export function said(message: Said): FollowResponse {
  return create(FollowResponseSchema, { message });
}

/** A snapshot that a source claims. */
export interface Claim {
  readonly manifest: Manifest;
  readonly bytes: Buffer;
  readonly digest: Buffer;
  /** Its units as sound frames. */
  readonly frames: readonly Buffer[];
}

/** Parts of a manifest that differ from those of a sound one. */
export type ManifestParts = Partial<Omit<Manifest, '$typeName' | '$unknown'>>;

/** Makes a claim from its manifest and frames. */
export function claim(graphId: string, parts: ManifestParts, frames: readonly Buffer[] = []): Claim {
  const manifest = create(ManifestSchema, {
    format: 2,
    graphId,
    epoch: { number: 1n, mintId: MINT_ID },
    sequence: 1n,
    capturedAt: timestampFromMs(Date.now()),
    cutMethod: CutMethod_Value.SETTLED,
    storeId: LIAR,
    ...parts,
  } as Manifest);
  const bytes = Buffer.from(toBinary(ManifestSchema, manifest));
  return { manifest, bytes, digest: sha256(bytes), frames };
}

/** An entry of a list of files. */
export function file(path: string, parts: Partial<FileEntry> = {}): FileEntry {
  return create(FileEntrySchema, {
    path: Buffer.from(path, 'latin1'),
    type: FileType_Value.DIRECTORY,
    mode: 0o755,
    ...parts,
  } as FileEntry);
}

/** Makes a claim whose list of files has these entries, whatever they say. */
export function claimFiles(graphId: string, files: readonly FileEntry[], parts: ManifestParts = {}): Claim {
  const piece = Buffer.from(toBinary(FileListSchema, create(FileListSchema, { files: [...files] })));
  const count = (type: FileType_Value) => files.filter((one) => one.type === type).length;
  const totals = {
    files: count(FileType_Value.REGULAR),
    directories: count(FileType_Value.DIRECTORY),
    symlinks: count(FileType_Value.SYMLINK),
  } as Manifest['totals'];
  const list = create(ListRootSchema, {
    depth: 1,
    entries: reference(piece, files.length),
    count: BigInt(files.length),
  });
  return claim(graphId, { files: list, totals, ...parts }, [frameOf(UnitKind_Value.FILES, [piece])]);
}

/** Returns a list entry for a piece of the list of files. */
function reference(piece: Buffer, span: number): Buffer {
  const entry = Buffer.alloc(40);
  entry.set(unitId(UnitKind_Value.FILES, piece));
  entry.writeUInt32LE(span, 32);
  return entry;
}

/** Encodes units as a sound frame. */
export function frameOf(kind: UnitKind_Value, units: readonly Buffer[]): Buffer {
  return Buffer.from(encodeProvenFrame(kind, units).bytes);
}

/** Returns the entry of the position log of a claim. */
export function positionOf({ manifest, digest }: Claim): Uint8Array {
  return toBinary(PositionEntrySchema, positionEntry(manifest, digest));
}

/** Returns the entry of the list of snapshots of a claim. */
export function listedOf({ manifest, digest }: Claim): ListedSnapshot {
  return create(ListedSnapshotSchema, {
    digest,
    epoch: manifest.epoch?.number ?? 0n,
    sequence: manifest.sequence,
    capturedMs: BigInt(Date.now()),
    usable: true,
  });
}

/** A follower as its source sees it. */
export interface Told {
  readonly hello: Hello;
  readonly requests: AsyncIterator<FollowRequest>;
  /** Number of this stream of the graph, from 1. */
  readonly attempt: number;
}

/** What a source says on one stream. */
export type Lie = (told: Told) => AsyncIterable<FollowResponse>;

/** A history, and what differs from the sound way to tell it. */
export interface Story {
  readonly claims: readonly Claim[];
  readonly welcome?: Readonly<Record<string, unknown>>;
  readonly log?: readonly Uint8Array[];
  readonly listed?: readonly ListedSnapshot[];
  readonly annotations?: (hello: Hello) => readonly Uint8Array[];
  readonly offer?: (claim: Claim) => Said;
  /** Replies to a request for units. */
  readonly answer?: (wanted: UnitsWanted, frames: readonly Buffer[]) => Iterable<Said> | AsyncIterable<Said>;
  /** What comes after the list, unasked. */
  readonly after?: (hello: Hello) => Iterable<Said> | AsyncIterable<Said>;
}

/** Tells a story to a follower. */
export async function* tell(story: Story, { hello, requests }: Told): AsyncGenerator<FollowResponse> {
  const head = story.claims.at(-1);
  yield said({
    case: 'welcome',
    value: {
      protocol: 1,
      agent: 'liar',
      storeId: LIAR,
      version: '1',
      epoch: head?.manifest.epoch,
      commonDigest: new Uint8Array(),
      headDigest: head?.digest ?? new Uint8Array(),
      ...story.welcome,
    } as never,
  });
  const entries = [...(story.log ?? story.claims.map(positionOf))];
  yield said({ case: 'positionLog', value: { entries, last: true } as never });
  const snapshots = [...(story.listed ?? story.claims.map(listedOf).reverse())];
  yield said({ case: 'snapshotList', value: { snapshots, last: true } as never });
  if (story.after !== undefined) for await (const one of story.after(hello)) yield said(one);
  for (;;) {
    const { done, value } = await requests.next();
    if (done === true) return;
    yield* replies(story, hello, value);
  }
}

async function* replies(
  story: Story,
  hello: Hello,
  { message }: FollowRequest,
): AsyncGenerator<FollowResponse> {
  if (message.case === 'snapshotsWanted') {
    for (const digest of message.value.digests) {
      const wanted = story.claims.find((one) => hex(one.digest) === hex(digest));
      if (wanted === undefined) continue;
      yield said(
        story.offer?.(wanted) ?? {
          case: 'offer',
          value: {
            manifest: wanted.bytes,
            annotations: [...(story.annotations?.(hello) ?? [])],
            listed: listedOf(wanted),
          } as never,
        },
      );
    }
  } else if (message.case === 'unitsWanted') {
    const frames = framesFor(story, message.value);
    for await (const one of story.answer?.(message.value, frames) ?? partsOf(message.value.wantId, frames))
      yield said(one);
  }
}

function framesFor({ claims }: Story, { unitIds }: UnitsWanted): Buffer[] {
  const wanted = new Set(splitUnitIds(unitIds).map((id) => hex(id)));
  return claims
    .flatMap(({ frames }) => frames)
    .filter((frame) => splitUnitIds(parseFrame(frame).header.unitIds).some((id) => wanted.has(hex(id))));
}

/** Returns frames as they are sent. */
export function* partsOf(wantId: bigint, frames: readonly Buffer[]): Generator<Said> {
  for (const frame of frames)
    for (const value of splitFrame(wantId, frame)) yield { case: 'framePart', value };
}

/** A source that tells a lie for each graph. */
export interface LyingSource {
  readonly url: string;
  /** Streams of each graph so far. */
  readonly attempts: ReadonlyMap<string, number>;
}

/** Serves lies by the names of their graphs. Other graphs get no reply. */
export async function lyingSource(
  t: Scope,
  lies: ReadonlyMap<string, Lie>,
  heads: () => WatchGraphsResponse['graphs'] = () => [],
): Promise<LyingSource> {
  const attempts = new Map<string, number>();
  const service = grpcService(
    PeerService,
    {
      follow: async function* (requests) {
        const iterator = requests[Symbol.asyncIterator]();
        const { value } = await iterator.next();
        const hello = (value as FollowRequest).message.value as Hello;
        const attempt = (attempts.get(hello.graphId) ?? 0) + 1;
        attempts.set(hello.graphId, attempt);
        const lie = lies.get(hello.graphId);
        if (lie !== undefined) yield* lie({ hello, requests: iterator, attempt });
      },
      watchGraphs: async function* (requests) {
        for await (const { number } of requests) yield { number, graphs: heads() };
      },
      fetchUnits: async function* () {},
    },
    BULK_CODECS,
  );
  const { port, close } = await serveGrpc({ host: '127.0.0.1', port: 0, fallback: false }, [service]);
  atEnd(t, () => close(0));
  return { url: `http://127.0.0.1:${port}`, attempts };
}

/** Frames bytes as a gRPC message; `length` is what its prefix says. */
export function grpcMessage(bytes: Uint8Array, { length = bytes.length, compressed = false } = {}): Buffer {
  const prefix = Buffer.alloc(5);
  prefix[0] = compressed ? 1 : 0;
  prefix.writeUInt32BE(length, 1);
  return Buffer.concat([prefix, bytes]);
}

/** Serves HTTP/2 by hand: `reply` writes what a gRPC client reads. Returns the URL. */
export async function rawHttp2(
  t: Scope,
  reply: (stream: ServerHttp2Stream) => void,
  headers: Readonly<Record<string, string>> = {},
): Promise<string> {
  const server = createHttp2();
  server.on('session', (session) => session.on('error', () => {}));
  server.on('stream', (stream) => {
    stream.on('error', () => {});
    stream.resume();
    stream.respond({ ':status': 200, 'content-type': 'application/grpc+proto', ...headers });
    reply(stream);
  });
  return await listening(t, server);
}

/** Serves bytes over TCP, whatever is said. Returns the URL. */
export async function rawTcp(t: Scope, reply: (socket: Socket) => void): Promise<string> {
  return await listening(
    t,
    createTcp((socket) => {
      socket.on('error', () => {});
      reply(socket);
    }),
  );
}

async function listening(t: Scope, server: Http2Server | Server): Promise<string> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  atEnd(t, () => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
