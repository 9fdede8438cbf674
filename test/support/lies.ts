import { setTimeout as sleep } from 'node:timers/promises';
import { create, toBinary } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { parseFrame } from '../../agent/pack/frame.ts';
import { compressedCap, compressInto } from '../../agent/pack/zstd.ts';
import type { Fact } from '../../core/annotations.ts';
import { sha256 } from '../../core/unit.ts';
import { AnnotationSchema } from '../../gen/lightkeeper/store/v1/annotation_pb.ts';
import {
  FileListSchema,
  ListRootSchema,
  PositionEntrySchema,
  TotalsSchema,
} from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { Codec_Value, FrameHeaderSchema, UnitKind_Value } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import type { Hello } from '../../gen/lightkeeper/v1/peer_pb.ts';
import { FileType_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { sealFrame } from '../prove/mutate.ts';
import {
  type Claim,
  claim,
  claimFiles,
  file,
  frameOf,
  LIAR,
  type Lie,
  listedOf,
  MINT_ID,
  partsOf,
  positionOf,
  type Said,
  type Story,
  said,
  tell,
} from './lying-peer.ts';

/** What no log, status or list may hold as it is: an escape, a C1 control, and a bidirectional override. */
export const TERMINAL = '\x1b[2J\u009b31m\u202e';

/** A lie, and what must become of it. */
export interface Case {
  readonly lie: Lie;
  /** Code of the error in the log; undefined for a lie that is no offence. */
  readonly code?: string;
  /** What the error says. */
  readonly says?: RegExp;
}

const NONE = new Uint8Array();

function offence(story: Story, says: RegExp, code = 'PEER_INVALID'): Case {
  return { lie: (told) => tell(story, told), code, says };
}

/** A list of files that is not allowed. */
function files(graphId: string, says: RegExp, ...entries: ReturnType<typeof file>[]): Case {
  return offence({ claims: [claimFiles(graphId, entries)] }, says);
}

/** A sound snapshot, of which something is told otherwise. */
function about(graphId: string, says: RegExp, story: (sound: Claim) => Partial<Story>, code?: string): Case {
  const sound = claimFiles(graphId, [file(graphId)]);
  return offence({ claims: [sound], ...story(sound) }, says, code);
}

/** Frames other than those that were asked for. */
function frames(
  graphId: string,
  says: RegExp,
  make: (frame: Buffer, wantId: bigint) => Iterable<Said>,
): Case {
  return about(graphId, says, () => ({
    answer: ({ wantId }, [frame]) => make(frame ?? Buffer.alloc(0), wantId),
  }));
}

function part(wantId: bigint, frameLength: number, offset: number, data: Uint8Array): Said {
  return { case: 'framePart', value: { wantId, frameLength, offset, data } as never };
}

/** A frame that claims to decode to `length` bytes, of the piece that was asked for. */
function bomb(frame: Buffer, { length, decodesTo }: { length: number; decodesTo: number }): Buffer {
  const { unitIds } = parseFrame(frame).header;
  const zeros = Buffer.alloc(decodesTo);
  const out = Buffer.alloc(compressedCap(decodesTo));
  const body = out.subarray(0, compressInto(out, zeros));
  const header = toBinary(
    FrameHeaderSchema,
    create(FrameHeaderSchema, {
      version: 1,
      kind: UnitKind_Value.FILES,
      decodedCap: length,
      streams: [{ codec: Codec_Value.ZSTD, rawLength: length, storedLength: body.length }],
      unitIds,
      unitLengths: [length],
    }),
  );
  return sealFrame(Buffer.from(header), body);
}

/** An encoded annotation about a claim. */
export function annotation(digest: Uint8Array, fact: Fact, storeId: Uint8Array, counter = 1n): Uint8Array {
  const at = timestampFromMs(0);
  return toBinary(AnnotationSchema, create(AnnotationSchema, { storeId, digest, counter, at, fact }));
}

function pinned(): Fact {
  return { case: 'pinned', value: { pinned: true } } as unknown as Fact;
}

/** An entry of a position log. */
export function position(graphId: string, sequence: number, parent: Uint8Array, epoch = 1n): Uint8Array {
  return toBinary(
    PositionEntrySchema,
    create(PositionEntrySchema, {
      graphId,
      epoch: { number: epoch, mintId: MINT_ID },
      sequence: BigInt(sequence),
      digest: digestOf(graphId, sequence),
      parentDigest: parent,
      storeId: LIAR,
    }),
  );
}

function digestOf(graphId: string, sequence: number): Buffer {
  return sha256(Buffer.from(`${graphId} ${sequence}`));
}

/** A chain of positions without snapshots. */
function* chain(graphId: string, from: number, to: number): Generator<Uint8Array> {
  for (let n = from; n < to; n++) yield position(graphId, n, n === 1 ? NONE : digestOf(graphId, n - 1));
}

/** A source that goes back to an older epoch once the follower holds a point. */
function goesBack(graphId: string): Case {
  const young = claimFiles(graphId, [file(graphId)], { epoch: { number: 5n, mintId: MINT_ID } as never });
  const old = claimFiles(graphId, [file(graphId)], { epoch: { number: 4n, mintId: MINT_ID } as never });
  return {
    code: 'REFUSED',
    says: /older epoch/,
    lie: async function* ({ hello, requests, attempt }) {
      if (hello.epoch !== undefined) {
        yield* tell({ claims: [old] }, { hello, requests, attempt });
        return;
      }
      const told = tell({ claims: [young] }, { hello, requests: untilAcknowledged(requests), attempt });
      yield* told;
    },
  };
}

/** Ends the requests with the first acknowledgement. */
function untilAcknowledged<T extends { readonly message: { readonly case: string | undefined } }>(
  requests: AsyncIterator<T>,
): AsyncIterator<T> {
  return {
    next: async () => {
      const next = await requests.next();
      if (next.done !== true && next.value.message.case === 'acknowledgement')
        return { done: true, value: undefined };
      return next;
    },
  };
}

/** Says the same kind of thing without an end. */
function endless(graphId: string, make: (n: number, hello: Hello, sound: Claim) => Said): Case {
  const sound = claimFiles(graphId, [file(graphId)]);
  return {
    lie: (told) =>
      tell(
        {
          claims: [sound],
          after: async function* (hello) {
            for (let n = 1; ; n++) {
              yield make(n, hello, sound);
              // The machine has other processes: this is about memory, not about the processor.
              if (n % 64 === 0) await sleep(20);
            }
          },
        },
        told,
      ),
  };
}

/** The lies about names in a directory, and about sizes. */
function nameCases(): [string, Case][] {
  const regular = { type: FileType_Value.REGULAR, content: create(ListRootSchema) };
  return [
    ['escape', files('escape', /leaves its folder/, file('../x'))],
    ['absolute', files('absolute', /absolute/, file('/etc/x'))],
    ['dots', files('dots', /leaves its folder/, file('a/../b'))],
    ['nul', files('nul', /NUL/, file('a\0b'))],
    ['own', files('own', /Lightkeeper's own/, file('.lightkeeper/warm'))],
    ['order', files('order', /out of order/, file('b'), file('a'))],
    ['huge-file', files('huge-file', /bytes/, file('a', { ...regular, size: 2n ** 63n }))],
    [
      'link-nul',
      files(
        'link-nul',
        /impossible target/,
        file('a', { type: FileType_Value.SYMLINK, target: Buffer.from('/etc\0') }),
      ),
    ],
    [
      'million',
      offence(
        {
          claims: [
            claimFiles('million', [file('million')], {
              totals: create(TotalsSchema, { files: 1_000_000, directories: 1 }),
            }),
          ],
        },
        /its totals are not/,
      ),
    ],
    [
      'huge',
      offence(
        {
          claims: [
            claimFiles('huge', [file('huge')], {
              totals: create(TotalsSchema, { rawBytes: 2n ** 63n, directories: 1 }),
            }),
          ],
        },
        /totals are out of range/,
      ),
    ],
    [
      'no-list',
      offence(
        { claims: [claim('no-list', { files: create(ListRootSchema, { depth: 99 }) })] },
        /is not a list/,
      ),
    ],
  ];
}

/** The lies about frames. */
function frameCases(): [string, Case][] {
  const other = frameOf(UnitKind_Value.FILES, [
    Buffer.from(toBinary(FileListSchema, create(FileListSchema, { files: [file('zz')] }))),
  ]);
  return [
    [
      'bomb-small',
      frames('bomb-small', /./, (frame, id) =>
        partsOf(id, [bomb(frame, { length: 100, decodesTo: 64 << 20 })]),
      ),
    ],
    [
      'bomb-cap',
      frames('bomb-cap', /decodes to/, (frame, id) =>
        partsOf(id, [bomb(frame, { length: 60 << 20, decodesTo: 60 << 20 })]),
      ),
    ],
    [
      'bomb-wrong',
      frames('bomb-wrong', /hash/, (frame, id) =>
        partsOf(id, [bomb(frame, { length: 8 << 20, decodesTo: 8 << 20 })]),
      ),
    ],
    [
      'garbage-frame',
      frames('garbage-frame', /magic number/, (_, id) => partsOf(id, [Buffer.alloc(500, 7)])),
    ],
    ['unwanted', frames('unwanted', /no unit in it is wanted/, (_, id) => partsOf(id, [other]))],
    ['unknown-want', frames('unknown-want', /not asked for/, (frame) => partsOf(99n, [frame]))],
    [
      'part-middle',
      frames('part-middle', /in the middle/, (frame, id) => [part(id, frame.length, 10, frame.subarray(10))]),
    ],
    [
      'part-overlap',
      frames('part-overlap', /does not continue/, (frame, id) => [
        part(id, frame.length, 0, frame.subarray(0, 20)),
        part(id, frame.length, 10, frame.subarray(10)),
      ]),
    ],
    ['part-huge', frames('part-huge', /a frame has/, (frame, id) => [part(id, 0xffff_ffff, 0, frame)])],
    [
      'part-empty',
      frames('part-empty', /does not continue/, function* (frame, id) {
        yield part(id, frame.length, 0, frame.subarray(0, 20));
        for (let i = 0; i < 100; i++) yield part(id, frame.length, 20, NONE);
      }),
    ],
    [
      'superfluous',
      frames('superfluous', /not asked for|no unit in it is wanted/, function* (frame, id) {
        for (let i = 0; i < 1000; i++) yield* partsOf(id, [frame]);
      }),
    ],
  ];
}

/** The lies about histories. */
function historyCases(): [string, Case][] {
  const log = (name: string, says: RegExp, entries: readonly Uint8Array[]): [string, Case] => [
    name,
    about(name, says, () => ({ log: entries })),
  ];
  return [
    ['back', goesBack('back')],
    log('log-fork', /does not continue/, [position('log-fork', 1, NONE), position('log-fork', 2, NONE)]),
    log('log-epoch', /epochs do not advance/, [
      position('log-epoch', 1, NONE, 5n),
      position('log-epoch', 2, digestOf('log-epoch', 1), 4n),
    ]),
    log('log-graph', /belongs to graph/, [position('another', 1, NONE)]),
    log('log-range', /out of range/, [position('log-range', 1, NONE, 2n ** 63n - 1n)]),
    log('log-cut', /./, [position('log-cut', 1, NONE).subarray(0, 30)]),
    log('log-long', /field 2.1 occurs more than/, [...chain('log-long', 1, 1003)]),
    [
      'list-long',
      about('list-long', /field 3.1 occurs more than/, (sound) => ({
        listed: Array(1001).fill(listedOf(sound)),
      })),
    ],
    [
      'list-range',
      about('list-range', /out of range/, (sound) => ({
        listed: [{ ...listedOf(sound), capturedMs: 2n ** 64n - 1n }],
      })),
    ],
    [
      'list-place',
      about('list-place', /another place/, (sound) => ({ listed: [{ ...listedOf(sound), sequence: 9n }] })),
    ],
    [
      'welcome-epoch',
      about('welcome-epoch', /another epoch/, () => ({
        welcome: { epoch: { number: 9n, mintId: MINT_ID } },
      })),
    ],
    [
      'welcome-common',
      about('welcome-common', /was not named/, (sound) => ({ welcome: { commonDigest: sound.digest } })),
    ],
    ['welcome-name', about('welcome-name', /too long/, () => ({ welcome: { agent: 'x'.repeat(300_000) } }))],
    ['welcome-protocol', about('welcome-protocol', /protocol 7/, () => ({ welcome: { protocol: 7 } }))],
    [
      'welcome-twice',
      about('welcome-twice', /second Welcome/, () => ({
        after: () => [{ case: 'welcome', value: {} as never }],
      })),
    ],
    [
      'no-welcome',
      {
        code: 'PEER_INVALID',
        says: /no Welcome/,
        lie: async function* () {
          yield said({ case: 'facts', value: { annotations: [] } as never });
        },
      },
    ],
    [
      'empty-message',
      {
        code: 'PEER_INVALID',
        says: /./,
        lie: async function* () {
          yield said({ case: undefined });
        },
      },
    ],
  ];
}

/** The lies about offers and facts. */
function offerCases(): [string, Case][] {
  const facts = (
    name: string,
    says: RegExp,
    make: (hello: Hello, sound: Claim) => Uint8Array[],
  ): [string, Case] => {
    const sound = claimFiles(name, [file(name)]);
    return [name, offence({ claims: [sound], annotations: (hello) => make(hello, sound) }, says)];
  };
  const foreign = claimFiles('elsewhere', [file('elsewhere')]);
  const deleted = { case: 'deleted', value: { reason: '' } } as unknown as Fact;
  return [
    [
      'offer-hash',
      about('offer-hash', /does not hash/, (sound) => ({
        offer: () => ({
          case: 'offer',
          value: {
            manifest: sound.bytes,
            annotations: [],
            listed: { ...listedOf(sound), digest: Buffer.alloc(32) },
          } as never,
        }),
      })),
    ],
    [
      'offer-none',
      about('offer-none', /does not hash/, () => ({
        offer: () => ({ case: 'offer', value: { manifest: NONE, annotations: [] } as never }),
      })),
    ],
    [
      'offer-graph',
      about('offer-graph', /offers a snapshot of graph/, () => ({
        after: () => [
          {
            case: 'offer',
            value: { manifest: foreign.bytes, annotations: [], listed: listedOf(foreign) } as never,
          },
        ],
      })),
    ],
    [
      'offer-unlisted',
      about('offer-unlisted', /another place/, () => {
        const stray = claimFiles('offer-unlisted', [file('b')], { sequence: 7n });
        return {
          after: () => [
            {
              case: 'offer',
              value: { manifest: stray.bytes, annotations: [], listed: listedOf(stray) } as never,
            },
          ],
        };
      }),
    ],
    facts('fact-deleted', /does not travel/, (_, { digest }) => [annotation(digest, deleted, LIAR)]),
    facts('fact-own', /claims to be of this store/, (hello, { digest }) => [
      annotation(digest, pinned(), hello.storeId, 2n ** 62n),
    ]),
    facts('fact-other', /about another snapshot/, () => [annotation(Buffer.alloc(32), pinned(), LIAR)]),
    facts('fact-cut', /./, (_, { digest }) => [annotation(digest, pinned(), LIAR).subarray(0, 40)]),
    facts('fact-many', /more than 256/, (_, { digest }) =>
      Array.from({ length: 300 }, (__, n) =>
        annotation(digest, pinned(), sha256(Buffer.from(`${n}`)).subarray(0, 16)),
      ),
    ),
    [
      'units-many',
      about('units-many', /request for units/, () => ({
        after: () => [
          { case: 'unitsWanted', value: { wantId: 1n, unitIds: Buffer.alloc(5000 * 32) } as never },
        ],
      })),
    ],
  ];
}

/** Sources that say nothing that is wrong, and never end. */
function endlessCases(): [string, Case][] {
  const noise = Buffer.alloc(500_000, 3);
  return [
    [
      'endless-gone',
      endless('endless-gone', (n) => ({
        case: 'snapshotsGone',
        value: { digests: [digestOf('x', n)] } as never,
      })),
    ],
    [
      'endless-log',
      endless('endless-log', (n, _, sound) => ({
        case: 'positionLog',
        value: {
          entries: [position('endless-log', n + 1, n === 1 ? sound.digest : digestOf('endless-log', n))],
          last: false,
        } as never,
      })),
    ],
    [
      'endless-facts',
      endless('endless-facts', (n, _, { digest }) => ({
        case: 'facts',
        value: { annotations: [annotation(digest, pinned(), LIAR, BigInt(n))] } as never,
      })),
    ],
    [
      'endless-units',
      endless('endless-units', (n) => ({
        case: 'unitsWanted',
        value: { wantId: BigInt(n), unitIds: digestOf('x', n) } as never,
      })),
    ],
    [
      'endless-offers',
      endless('endless-offers', (n, _, sound) => {
        const parts = {
          sequence: BigInt(n + 1),
          parentDigest: sound.digest,
          description: noise.toString('latin1'),
        };
        const one = claimFiles('endless-offers', [file(`f${n}`)], parts);
        return n % 2 === 1
          ? { case: 'positionLog', value: { entries: [positionOf(one)], last: false } as never }
          : { case: 'unitsMissing', value: { wantId: 1n, unitIds: NONE } as never };
      }),
    ],
  ];
}

/** Every lie of a source that speaks gRPC, by the name of its graph. */
export function liesOfSource(): Map<string, Case> {
  const strings = claimFiles('strings', [file('strings')], {
    description: TERMINAL,
    source: { host: TERMINAL, agentVersion: TERMINAL } as never,
  });
  const tagged = { case: 'tagged', value: { tags: { [`k${TERMINAL}`]: TERMINAL } } } as unknown as Fact;
  const link = claimFiles('link', [
    file('a', { type: FileType_Value.SYMLINK, mode: 0o777, target: Buffer.from('/etc/passwd') }),
  ]);
  return new Map<string, Case>([
    ...nameCases(),
    ...frameCases(),
    ...historyCases(),
    ...offerCases(),
    ...endlessCases(),
    ['link', { lie: (told) => tell({ claims: [link] }, told) }],
    [
      'strings',
      {
        lie: (told) =>
          tell(
            {
              claims: [strings],
              welcome: { agent: `liar${TERMINAL}`, version: TERMINAL },
              annotations: () => [annotation(strings.digest, tagged, LIAR)],
            },
            told,
          ),
      },
    ],
    [
      'silent',
      {
        code: 'DEADLINE',
        says: /not said Welcome/,
        lie: async function* () {
          await sleep(3_600_000, undefined, { ref: false });
          yield said({ case: undefined });
        },
      },
    ],
    ['stalled', { ...about('stalled', /useful bytes/, () => ({ answer: () => [] }), 'DEADLINE') }],
  ]);
}
