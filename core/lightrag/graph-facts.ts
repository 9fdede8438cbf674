import { type ChunkReader, TextSlot } from './chunk-reader.ts';
import { entityState, type FactSink, pairParts, relationState, separated } from './facts.ts';
import { type GraphEvents, GraphReader } from './graphml.ts';

/** Attributes from which the contents of a node or edge are compared with its vector. */
const STATE_ATTRIBUTES: readonly string[] = ['source_id', 'description', 'keywords'];
const NONE: Buffer = Buffer.alloc(0);

/** Makes a reader of a GraphML file that reports its facts, or only checks the layout of an unknown graph. */
export function graphReader(facts: FactSink, isKnown: boolean): ChunkReader {
  if (!isKnown) return new GraphReader({ node: () => {}, edge: () => {}, data: () => {} }, []);
  const state = new GraphFactReader(facts);
  const reader = new GraphReader(state, STATE_ATTRIBUTES);
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

/** Reports nodes and edges with their attributes. */
class GraphFactReader implements GraphEvents {
  readonly #facts: FactSink;
  /** The node or edge being read. */
  #open: { kind: 'node' | 'edge'; name: Buffer[] } | undefined;
  readonly #texts = new Map(STATE_ATTRIBUTES.map((name) => [name, new TextSlot()]));

  constructor(facts: FactSink) {
    this.#facts = facts;
  }

  node(id: Buffer): void {
    this.ended();
    this.#open = { kind: 'node', name: [Buffer.from(id)] };
    this.#facts.name('nodes', id);
  }

  edge(source: Buffer, target: Buffer): void {
    this.ended();
    const ends = pairParts(source, target);
    this.#open = { kind: 'edge', name: ends.map((part) => Buffer.from(part)) };
    this.#facts.name('ends', source);
    this.#facts.name('ends', target);
    this.#facts.name('edges', ...ends);
  }

  data(name: string, text: Buffer): void {
    this.#texts.get(name)?.set(text);
  }

  ended(): void {
    const { kind, name } = this.#open ?? {};
    if (name === undefined) return;
    const text = (attribute: string) => this.#texts.get(attribute)?.bytes ?? NONE;
    const sources = text('source_id');
    const [table, states] =
      kind === 'node' ? (['nodeSources', 'nodeStates'] as const) : (['edgeSources', 'edgeStates'] as const);
    for (const chunk of separated(sources)) this.#facts.name(table, chunk);
    const description = text('description');
    const state =
      kind === 'node'
        ? entityState(name[0] ?? NONE, description, sources)
        : relationState(name, text('keywords'), description, sources);
    this.#facts.name(states, ...state);
    this.#open = undefined;
    for (const slot of this.#texts.values()) slot.clear();
  }
}
