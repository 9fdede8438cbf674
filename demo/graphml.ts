import { type Corpus, edges, entities } from './corpus.ts';
import { type Entity, joinedSources, type Relation } from './document.ts';

/** The attributes as networkx numbers them (d0, d1, …): nodes first, each in the order of its first use. */
const NODE_KEYS = [
  'entity_id',
  'entity_type',
  'description',
  'source_id',
  'file_path',
  'created_at',
  'truncate',
];
const EDGE_KEYS = ['weight', 'description', 'keywords', 'source_id', 'file_path', 'created_at', 'truncate'];
const TYPES: Readonly<Record<string, string>> = { weight: 'double', created_at: 'long' };

const NAMESPACE = 'http://graphml.graphdrawing.org/xmlns';

/** The text of the graph file, piece by piece, as networkx writes it with lxml. */
export function* graphmlFile(corpus: Corpus): Generator<string> {
  yield header();
  for (const entity of entities(corpus)) yield nodeText(entity);
  for (const edge of edges(corpus)) yield edgeText(edge);
  yield '</graph></graphml>';
}

function header(): string {
  const keys = [
    ...NODE_KEYS.map((name, i) => keyText(name, i, 'node')),
    ...EDGE_KEYS.map((name, i) => keyText(name, NODE_KEYS.length + i, 'edge')),
  ];
  return (
    `<?xml version='1.0' encoding='utf-8'?>\n<graphml xmlns="${NAMESPACE}" ` +
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" ' +
    `xsi:schemaLocation="${NAMESPACE} ${NAMESPACE}/1.0/graphml.xsd">` +
    `${keys.reverse().join('')}<graph edgedefault="undirected">`
  );
}

function keyText(name: string, index: number, owner: string): string {
  return `<key id="d${index}" for="${owner}" attr.name="${name}" attr.type="${TYPES[name] ?? 'string'}"/>\n`;
}

function nodeText(entity: Entity): string {
  const { name, type, description, sources, filePath, createdAt } = entity;
  const values = [name, type, description, joinedSources(sources), filePath, String(createdAt), ''];
  return `<node id="${inAttribute(name)}">\n${dataText(values, 0)}</node>\n`;
}

function edgeText(relation: Relation): string {
  const { ends, weight, description, keywords, sources, filePath, createdAt } = relation;
  const [source, target] = ends.map(inAttribute);
  const joined = joinedSources(sources);
  const values = [weight.toFixed(1), description, keywords, joined, filePath, String(createdAt), ''];
  const data = dataText(values, NODE_KEYS.length);
  return `<edge source="${source}" target="${target}">\n${data}</edge>\n`;
}

function dataText(values: readonly string[], firstKey: number): string {
  return values.map((value, i) => `  <data key="d${firstKey + i}">${inText(value)}</data>\n`).join('');
}

function inText(value: string): string {
  return value.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

function inAttribute(value: string): string {
  return inText(value).replaceAll('"', '&quot;');
}
