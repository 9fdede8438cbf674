// Ways in which a file of a LightRAG directory comes to be damaged, and some that look like it and are harmless.

/** Makes other bytes of a file's bytes; `undefined` means that the file is gone. */
export type Damage = (bytes: Buffer) => Buffer | undefined;
export type Damages = Readonly<Record<string, Damage>>;

const PAGE = 4096;

function insertAt(bytes: Buffer, at: number, added: Buffer | string): Buffer {
  return Buffer.concat([bytes.subarray(0, at), Buffer.from(added), bytes.subarray(at)]);
}

function overwriteAt(bytes: Buffer, at: number, written: Buffer): Buffer {
  const copy = Buffer.from(bytes);
  written.copy(copy, Math.min(at, Math.max(0, copy.length - written.length)));
  return copy;
}

/** Returns a place in the middle of a text value, behind its first letters. */
function insideText(bytes: Buffer): number {
  const text = bytes.toString('latin1');
  const graph = text.indexOf('<graph ') + 1;
  const body = text.slice(graph);
  const found = [/<data key="[^"]*">/, /"content\w*": "/, /": "/]
    .map((one) => one.exec(body))
    .find((one) => one);
  return graph + (found ? found.index + found[0].length + 2 : Math.floor(body.length / 2));
}

function cutAt(find: (text: string) => number): Damage {
  return (bytes) => {
    const at = find(bytes.toString('latin1'));
    return bytes.subarray(0, at < 0 ? Math.floor(bytes.length / 2) : at);
  };
}

const share = (part: number) => (text: string) => Math.floor(text.length * part);

/** Damage that any file may have. */
export const ANY_FILE: Damages = {
  absent: () => undefined,
  empty: () => Buffer.alloc(0),
  'cut after the first byte': (bytes) => bytes.subarray(0, 1),
  'cut at a tenth': cutAt(share(0.1)),
  'cut in the middle': cutAt(share(0.5)),
  'cut at nine tenths': cutAt(share(0.9)),
  'cut by one byte': (bytes) => bytes.subarray(0, bytes.length - 1),
  'cut by two bytes': (bytes) => bytes.subarray(0, bytes.length - 2),
  'cut inside a text': (bytes) => bytes.subarray(0, insideText(bytes)),
  'cut at a page': (bytes) => bytes.subarray(0, Math.floor((bytes.length - 1) / PAGE) * PAGE),
  'all NULs': (bytes) => Buffer.alloc(bytes.length),
  'a page of NULs in the middle': (bytes) =>
    overwriteAt(bytes, Math.floor(bytes.length / 2), Buffer.alloc(Math.min(PAGE, bytes.length))),
  'NULs for the last bytes': (bytes) =>
    overwriteAt(bytes, bytes.length, Buffer.alloc(Math.min(512, bytes.length))),
  'NULs behind the end': (bytes) => Buffer.concat([bytes, Buffer.alloc(512)]),
  'a NUL in a text': (bytes) => insertAt(bytes, insideText(bytes), Buffer.of(0)),
  'a control character in a text': (bytes) => insertAt(bytes, insideText(bytes), Buffer.of(7)),
  'a vertical tab in a text': (bytes) => insertAt(bytes, insideText(bytes), Buffer.of(11)),
  'a raw newline in a text': (bytes) => insertAt(bytes, insideText(bytes), '\n'),
  'a DEL in a text': (bytes) => insertAt(bytes, insideText(bytes), Buffer.of(0x7f)),
  'a byte that is no UTF-8': (bytes) => insertAt(bytes, insideText(bytes), Buffer.of(0xff)),
  'half a character': (bytes) => insertAt(bytes, insideText(bytes), Buffer.of(0xe5, 0xbc)),
  'a surrogate as UTF-8': (bytes) => insertAt(bytes, insideText(bytes), Buffer.of(0xed, 0xa0, 0x80)),
  'an overlong character': (bytes) => insertAt(bytes, insideText(bytes), Buffer.of(0xc0, 0xaf)),
  'a byte-order mark': (bytes) => insertAt(bytes, 0, '\ufeff'),
  'CRLF for newlines': (bytes) => Buffer.from(bytes.toString('latin1').replaceAll('\n', '\r\n'), 'latin1'),
  'junk behind the end': (bytes) => Buffer.concat([bytes, Buffer.from('x')]),
  'itself twice': (bytes) => Buffer.concat([bytes, bytes]),
  'spaces behind the end': (bytes) => Buffer.concat([bytes, Buffer.from(' \n\n')]),
};

