import { type ChunkReader, TextSlot } from './chunk-reader.ts';
import { type ValueType, valueTypeOf } from './graphml-values.ts';
import { XmlReader } from './xml.ts';
import type { XmlTag } from './xml-tag.ts';

/** Most bytes of an attribute's text; a longer one is skipped, as no check needs it. */
const TEXT_BYTES_MAX = 16 << 20;
const NAMESPACE = 'http://graphml.graphdrawing.org/xmlns';
/** The name that Python makes of a missing one. */
const NO_NAME: Buffer = Buffer.from('None');
const NONE: Buffer = Buffer.alloc(0);

/** What an element is to networkx. */
const ROLE = {
  other: 0,
  root: 1,
  key: 2,
  default: 3,
  graph: 4,
  node: 5,
  edge: 6,
  data: 7,
  group: 8,
} as const;
type Role = (typeof ROLE)[keyof typeof ROLE];

/**
 * Receives the nodes and edges of a graph in the order of the file.
 *
 * Texts are UTF-8, unescaped, and valid during the call only.
 */
export interface GraphEvents {
  node(id: Buffer): void;
  edge(source: Buffer, target: Buffer): void;
  /** Receives a requested attribute of the last node or edge, by its `attr.name`. */
  data(name: string, text: Buffer): void;
}

/** A declared attribute. */
interface Key {
  /** Undefined if it is missing, which is a name of its own. */
  readonly id: Buffer | undefined;
  readonly name: string;
  readonly type: ValueType;
  readonly isWanted: boolean;
}

/**
 * Reads GraphML of any size in chunks.
 *
 * Accepts what networkx accepts in `read_graphml`, but keys must precede the graph. The first graph is reported.
 */
// Keys are matched by `attr.name`, because their ids are not stable.
export class GraphReader implements ChunkReader {
  readonly #xml: XmlReader;
  readonly #document: GraphDocument;

  constructor(events: GraphEvents, wanted: readonly string[] | 'all') {
    const document = new GraphDocument(events, wanted);
    this.#document = document;
    this.#xml = new XmlReader(document);
    document.wrong = (state) => this.#xml.wrongTag(state);
  }

  feed(chunk: Buffer): void {
    this.#xml.feed(chunk);
  }

  /** What later records depend on: the attribute of each key id, and the kind of the graph. */
  get declarations(): string {
    return this.#document.declarations;
  }

  /** Skips whole nodes and edges. Returns false if the reader is within one. */
  skipRecords(bytes: number): boolean {
    return this.#document.isBetweenRecords && this.#xml.skip(bytes);
  }

  end(): void {
    this.#xml.end();
    this.#document.end();
  }
}

/** Interprets the elements of a GraphML document as networkx does. */
class GraphDocument {
  readonly #events: GraphEvents;
  /** Names of the requested attributes; undefined for all. */
  readonly #wanted: ReadonlySet<string> | undefined;
  readonly #keys: Key[] = [];
  readonly #roles: Role[] = [];
  /** Graphs in the open elements and before. */
  #graphs = 0;
  /** Namespace of the elements that networkx finds. */
  #namespace = NAMESPACE;
  #isDirected = false;
  /** The last key that was opened. */
  #key: Key | undefined;
  #hasDefault = false;
  /** The attribute whose text is being read. */
  #attribute: Key | undefined;
  /** Whether the element whose text is read has had another in it. */
  #hasChild = false;
  /** The first piece of the text, which has mostly no other, and the pieces after it. */
  readonly #text = new TextSlot();
  #pieces: Buffer[] = [];
  #textBytes = 0;
  wantsText = false;
  wrong: (state: string) => Error = Error;

  constructor(events: GraphEvents, wanted: readonly string[] | 'all') {
    this.#events = events;
    this.#wanted = wanted === 'all' ? undefined : new Set(wanted);
  }

