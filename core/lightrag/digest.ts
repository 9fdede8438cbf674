import { type ChunkReader, LayoutError, longNameError } from './chunk-reader.ts';
import { pairName } from './facts.ts';
import { GraphReader } from './graphml.ts';
import { LayoutReader, unescaped } from './json.ts';
import { NumberHash, NumberList, NumberPool, sortUnique } from './name-table.ts';

/** Receives the name of a record and the hash of its content. Byte views are valid during the call only. */
export type TakeDigest = (name: Buffer, content: number) => void;

/** Separators between texts: byte 0xff never occurs in UTF-8. */
const mark = (letter: string): Buffer => Buffer.from([0xff, letter.charCodeAt(0)]);
const OPEN = mark('{');
const CLOSE = mark('}');
const KEY = mark('k');
const TEXT = mark('s');
const BARE = mark('b');

/** Hashes a JSON value while it is read. */
export class ValueHash {
  readonly #hash = new NumberHash();

  open(): void {
    this.#hash.add(OPEN);
  }

  close(): void {
    this.#hash.add(CLOSE);
  }

  piece(bytes: Buffer): void {
    this.#hash.add(bytes);
  }

  /** Adds a key, or ends one that came in pieces. */
  key(bytes?: Buffer): void {
    if (bytes !== undefined) this.#hash.add(bytes);
    this.#hash.add(KEY);
  }

  /** Adds a text, or ends one that came in pieces. */
  text(bytes?: Buffer): void {
    if (bytes !== undefined) this.#hash.add(bytes);
    this.#hash.add(TEXT);
  }

  bare(text: string): void {
    this.#hash.add(BARE);
    this.#hash.add(Buffer.from(text, 'latin1'));
  }

  /** Returns the hash of what was added since the last call. */
  end(): number {
    return this.#hash.end();
  }
}

/** Hashes each record of a file of `{id: record}`. Records with equal hashes count as equal. */
export class RecordDigests extends LayoutReader {
  readonly #take: TakeDigest;
  #depth = 0;
  #isList = false;
  #id = Buffer.alloc(0);
  readonly #content = new ValueHash();

  constructor(take: TakeDigest) {
    super({ byteOrderMark: true });
    this.#take = take;
  }

  open(isList: boolean): void {
    // An empty list counts as an absent file.
    if (this.#isList) throw noRecords();
    this.#isList = this.#depth === 0 && isList;
    this.#depth += 1;
    this.#content.open();
  }

  close(): void {
    this.#depth -= 1;
    this.#content.close();
    this.#ended();
  }

  key(bytes: Buffer, escaped: boolean): void {
    if (this.#depth > 1) {
      this.#content.key(bytes);
      return;
    }
    this.#id = Buffer.from(unescaped(bytes, escaped));
    // Discards what was added between two records.
    this.#content.end();
  }

  string(bytes: Buffer): void {
    this.#content.text(bytes);
    this.#ended();
  }

  piece(bytes: Buffer): void {
    this.#content.piece(bytes);
  }

  long(_: number, isKey: boolean): void {
    if (isKey && this.#depth === 1) throw longNameError();
    if (isKey) this.#content.key();
    else {
      this.#content.text();
      this.#ended();
    }
  }

  bare(text: string): void {
    this.#content.bare(text);
    this.#ended();
  }

  #ended(): void {
    if (this.#isList && this.#depth > 0) throw noRecords();
    if (this.#depth === 1) this.#take(this.#id, this.#content.end());
  }
}

function noRecords(): LayoutError {
  return new LayoutError('malformed', 0, 'it is not a map of records');
}

/** Hashes the nodes and edges of a graph; an edge is named by its pair. */
export function graphDigests(nodes: TakeDigest, edges: TakeDigest): ChunkReader {
  const content = new ValueHash();
  let open: { take: TakeDigest; name: Buffer } | undefined;
  const ended = () => {
    const number = content.end();
    open?.take(open.name, number);
    open = undefined;
  };
  const reader = new GraphReader(
    {
      node: (id) => {
        ended();
        open = { take: nodes, name: Buffer.from(id) };
      },
      edge: (source, target) => {
        ended();
        open = { take: edges, name: pairName(source, target) };
      },
      data: (name, text) => {
        content.key(Buffer.from(name));
        content.text(text);
      },
    },
    'all',
  );
  return {
    feed: (chunk) => reader.feed(chunk),
    end: () => {
      reader.end();
      ended();
    },
  };
}

/** A table of record hashes by name. */
// Costs 16 bytes a record while they are added, and 16 more when they are sorted.
export class DigestTable {
  readonly #names: NumberList;
  readonly #contents: NumberList;

  constructor(rooms = new NumberPool()) {
    this.#names = new NumberList(rooms);
    this.#contents = new NumberList(rooms);
  }

  add(name: number, content: number): void {
    this.#names.push(name);
    this.#contents.push(content);
  }

  /**
   * Returns the sorted, unique names and their contents; of a repeated name the last. Nothing may be added
   * afterwards.
   */
  sorted(): { names: Float64Array; contents: Float64Array } {
    const [came, said] = [this.#names.numbers, this.#contents.numbers];
    const all = came.slice();
    const names = all.subarray(0, sortUnique(all));
    const contents = new Float64Array(names.length);
    for (let i = 0; i < came.length; i++) contents[placeOf(names, came[i] as number)] = said[i] as number;
    return { names, contents };
  }
}

/** Returns the index of a number in sorted numbers that contain it. */
function placeOf(numbers: Float64Array, number: number): number {
  let [low, high] = [0, numbers.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((numbers[middle] as number) < number) low = middle + 1;
    else high = middle;
  }
  return low;
}
