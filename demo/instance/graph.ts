import {
  GRAPH_KEYS,
  type GraphEdge,
  type GraphKey,
  type GraphNode,
  graphmlText,
  usedKeys,
} from '../graphml.ts';

/** A graph in memory, in the order of its growth. */
export interface Graph {
  /** Attributes with their types; any other is a string. */
  readonly keys: readonly GraphKey[];
  readonly nodes: Map<string, GraphNode>;
  /** Edges by `edgeKey`. */
  readonly edges: Map<string, GraphEdge>;
}

/** Returns an empty graph. */
export function emptyGraph(): Graph {
  return { keys: GRAPH_KEYS, nodes: new Map(), edges: new Map() };
}

/** Returns the key of an edge, equal for both directions. */
export function edgeKey(ends: readonly [string, string]): string {
  return [...ends].sort().join('\0');
}

/** Yields the text of the graph file. Later changes of the graph have no effect on it. */
export function graphText({ keys, nodes, edges }: Graph): Generator<string> {
  const allNodes = [...nodes.values()];
  const allEdges = inNodeOrder([...nodes.keys()], [...edges.values()]);
  return graphmlText(usedKeys(keys, allNodes, allEdges), allNodes, allEdges);
}

/** Returns edges in networkx's order: node by node, the neighbours not seen before. */
function inNodeOrder(names: readonly string[], edges: readonly GraphEdge[]): GraphEdge[] {
  const places = new Map(names.map((name, place) => [name, place]));
  const first = (edge: GraphEdge): number => Math.min(...edge.ends.map((end) => places.get(end) ?? 0));
  const ranked = edges.map((edge) => ({ edge, place: first(edge) }));
  return ranked.sort((a, b) => a.place - b.place).map(({ edge }) => edge);
}

interface Tag {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly isOpening: boolean;
  readonly isClosing: boolean;
  /** Text between this tag and the next. */
  readonly text: string;
}

const PROLOG = /^<\?xml[^>]*\?>/;
const TAG = /<(\/?)([A-Za-z][\w.:-]*)((?:\s+[\w.:-]+\s*=\s*(?:"[^"<]*"|'[^'<]*'))*)\s*(\/?)>([^<]*)/y;
const ATTRIBUTE = /([\w.:-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')/g;
const NAMED: Readonly<Record<string, string>> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" };

/** Reads GraphML as networkx writes it. Throws an Error for a cut text or any other format. */
export function readGraph(text: string): Graph {
  const keys = new Map<string, GraphKey>();
  const graph = { ...emptyGraph(), keys: [] as GraphKey[] };
  let data: Record<string, string> = {};
  for (const { name, attributes, isOpening, isClosing, text: inner } of tags(text)) {
    if (name === 'key' && isOpening) addKey(keys, attributes);
    if ((name === 'node' || name === 'edge') && isOpening) {
      data = {};
      if (name === 'node') {
        const id = given(attributes, 'id');
        if (graph.nodes.has(id)) throw new Error(`the node "${id}" occurs twice`);
        graph.nodes.set(id, { id, attributes: data });
      } else {
        const ends: [string, string] = [given(attributes, 'source'), given(attributes, 'target')];
        graph.edges.set(edgeKey(ends), { ends, attributes: data });
      }
    }
    if (name === 'data' && isOpening) {
      const id = given(attributes, 'key');
      const key = keys.get(id);
      if (key === undefined) throw new Error(`the key "${id}" is not declared`);
      data[key.name] = isClosing ? '' : unescaped(inner);
    }
  }
  for (const { ends } of graph.edges.values()) {
    const lost = ends.find((end) => !graph.nodes.has(end));
    if (lost !== undefined) throw new Error(`an edge leads to "${lost}", which is not a node`);
  }
  const numbered = [...keys].sort(([a], [b]) => Number(a.slice(1)) - Number(b.slice(1)));
  return { ...graph, keys: numbered.length === 0 ? GRAPH_KEYS : numbered.map(([, key]) => key) };
}

function addKey(keys: Map<string, GraphKey>, attributes: Tag['attributes']): void {
  const owner = given(attributes, 'for');
  if (owner !== 'node' && owner !== 'edge') return;
  const type = attributes['attr.type'] ?? 'string';
  keys.set(given(attributes, 'id'), { owner, name: given(attributes, 'attr.name'), type });
}

function given(attributes: Tag['attributes'], name: string): string {
  const value = attributes[name];
  if (value === undefined) throw new Error(`an element lacks its "${name}"`);
  return value;
}

/** Yields all tags, properly nested, from `<graphml>` to its end. */
function* tags(text: string): Generator<Tag> {
  const open: string[] = [];
  let at = (PROLOG.exec(text)?.[0] ?? '').length;
  while (/\s/.test(text[at] ?? '')) at += 1;
  for (let isFirst = true; at < text.length; isFirst = false) {
    TAG.lastIndex = at;
    const [whole = '', slash, name = '', attributes = '', selfEnd, inner = ''] = TAG.exec(text) ?? [];
    const isRoot = open.length === 0;
    if (whole === '' || (isRoot && (!isFirst || name !== 'graphml'))) {
      throw new Error(`it is cut or not GraphML at character ${at}`);
    }
    if (slash === '/' && open.pop() !== name) throw new Error(`</${name}> closes nothing at character ${at}`);
    if (slash === '' && selfEnd === '') open.push(name);
    if (inner.trim() !== '' && open.at(-1) !== 'data' && open.at(-1) !== 'default') {
      throw new Error(`there is text outside of the data at character ${at}`);
    }
    const isOpening = slash === '';
    const isClosing = !isOpening || selfEnd === '/';
    yield { name, attributes: attributesOf(attributes), isOpening, isClosing, text: inner };
    at += whole.length;
  }
  if (open.length > 0 || text.trim() === '') throw new Error('it is cut');
}

function attributesOf(text: string): Record<string, string> {
  const attributes: Record<string, string> = {};
  for (const [, name = '', double, single = ''] of text.matchAll(ATTRIBUTE)) {
    attributes[name] = unescaped(double ?? single);
  }
  return attributes;
}

function unescaped(text: string): string {
  return text.replace(/&(?:#x([0-9a-f]+)|#(\d+)|(\w+));/gi, (written, hex, decimal, name) => {
    if (hex !== undefined) return String.fromCodePoint(Number.parseInt(hex, 16));
    if (decimal !== undefined) return String.fromCodePoint(Number(decimal));
    return NAMED[name] ?? written;
  });
}