  get declarations(): string {
    const keys = this.#keys.map(({ id, name, type }) => [id?.toString('latin1'), name, type.name]);
    return JSON.stringify([this.#namespace, this.#isDirected, this.#graphs, keys]);
  }

  get isBetweenRecords(): boolean {
    return this.#graphs === 1 && this.#roles.length === 2 && this.#roles[1] === ROLE.graph;
  }

  end(): void {
    if (this.#graphs === 0) throw this.wrong('it has no graph');
  }

  open(tag: XmlTag): void {
    const parent = this.#roles.at(-1);
    if (parent === ROLE.data || parent === ROLE.default) {
      this.#hasChild = true;
      this.wantsText = false;
    }
    const role = this.#roleOf(tag, parent);
    this.#roles.push(role);
    this.#begin(role, tag);
  }

  close(): void {
    const role = this.#roles.pop();
    if (role === ROLE.data) this.#endData();
    else if (role === ROLE.default) this.#endDefault();
  }

  text(bytes: Buffer): void {
    this.#textBytes += bytes.length;
    if (this.#textBytes > TEXT_BYTES_MAX) {
      this.wantsText = false;
      this.#pieces = [];
    } else if (this.#text.bytes === undefined) this.#text.set(bytes);
    else this.#pieces.push(Buffer.from(bytes));
  }

  #wholeText(): Buffer {
    const first = this.#text.bytes ?? NONE;
    return this.#pieces.length === 0 ? first : Buffer.concat([first, ...this.#pieces]);
  }

  #roleOf(tag: XmlTag, parent: Role | undefined): Role {
    if (parent === undefined) {
      // networkx adds the namespace where the tag has no attributes at all.
      if (tag.isBare && tag.qualifiedName === 'graphml') this.#namespace = '';
      return ROLE.root;
    }
    if (tag.uri !== this.#namespace) return ROLE.other;
    switch (parent) {
      case ROLE.root:
        return tag.name === 'key' ? ROLE.key : tag.name === 'graph' ? ROLE.graph : ROLE.other;
      case ROLE.key:
        return tag.name === 'default' && !this.#hasDefault ? ROLE.default : ROLE.other;
      case ROLE.graph:
        return this.#roleInGraph(tag);
      case ROLE.group:
        // Only the first graph in a group is read.
        if (tag.name !== 'graph') return tag.name === 'data' ? ROLE.data : ROLE.other;
        this.#roles[this.#roles.length - 1] = ROLE.node;
        return ROLE.graph;
      case ROLE.node:
      case ROLE.edge:
        return tag.name === 'data' ? ROLE.data : ROLE.other;
      default:
        return ROLE.other;
    }
  }

  #roleInGraph(tag: XmlTag): Role {
    switch (tag.name) {
      case 'node':
        return tag.text('yfiles.foldertype') === 'group' ? ROLE.group : ROLE.node;
      case 'edge':
        return ROLE.edge;
      case 'data':
        return ROLE.data;
      case 'hyperedge':
        throw this.wrong('hyperedges are not supported');
      default:
        return ROLE.other;
    }
  }

  #begin(role: Role, tag: XmlTag): void {
    switch (role) {
      case ROLE.key:
        this.#beginKey(tag);
        return;
      case ROLE.default:
        this.#hasDefault = true;
        this.#beginText(true);
        return;
      case ROLE.graph:
        if (this.#roles.length > 2) return;
        this.#graphs += 1;
        this.#isDirected = tag.text('edgedefault') === 'directed';
        return;
      case ROLE.node:
      case ROLE.group:
        if (this.#graphs === 1) this.#events.node(tag.attribute('id') ?? NO_NAME);
        return;
      case ROLE.edge:
        this.#beginEdge(tag);
        return;
      case ROLE.data:
        this.#beginData(tag);
        return;
    }
  }

  #beginKey(tag: XmlTag): void {
    const group = tag.text('yfiles.type');
    const id = tag.attribute('id');
    const name = group ?? tag.text('attr.name');
    if (name === undefined) throw this.wrong('a key has no attr.name');
    const typeName = group === undefined ? (tag.text('attr.type') ?? 'string') : 'yfiles';
    const type = valueTypeOf(typeName);
    if (type === undefined) throw this.wrong(`the attr.type "${typeName.slice(0, 40)}" is unknown`);
    const isWanted = this.#wanted?.has(name) !== false;
    this.#key = { id: id && Buffer.from(id), name, type, isWanted };
    this.#hasDefault = false;
    const before = this.#keys.findIndex((key) => tag.hasValue('id', key.id));
    if (before >= 0) this.#keys[before] = this.#key;
    else this.#keys.push(this.#key);
  }

  #beginEdge(tag: XmlTag): void {
    const directed = tag.text('directed');
    if (directed === (this.#isDirected ? 'false' : 'true'))
      throw this.wrong('it has both directed and undirected edges');
    if (this.#graphs !== 1) return;
    this.#events.edge(tag.attribute('source') ?? NO_NAME, tag.attribute('target') ?? NO_NAME);
  }

  #beginData(tag: XmlTag): void {
    let key: Key | undefined;
    for (const one of this.#keys) if (tag.hasValue('key', one.id)) key = one;
    if (key === undefined)
      throw this.wrong(`the key "${(tag.text('key') ?? '').slice(0, 40)}" is not declared`);
    this.#attribute = key;
    this.#beginText(key.type.isWrong !== undefined || key.isWanted);
  }

  #beginText(isWanted: boolean): void {
    this.#text.clear();
    this.#pieces = [];
    this.#textBytes = 0;
    this.#hasChild = false;
    this.wantsText = isWanted;
  }

  #endData(): void {
    this.wantsText = false;
    const key = this.#attribute;
    // networkx reads elements within data as those of another program.
    if (key === undefined || this.#hasChild || this.#textBytes > TEXT_BYTES_MAX) return;
    const text = this.#wholeText();
    if (text.length > 0) this.#convert(key, text);
    const isOfRecord = this.#graphs === 1 && this.#roles.at(-1) !== ROLE.graph;
    if (key.isWanted && isOfRecord) this.#events.data(key.name, text);
  }

  #endDefault(): void {
    this.wantsText = false;
    if (this.#key !== undefined) this.#convert(this.#key, this.#wholeText());
  }

  #convert({ name, type }: Key, text: Buffer): void {
    if (type.isWrong?.(text.toString('utf8')) === true)
      throw this.wrong(`a value of "${name.slice(0, 40)}" is not of the type ${type.name}`);
  }
}