/** Damage of JSON files. */
export const JSON_FILE: Damages = {
  null: () => Buffer.from('null'),
  'an empty list': () => Buffer.from('[]'),
  'an empty object': () => Buffer.from('{}'),
  'a list with items': () => Buffer.from('[1]'),
  'a number': () => Buffer.from('5'),
  'a text': () => Buffer.from('"text"'),
  'cut before its last brace': cutAt((text) => text.lastIndexOf('}')),
  'cut after a key': cutAt((text) => text.indexOf('":') + 1),
  'cut after a colon': cutAt((text) => text.indexOf('":') + 2),
  'cut after a comma': cutAt((text) => text.indexOf(',') + 1),
  'cut after the first row': cutAt((text) => text.indexOf('},') + 1),
  'a wrong escape': (bytes) => insertAt(bytes, insideText(bytes), '\\x'),
  'a short escape': (bytes) => insertAt(bytes, insideText(bytes), '\\u12'),
  'a lone surrogate escape': (bytes) => insertAt(bytes, insideText(bytes), '\\ud800'),
  'a comma too many': (bytes) => insertAt(bytes, bytes.lastIndexOf('}'), ','),
  'a colon too few': (bytes) => Buffer.from(bytes.toString('latin1').replace('": ', '" '), 'latin1'),
  'a comment': (bytes) => insertAt(bytes, 1, '/* why */'),
  'an unquoted key': (bytes) => insertAt(bytes, 1, 'key: 1,'),
};

/** A JSON object with rows by their keys. */
type Rows = Record<string, unknown>;
type Fields = Record<string, unknown>;

function edited(edit: (rows: Rows, first: string) => void): Damage {
  return (bytes) => {
    const rows = JSON.parse(bytes.toString('utf8')) as Rows;
    const [first] = Object.keys(rows);
    if (first !== undefined) edit(rows, first);
    return Buffer.from(JSON.stringify(rows, null, 2));
  };
}

/** Damage of rows of kv files. */
export const KV_ROWS: Damages = {
  'a row of null': edited((rows, first) => {
    rows[first] = null;
  }),
  'all rows of null': edited((rows) => {
    for (const key of Object.keys(rows)) rows[key] = null;
  }),
  'a row that is a list': edited((rows, first) => {
    rows[first] = [1];
  }),
  'a row that is a text': edited((rows, first) => {
    rows[first] = 'text';
  }),
  'a row without fields': edited((rows, first) => {
    rows[first] = {};
  }),
  'an unknown field': edited((rows, first) => {
    (rows[first] as Fields).unknown_field = { a: [1] };
  }),
  'a row less': edited((rows, first) => {
    delete rows[first];
  }),
};

/** Damage of rows of the states of documents. */
export const STATUS_ROWS: Damages = {
  'no status': edited((rows, first) => {
    delete (rows[first] as Fields).status;
  }),
  'a status of null': edited((rows, first) => {
    (rows[first] as Fields).status = null;
  }),
  'an unknown status': edited((rows, first) => {
    (rows[first] as Fields).status = 'finished';
  }),
  'a status in capitals': edited((rows, first) => {
    (rows[first] as Fields).status = 'PROCESSED';
  }),
  'no chunks_list': edited((rows, first) => {
    delete (rows[first] as Fields).chunks_list;
  }),
  'a chunks_list of null': edited((rows, first) => {
    (rows[first] as Fields).chunks_list = null;
  }),
  'a chunk that is not there': edited((rows, first) => {
    (rows[first] as Fields).chunks_list = ['chunk-not-there'];
  }),
  'no created_at': edited((rows, first) => {
    delete (rows[first] as Fields).created_at;
  }),
  'no content_summary': edited((rows, first) => {
    delete (rows[first] as Fields).content_summary;
  }),
  'no file_path': edited((rows, first) => {
    delete (rows[first] as Fields).file_path;
  }),
  'metadata of null': edited((rows, first) => {
    (rows[first] as Fields).metadata = null;
  }),
};

