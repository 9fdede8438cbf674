import { pairName } from './facts.ts';
import { GraphReader } from './graphml.ts';
import { LayoutReader, unescaped } from './json.ts';
import { NumberHash } from './names.ts';
import { type ChunkReader, longName } from './text.ts';

/** Takes the name of a record and a number for all that is in it. Bytes are views that hold only during the call. */
export type TakeDigest = (name: Buffer, content: number) => void;

/** Bytes that no UTF-8 has: they stand between texts. */
const mark = (letter: string): Buffer => Buffer.from([0xff, letter.charCodeAt(0)]);
const OPEN = mark('{');
const CLOSE = mark('}');
const KEY = mark('k');
const TEXT = mark('s');
const BARE = mark('b');

/** A number for each record of a file of `{id: record}`: two records with one number are the same. */
export class RecordDigests extends LayoutReader {
  readonly #take: TakeDigest;
  #depth = 0;
  #id = Buffer.alloc(0);
  readonly #content = new NumberHash();

  constructor(take: TakeDigest) {
    super();
    this.#take = take;
  }

  open(): void {
    this.#depth += 1;
    this.#content.add(OPEN);
  }

  close(): void {
    this.#depth -= 1;
    this.#content.add(CLOSE);
    this.#ended();
  }

  key(bytes: Buffer, escaped: boolean): void {
    if (this.#depth > 1) {
      this.#content.add(bytes);
      this.#content.add(KEY);
      return;
    }
    this.#id = Buffer.from(unescaped(bytes, escaped));
    // Whatever stood between the records.
    this.#content.end();
  }

  string(bytes: Buffer): void {
    this.#content.add(bytes);
    this.#content.add(TEXT);
    this.#ended();
  }

  piece(bytes: Buffer): void {
    this.#content.add(bytes);
  }

  long(_: number, isKey: boolean): void {
    if (isKey && this.#depth === 1) throw longName();
    this.#content.add(isKey ? KEY : TEXT);
    if (!isKey) this.#ended();
  }

  bare(text: string): void {
    this.#content.add(BARE);
    this.#content.add(Buffer.from(text, 'latin1'));
    this.#ended();
  }

  #ended(): void {
    if (this.#depth === 1) this.#take(this.#id, this.#content.end());
  }
}

/** The same of the nodes and edges of a graph; an edge is named by its pair. */
export function graphDigests(nodes: TakeDigest, edges: TakeDigest): ChunkReader {
  const content = new NumberHash();
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
        content.add(Buffer.from(name));
        content.add(KEY);
        content.add(text);
        content.add(TEXT);
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
