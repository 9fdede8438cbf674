import { type FactSink, pairParts, separated, type TableName } from './facts.ts';
import type { RecordEvents } from './record-reader.ts';

const CHUNK_PREFIX = Buffer.from('chunk-');

/** Ignores everything; subclasses report what their file defines. */
class Records implements RecordEvents {
  protected readonly facts: FactSink;
  readonly fields: ReadonlySet<string> = new Set();

  constructor(facts: FactSink) {
    this.facts = facts;
  }

  begin(_: Buffer): void {}
  value(_field: string, _bytes: Buffer): void {}
  item(_field: string, _bytes: Buffer): void {}
  pair(_field: string, _length: number, _a: Buffer, _b: Buffer): void {}
  end(): void {}
}

class Ids extends Records {
  readonly #table: TableName;

  constructor(facts: FactSink, table: TableName) {
    super(facts);
    this.#table = table;
  }

  override begin(id: Buffer): void {
    this.facts.name(this.#table, id);
  }
}

class Statuses extends Records {
  override readonly fields = new Set(['status', 'chunks_count', 'chunks_list']);
  #id: Buffer = Buffer.alloc(0);
  #status = '';
  #count: number | undefined;
  #chunks: Buffer[] = [];

  override begin(id: Buffer): void {
    this.#id = Buffer.from(id);
    this.#status = '';
    this.#count = undefined;
    this.#chunks = [];
  }

  override value(field: string, bytes: Buffer): void {
    if (field === 'status') this.#status = bytes.toString('utf8').toLowerCase();
    else if (field === 'chunks_count') this.#count = Number(bytes.toString('latin1'));
  }

  override item(field: string, bytes: Buffer): void {
    if (field === 'chunks_list') this.#chunks.push(Buffer.from(bytes));
  }

  override end(): void {
    const { facts } = this;
    facts.name('statuses', this.#id);
    if (this.#status !== 'pending') facts.name('begun', this.#id);
    if (this.#status !== 'processed') return;
    for (const chunk of this.#chunks) facts.name('promised', chunk);
    // Versions before the list wrote the count alone.
    const listed = this.#chunks.length;
    if (listed > 0 && this.#count !== undefined && this.#count !== listed)
      facts.flaw('chunks_count', this.#id);
  }
}

class Chunks extends Records {
  override readonly fields = new Set(['full_doc_id', 'llm_cache_list']);

  override begin(id: Buffer): void {
    this.facts.name('chunks', id);
    if (!id.subarray(0, CHUNK_PREFIX.length).equals(CHUNK_PREFIX)) this.facts.flaw('chunk_id', id);
  }

  override value(field: string, bytes: Buffer): void {
    if (field === 'full_doc_id') this.facts.name('chunkDocuments', bytes);
  }

  override item(field: string, bytes: Buffer): void {
    if (field === 'llm_cache_list') this.facts.name('chunkAnswers', bytes);
  }
}

class FullEntities extends Records {
  override readonly fields = new Set(['entity_names']);

  override item(field: string, bytes: Buffer): void {
    if (field === 'entity_names') this.facts.name('namedEntities', bytes);
  }
}

class FullRelations extends Records {
  override readonly fields = new Set(['relation_pairs']);

  override pair(field: string, length: number, a: Buffer, b: Buffer): void {
    if (field === 'relation_pairs' && length === 2) this.facts.name('namedRelations', ...pairParts(a, b));
  }
}

class RelationChunks extends Records {
  override begin(id: Buffer): void {
    const [a, b, ...more] = [...separated(id)];
    const plain = a !== undefined && b !== undefined && more.length === 0;
    this.facts.name('chunkedRelations', ...(plain ? pairParts(a, b) : [id]));
  }
}

/** Reader of each known file of records, by the middle of its name. */
export const RECORD_FILES: Readonly<Record<string, (facts: FactSink) => RecordEvents>> = {
  full_docs: (facts) => new Ids(facts, 'documents'),
  doc_status: (facts) => new Statuses(facts),
  text_chunks: (facts) => new Chunks(facts),
  llm_response_cache: (facts) => new Ids(facts, 'answers'),
  full_entities: (facts) => new FullEntities(facts),
  full_relations: (facts) => new FullRelations(facts),
  entity_chunks: (facts) => new Ids(facts, 'chunkedEntities'),
  relation_chunks: (facts) => new RelationChunks(facts),
};

/** Makes the events of an unknown file of records, of which only the layout is checked. */
export function otherRecords(facts: FactSink): RecordEvents {
  return new Records(facts);
}
