import { type Corpus, edges, entities } from './corpus.ts';
import { joinedSources } from './document.ts';

/** An attribute that a `<data>` element holds. */
export interface GraphKey {
  readonly name: string;
  readonly owner: 'node' | 'edge';
  /** Type in GraphML: `string`, `double`, `long`. */
  readonly type: string;
}

/** Attributes by name, in the order in which they were set. */
export type Attributes = Readonly<Record<string, string>>;

export interface GraphNode {
  readonly id: string;
  readonly attributes: Attributes;
}

export interface GraphEdge {
  readonly ends: readonly [string, string];
  readonly attributes: Attributes;
}

const keyOf = (owner: GraphKey['owner'], name: string, type = 'string'): GraphKey => ({ owner, name, type });

/** The attributes that an ingest sets, in the order in which it sets them. */
export const GRAPH_KEYS: readonly GraphKey[] = [
  keyOf('node', 'entity_id'),
  keyOf('node', 'entity_type'),
  keyOf('node', 'description'),
  keyOf('node', 'source_id'),
  keyOf('node', 'file_path'),
  keyOf('node', 'created_at', 'long'),
  keyOf('node', 'truncate'),
  keyOf('edge', 'weight', 'double'),
  keyOf('edge', 'description'),
  keyOf('edge', 'keywords'),
  keyOf('edge', 'source_id'),
  keyOf('edge', 'file_path'),
  keyOf('edge', 'created_at', 'long'),
  keyOf('edge', 'truncate'),
];

const NAMESPACE = 'http://graphml.graphdrawing.org/xmlns';

/** Yields the text of the graph file as networkx writes it with lxml. */
export function* graphmlFile(corpus: Corpus): Generator<string> {
  const hasNodes = !graphNodes(corpus).next().done;
  const hasEdges = !graphEdges(corpus).next().done;
  const keys = GRAPH_KEYS.filter(({ owner }) => (owner === 'node' ? hasNodes : hasEdges));
  yield* graphmlText(keys, graphNodes(corpus), graphEdges(corpus));
}

/** Returns the keys of a graph as networkx numbers them: nodes first, each in the order of first use. */
export function usedKeys(
  known: readonly GraphKey[],
  nodes: Iterable<GraphNode>,
  edgesOfGraph: Iterable<GraphEdge>,
): GraphKey[] {
  const used = new Map<string, GraphKey>();
  const use = (owner: GraphKey['owner'], attributes: Attributes): void => {
    for (const name in attributes) {
      const id = `${owner} ${name}`;
      if (!used.has(id)) used.set(id, known.find((key) => isKey(key, owner, name)) ?? keyOf(owner, name));
    }
  };
  for (const { attributes } of nodes) use('node', attributes);
  for (const { attributes } of edgesOfGraph) use('edge', attributes);
  return [...used.values()];
}

const isKey = (key: GraphKey, owner: string, name: string): boolean =>
  key.owner === owner && key.name === name;

/** Yields the text of a graph file of any nodes and edges; key number i is named `d<i>`. */
export function* graphmlText(
  keys: readonly GraphKey[],
  nodes: Iterable<GraphNode>,
  edgesOfGraph: Iterable<GraphEdge>,
): Generator<string> {
  yield header(keys);
  const nodeKeys = numbersOf(keys, 'node');
  const edgeKeys = numbersOf(keys, 'edge');
  for (const { id, attributes } of nodes) {
    yield `<node id="${inAttribute(id)}">\n${dataText(nodeKeys, attributes)}</node>\n`;
  }
  for (const { ends, attributes } of edgesOfGraph) {
    const [source, target] = ends.map(inAttribute);
    yield `<edge source="${source}" target="${target}">\n${dataText(edgeKeys, attributes)}</edge>\n`;
  }
  yield '</graph></graphml>';
}

/** Yields all entities as nodes, in the order of their first mention. */
export function* graphNodes(corpus: Corpus): Generator<GraphNode> {
  for (const { name, type, description, sources, filePath, createdAt } of entities(corpus)) {
    const attributes = {
      entity_id: name,
      entity_type: type,
      description,
      source_id: joinedSources(sources),
      file_path: filePath,
      created_at: String(createdAt),
      truncate: '',
    };
    yield { id: name, attributes };
  }
}

/** Yields all relations as edges, in networkx's order. */
export function* graphEdges(corpus: Corpus): Generator<GraphEdge> {
  for (const { ends, weight, description, keywords, sources, filePath, createdAt } of edges(corpus)) {
    const attributes = {
      weight: weight.toFixed(1),
      description,
      keywords,
      source_id: joinedSources(sources),
      file_path: filePath,
      created_at: String(createdAt),
      truncate: '',
    };
    yield { ends, attributes };
  }
}

function header(keys: readonly GraphKey[]): string {
  const texts = keys.map(({ name, owner, type }, index) => {
    return `<key id="d${index}" for="${owner}" attr.name="${name}" attr.type="${type}"/>\n`;
  });
  return (
    `<?xml version='1.0' encoding='utf-8'?>\n<graphml xmlns="${NAMESPACE}" ` +
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" ' +
    `xsi:schemaLocation="${NAMESPACE} ${NAMESPACE}/1.0/graphml.xsd">` +
    `${texts.reverse().join('')}<graph edgedefault="undirected">`
  );
}

/** Returns the numbers of one owner's keys by name. */
function numbersOf(keys: readonly GraphKey[], owner: GraphKey['owner']): Map<string, number> {
  return new Map(keys.flatMap((key, index) => (key.owner === owner ? [[key.name, index] as const] : [])));
}

function dataText(numbers: ReadonlyMap<string, number>, attributes: Attributes): string {
  let text = '';
  for (const name in attributes) {
    const number = numbers.get(name);
    if (number === undefined) throw new Error(`the attribute "${name}" has no key`);
    text += `  <data key="d${number}">${inText(attributes[name] as string)}</data>\n`;
  }
  return text;
}

function inText(value: string): string {
  return value.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

function inAttribute(value: string): string {
  return inText(value).replaceAll('"', '&quot;');
}
