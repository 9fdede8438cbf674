import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** The layout of one file without its data. */
export interface FileShape {
  /** Layout of the bytes; `other` for one that LightRAG does not write. */
  readonly layout: string;
  /** Distinct records: fields in their order with their types, and `type*` for the types of a list's items. */
  readonly records: readonly string[];
}

/** The layout of each file of a directory, by name. */
export type DirectoryShape = Readonly<Record<string, FileShape>>;

const NODE_OR_EDGE = /<(node|edge) [^>]*>\n((?: {2}<data key="d\d+">[^<>]*<\/data>\n)*)<\/\1>/g;
const KEY = /<key id="(d\d+)" for="(node|edge)" attr\.name="([^"]*)" attr\.type="(\w+)"\/>/g;
const VECTORS = /^\{"embedding_dim": \d+, "data": \[.*\], "matrix": "[\w+/]*={0,2}"\}$/;

/** Returns the layouts of a LightRAG directory's files, which are the same for two servers of one version. */
export async function directoryShape(dir: string): Promise<DirectoryShape> {
  const shapes: Record<string, FileShape> = {};
  for (const name of (await readdir(dir)).sort()) {
    const text = await readFile(join(dir, name), 'utf8');
    if (name.startsWith('kv_store_')) shapes[name] = kvShape(text);
    else if (name.startsWith('vdb_')) shapes[name] = vectorsShape(text);
    else if (name.endsWith('.graphml')) shapes[name] = graphShape(text);
    else shapes[name] = { layout: 'other', records: [] };
  }
  return shapes;
}

function kvShape(text: string): FileShape {
  const parsed = JSON.parse(text) as object;
  const isIndented = JSON.stringify(parsed, null, 2) === text;
  return {
    layout: isIndented ? 'indented by 2' : 'other',
    records: distinct(Object.values(parsed).map(shapeOf)),
  };
}

function vectorsShape(text: string): FileShape {
  const { data } = JSON.parse(text) as { data: object[] };
  // The separators of every row are those of its text without its values.
  const isPython = VECTORS.test(text) && !/"[^"\\]*":\S|","/.test(text.slice(0, text.indexOf('"matrix"')));
  return { layout: isPython ? 'one line' : 'other', records: distinct(data.map(shapeOf)) };
}

/** Returns the header with the key table as it is, and the attributes of nodes and edges. */
function graphShape(text: string): FileShape {
  const types = new Map([...text.matchAll(KEY)].map(([, id, , name, type]) => [id, `${name}: ${type}`]));
  const records = [...text.matchAll(NODE_OR_EDGE)].map(([, element, data = '']) => {
    const keys = [...data.matchAll(/key="(d\d+)"/g)].map(([, id]) => types.get(id));
    return `${element} ${keys.join(', ')}`;
  });
  const rest = text.replaceAll(NODE_OR_EDGE, '').replaceAll('\n', '\\n');
  return { layout: rest.replaceAll(/>(?:\\n)+<\/graph>/g, '></graph>'), records: distinct(records) };
}

function shapeOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return `[${distinct(value.map(shapeOf)).join(' | ')}]`;
  if (typeof value !== 'object') return typeof value;
  return `{${Object.entries(value)
    .map(([name, inner]) => `${name}: ${shapeOf(inner)}`)
    .join(', ')}}`;
}

function distinct(values: readonly string[]): string[] {
  return [...new Set(values)].sort();
}
