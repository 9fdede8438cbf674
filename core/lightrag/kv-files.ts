import { TextSlot } from './chunk-reader.ts';
import { type FactSink, pairParts } from './facts.ts';
import type { RecordEvents, RecordKinds } from './record-reader.ts';

const NONE: Buffer = Buffer.alloc(0);

/** Ignores everything; subclasses report what their file defines. */
class Records implements RecordEvents {
  protected readonly facts: FactSink;
  readonly fields: ReadonlySet<string> = new Set();
  readonly marks: ReadonlySet<string> = new Set();

  constructor(facts: FactSink) {
    this.facts = facts;
  }

  begin(_: Buffer): void {}
  mark(_: string): void {}
  value(_field: string, _bytes: Buffer): void {}
  item(_field: string, _bytes: Buffer): void {}
  pair(_field: string, _length: number, _a: Buffer, _b: Buffer): void {}
  end(): void {}
}

/** Field of a document or chunk without which a server takes the record for absent. */
const CONTENT: ReadonlySet<string> = new Set(['content']);

class Documents extends Records {
  override readonly marks = CONTENT;
  readonly #id = new TextSlot();

  override begin(id: Buffer): void {
    this.#id.set(id);
  }

  override mark(): void {
    this.facts.name('documents', this.#id.bytes ?? NONE);
  }
}

/** Status words that a server knows; those of RAG-Anything as well. */
const STATUS_WORDS: ReadonlySet<string> = new Set([
  ...['pending', 'parsing', 'analyzing', 'processing', 'preprocessed', 'processed', 'failed'],
  ...['ready', 'handling'],
]);

/** Fields that a server needs to read a status at all. */
const STATUS_FIELDS: ReadonlySet<string> = new Set([
  'content_summary',
  'content_length',
  'created_at',
  'updated_at',
]);

class Statuses extends Records {
  override readonly fields = new Set(['status', 'chunks_count', 'chunks_list']);
  override readonly marks = STATUS_FIELDS;
  readonly #marked = new Set<string>();
  #id: Buffer = Buffer.alloc(0);
  #status: string | undefined;
  #count: number | undefined;
  #chunks: Buffer[] = [];

  override begin(id: Buffer): void {
    this.#id = Buffer.from(id);
    this.#status = undefined;
    this.#count = undefined;
    this.#chunks = [];
    this.#marked.clear();
  }

  override mark(field: string): void {
    this.#marked.add(field);
  }

  override value(field: string, bytes: Buffer): void {
    if (field === 'status') this.#status = bytes.toString('utf8');
    // Servers write null where they did not count.
    else if (field === 'chunks_count') this.#count = countOf(bytes);
  }

  override item(field: string, bytes: Buffer): void {
    if (field === 'chunks_list') this.#chunks.push(Buffer.from(bytes));
  }

  override end(): void {
    const { facts } = this;
    const isProcessed = this.#status === 'processed';
    facts.name('statuses', this.#id);
    if (this.#status === undefined || this.#marked.size < STATUS_FIELDS.size)
      facts.flaw('status_missing', this.#id);
    else if (!STATUS_WORDS.has(this.#status)) facts.flaw('status_unknown', this.#id);
    if (isProcessed) facts.name('processed', this.#id);
    for (const chunk of this.#chunks) facts.name(isProcessed ? 'promised' : 'openChunks', chunk);
    // Versions before the list wrote the count alone.
    const listed = this.#chunks.length;
    if (isProcessed && listed > 0 && this.#count !== undefined && this.#count !== listed)
      facts.flaw('chunks_count', this.#id);
  }
}

function countOf(bytes: Buffer): number | undefined {
  const text = bytes.toString('latin1');
  return /^[0-9]+$/.test(text) ? Number(text) : undefined;
}

class Chunks extends Records {
  override readonly fields = new Set(['full_doc_id']);
  override readonly marks = CONTENT;
  readonly #id = new TextSlot();
  readonly #document = new TextSlot();
  #hasContent = false;

  override begin(id: Buffer): void {
    this.#id.set(id);
    this.#document.clear();
    this.#hasContent = false;
  }

  override mark(): void {
    this.#hasContent = true;
  }

  override value(field: string, bytes: Buffer): void {
    if (field === 'full_doc_id') this.#document.set(bytes);
  }

  override end(): void {
    if (!this.#hasContent) return;
    this.facts.name('chunks', this.#id.bytes ?? NONE);
    const document = this.#document.bytes;
    if (document !== undefined) this.facts.name('chunkDocuments', document);
  }
}

class FullEntities extends Records {
  override readonly fields = new Set(['entity_names']);

  override begin(id: Buffer): void {
    this.facts.name('entityDocuments', id);
  }

  override item(field: string, bytes: Buffer): void {
    if (field === 'entity_names') this.facts.name('namedEntities', bytes);
  }
}

class FullRelations extends Records {
  override readonly fields = new Set(['relation_pairs']);

  override begin(id: Buffer): void {
    this.facts.name('relationDocuments', id);
  }

  override pair(field: string, length: number, a: Buffer, b: Buffer): void {
    if (field === 'relation_pairs' && length === 2) this.facts.name('namedRelations', ...pairParts(a, b));
  }
}

/** Reader of each file of records that the checks compare, by the middle of its name. */
export const RECORD_FILES: Readonly<Record<string, (facts: FactSink) => RecordEvents>> = {
  full_docs: (facts) => new Documents(facts),
  doc_status: (facts) => new Statuses(facts),
  text_chunks: (facts) => new Chunks(facts),
  full_entities: (facts) => new FullEntities(facts),
  full_relations: (facts) => new FullRelations(facts),
};

/** What the records of a file may be, where not all must be maps. A server reads each of these when it needs it. */
// It completes the lists of names at its start, and passes over those that are null.
export const RECORD_KINDS: Readonly<Record<string, RecordKinds>> = {
  full_entities: 'optional',
  full_relations: 'optional',
  entity_chunks: 'any',
  relation_chunks: 'any',
  llm_response_cache: 'any',
};

/** Makes the events of any other file of records, of which only the layout is checked. */
export function otherRecords(facts: FactSink): RecordEvents {
  return new Records(facts);
}
