import { type ChunkReader, TextSlot } from './chunk-reader.ts';
import { type FactSink, pairParts, separated } from './facts.ts';
import { type GraphEvents, GraphReader } from './graphml.ts';

/** Type of a node that was only ever the end of a relation. */
const UNTYPED = Buffer.from('UNKNOWN');

/** Makes a reader of a GraphML file that reports its facts, or only checks the layout of an unknown graph. */
export function graphReader(facts: FactSink, isKnown: boolean): ChunkReader {
  if (!isKnown) return new GraphReader({ node: () => {}, edge: () => {}, data: () => {} }, []);
  const state = new GraphFactReader(facts);
  const reader = new GraphReader(state, state.attributes);
  return {
    feed: (chunk) => reader.feed(chunk),
    skipRecords: (bytes) => reader.skipRecords(bytes),
    get declarations() {
      return reader.declarations;
    },
    end: () => {
      reader.end();
      state.ended();
    },
  };
}

/** Reports nodes and edges with the attributes that the checks use. */
class GraphFactReader implements GraphEvents {
  readonly #facts: FactSink;
  /** Name of the node being read; empty for an edge. */
  readonly #node = new TextSlot();
  #isTyped = true;

  constructor(facts: FactSink) {
    this.#facts = facts;
  }

  get attributes(): string[] {
    return this.#facts.source === undefined ? ['entity_type'] : ['entity_type', 'source_id'];
  }

  node(id: Buffer): void {
    this.ended();
    this.#node.set(id);
    this.#isTyped = false;
    this.#facts.name('nodes', id);
  }

  edge(source: Buffer, target: Buffer): void {
    this.ended();
    this.#facts.name('ends', source);
    this.#facts.name('ends', target);
    this.#facts.name('edges', ...pairParts(source, target));
  }

  data(name: string, text: Buffer): void {
    if (name === 'entity_type') this.#isTyped = !text.equals(UNTYPED);
    else if (name === 'source_id') for (const chunk of separated(text)) this.#facts.source?.(chunk);
  }

  ended(): void {
    const name = this.#node.bytes;
    if (name !== undefined && !this.#isTyped) this.#facts.name('untypedNodes', name);
    this.#node.clear();
    this.#isTyped = true;
  }
}