interface Vectors {
  embedding_dim: unknown;
  data: unknown;
  matrix: unknown;
}

function vectors(edit: (file: Vectors & Fields, rows: (Fields | null)[], matrix: Buffer) => void): Damage {
  return (bytes) => {
    const file = JSON.parse(bytes.toString('utf8')) as Vectors & Fields;
    edit(file, file.data as (Fields | null)[], Buffer.from(String(file.matrix), 'base64'));
    return Buffer.from(JSON.stringify(file));
  };
}

function matrix(edit: (matrix: Buffer, rowBytes: number) => Buffer): Damage {
  return vectors((file, _, bytes) => {
    file.matrix = edit(bytes, Number(file.embedding_dim) * 4).toString('base64');
  });
}

function filled(bytes: Buffer, rowBytes: number, value: number): Buffer {
  const copy = Buffer.from(bytes);
  for (let at = 0; at < rowBytes; at += 4) copy.writeFloatLE(value, at);
  return copy;
}

/** Damage of vector files. */
export const VECTORS: Damages = {
  'no embedding_dim': vectors((file) => {
    delete (file as Fields).embedding_dim;
  }),
  'another embedding_dim': vectors((file) => {
    file.embedding_dim = 64;
  }),
  'an embedding_dim of null': vectors((file) => {
    file.embedding_dim = null;
  }),
  'an embedding_dim as a text': vectors((file) => {
    file.embedding_dim = String(file.embedding_dim);
  }),
  'no data': vectors((file) => {
    delete (file as Fields).data;
  }),
  'data of null': vectors((file) => {
    file.data = null;
  }),
  'no rows': vectors((file) => {
    file.data = [];
  }),
  'no rows and no matrix': vectors((file) => {
    file.data = [];
    file.matrix = '';
  }),
  'no matrix': vectors((file) => {
    delete (file as Fields).matrix;
  }),
  'a matrix of null': vectors((file) => {
    file.matrix = null;
  }),
  'an empty matrix': matrix(() => Buffer.alloc(0)),
  'a matrix that is a row too short': matrix((bytes, row) => bytes.subarray(0, bytes.length - row)),
  'a matrix that is a row too long': matrix((bytes, row) => Buffer.concat([bytes, bytes.subarray(0, row)])),
  'a matrix that is half a row too short': matrix((bytes, row) => bytes.subarray(0, bytes.length - row / 2)),
  'a matrix that is half a row too long': matrix((bytes, row) =>
    Buffer.concat([bytes, bytes.subarray(0, row / 2)]),
  ),
  'a matrix that is two bytes too long': matrix((bytes) => Buffer.concat([bytes, Buffer.alloc(2)])),
  'a matrix whose rows moved': matrix((bytes, row) =>
    Buffer.concat([bytes.subarray(row), bytes.subarray(0, row)]),
  ),
  'a matrix with letters that are not base64': vectors((file) => {
    file.matrix = `!!${String(file.matrix).slice(2)}`;
  }),
  'a matrix in base64 for URLs': vectors((file) => {
    file.matrix = String(file.matrix).replaceAll('+', '-').replaceAll('/', '_');
  }),
  'a matrix with a line break': vectors((file) => {
    file.matrix = `${String(file.matrix).slice(0, 76)}\n${String(file.matrix).slice(76)}`;
  }),
  'a matrix without its padding': vectors((file) => {
    file.matrix = String(file.matrix).replace(/=+$/, '').slice(0, -1);
  }),
  'a row of NaN': matrix((bytes, row) => filled(bytes, row, Number.NaN)),
  'a row of infinities': matrix((bytes, row) => filled(bytes, row, Number.POSITIVE_INFINITY)),
  'a row of zeros': matrix((bytes, row) => filled(bytes, row, 0)),
  'a row of null': vectors((_, rows) => {
    rows[0] = null;
  }),
  'a row without __id__': vectors((_, rows) => {
    delete rows[0]?.__id__;
  }),
  'an __id__ of null': vectors((_, rows) => {
    Object.assign(rows[0] ?? {}, { __id__: null });
  }),
  'two rows with one __id__': vectors((_, rows) => {
    Object.assign(rows[0] ?? {}, { __id__: rows[1]?.__id__ });
  }),
  'a row without its names': vectors((_, rows) => {
    for (const name of ['entity_name', 'src_id', 'full_doc_id']) delete rows[0]?.[name];
  }),
  'a row without content': vectors((_, rows) => {
    delete rows[0]?.content;
  }),
  'rows without vector': vectors((_, rows) => {
    for (const row of rows) delete row?.vector;
  }),
  'a vector that is cut': vectors((_, rows) => {
    Object.assign(rows[0] ?? {}, { vector: String(rows[0]?.vector).slice(0, 8) });
  }),
  'a row less': vectors((file, rows, bytes) => {
    file.data = rows.slice(1);
    file.matrix = bytes.subarray(Number(file.embedding_dim) * 4).toString('base64');
  }),
  'an unknown field': vectors((file, rows) => {
    file.unknown_field = 1;
    Object.assign(rows[0] ?? {}, { unknown_field: [1] });
  }),
  'another order of its keys': (bytes) => {
    const { embedding_dim, data, matrix } = JSON.parse(bytes.toString('utf8')) as Vectors;
    return Buffer.from(JSON.stringify({ matrix, data, embedding_dim }));
  },
  'written with line breaks': (bytes) =>
    Buffer.from(JSON.stringify(JSON.parse(bytes.toString('utf8')), null, 2)),
};

function xml(edit: (text: string) => string): Damage {
  return (bytes) => Buffer.from(edit(bytes.toString('latin1')), 'latin1');
}

const inText = (added: string) => (bytes: Buffer) => insertAt(bytes, insideText(bytes), added);

/** Damage of the graph's XML. */
export const XML: Damages = {
  'an & that is no entity': inText('&'),
  'an unknown entity': inText('&nothing;'),
  'a reference to a control character': inText('&#7;'),
  'a reference to NUL': inText('&#0;'),
  'a reference to a surrogate': inText('&#xD800;'),
  'a reference beyond Unicode': inText('&#x110000;'),
  'a reference to a line break': inText('&#10;'),
  'a < in a text': inText('<'),
  'a tag in a text': inText('<b>x</b>'),
  'a ]]> in a text': inText(']]>'),
  'a comment in a text': inText('<!-- why -->'),
  'a comment with --': inText('<!-- a -- b -->'),
  'CDATA in a text': inText('<![CDATA[a & b]]>'),
  'CDATA without its end': inText('<![CDATA[a'),
  'an instruction in a text': inText('<?a b?>'),
  'no end of an element': xml((text) => text.replace('</data>', '')),
  'another end of an element': xml((text) => text.replace('</data>', '</date>')),
  'no end of a node': xml((text) => text.replace('</node>', '')),
  'no end of the root': xml((text) => text.replace('</graphml>', '')),
  'an end too many': xml((text) => text.replace('</graph>', '</graph></graph>')),
  'an attribute twice': xml((text) => text.replace('<node id=', '<node id="x" id=')),
  'an attribute without quotes': xml((text) => text.replace(/<node id="[^"]*"/, '<node id=x')),
  'an attribute without a value': xml((text) => text.replace('<node id=', '<node checked id=')),
  'an attribute without its end': xml((text) => text.replace(/(<node id="[^"]*)"/, '$1')),
  'a < in an attribute': xml((text) => text.replace('<node id="', '<node id="<')),
  'no space between attributes': xml((text) => text.replace('attr.name="', 'attr.type="string"attr.name="')),
  'single quotes': xml((text) => text.replace(/<node id="([^"']*)"/, "<node id='$1'")),
  'no graph': xml((text) => text.replace(/<graph [\s\S]*<\/graph>/, '')),
  'an empty graph': xml((text) => text.replace(/(<graph [^>]*>)[\s\S]*<\/graph>/, '$1</graph>')),
  'two roots': xml((text) => `${text}<graphml/>`),
  'a text behind the root': xml((text) => `${text}x`),
  'a comment behind the root': xml((text) => `${text}<!-- end -->`),
  'only its declaration': xml((text) => text.slice(0, text.indexOf('?>') + 2)),
  'no declaration': xml((text) => text.slice(text.indexOf('?>') + 2).trimStart()),
  'a space before its declaration': xml((text) => ` ${text}`),
  'a declaration of another encoding': xml((text) =>
    text.replace(/encoding=['"][^'"]*['"]/, 'encoding="latin-1"'),
  ),
  'a declaration of an unknown encoding': xml((text) =>
    text.replace(/encoding=['"][^'"]*['"]/, 'encoding="x-none"'),
  ),
  'another XML version': xml((text) => text.replace(/version=['"]1.0['"]/, 'version="2.0"')),
  'a document type': xml((text) => text.replace('<graphml', '<!DOCTYPE graphml [<!ENTITY e "x">]><graphml')),
  'no namespace': xml((text) => text.replace(/ xmlns="[^"]*"/, '')),
  'another namespace': xml((text) => text.replace(/ xmlns="[^"]*"/, ' xmlns="http://example.org/"')),
  'an undeclared prefix': xml((text) => text.replace('<node ', '<n:x/><node ')),
  'an unknown element': xml((text) => text.replace('<node ', '<extra/><node ')),
  'an undeclared key': xml((text) => text.replace('<data key="', '<data key="q')),
  'a key of an unknown type': xml((text) => text.replace('attr.type="string"', 'attr.type="what"')),
  'a key without its type': xml((text) => text.replace(' attr.type="string"', '')),
  'a key without its name': xml((text) => text.replace(/ attr\.name="[^"]*"/, '')),
  'a weight that is no number': xml((text) => text.replace(/(<data key="[^"]*">)\d+\.\d+</, '$1heavy<')),
  directed: xml((text) => text.replace('edgedefault="undirected"', 'edgedefault="directed"')),
  'no edgedefault': xml((text) => text.replace(' edgedefault="undirected"', '')),
  'a node without id': xml((text) => text.replace(/<node id="[^"]*"/, '<node')),
  'a node twice': xml((text) => text.replace(/<node id="[^"]*">[\s\S]*?<\/node>/, '$&$&')),
  'a node less': xml((text) => text.replace(/<node id="[^"]*">[\s\S]*?<\/node>/, '')),
  'an edge less': xml((text) => text.replace(/<edge [^>]*>[\s\S]*?<\/edge>/, '')),
  'an edge twice': xml((text) => text.replace(/<edge [^>]*>[\s\S]*?<\/edge>/, '$&$&')),
  'an edge without source': xml((text) => text.replace(/<edge source="[^"]*"/, '<edge')),
  'an edge to a node that is not there': xml((text) =>
    text.replace(/<edge source="[^"]*"/, '<edge source="Not There"'),
  ),
  'a port': xml((text) => text.replace('<node ', '<port name="x"/><node ')),
};

/** Returns the kinds of damage that a file may have. */
export function damagesOf(name: string): Damages {
  if (name.endsWith('.graphml')) return { ...ANY_FILE, ...XML };
  if (name.startsWith('vdb_')) return { ...ANY_FILE, ...JSON_FILE, ...VECTORS };
  const rows = name === 'kv_store_doc_status.json' ? STATUS_ROWS : {};
  return { ...ANY_FILE, ...JSON_FILE, ...KV_ROWS, ...rows };
}
