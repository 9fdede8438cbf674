import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { LayoutFlaw } from '../../../core/lightrag/chunk-reader.ts';
import { GraphReader } from '../../../core/lightrag/graphml.ts';
import { corpusOf } from '../../../demo/corpus.ts';
import { graphmlFile } from '../../../demo/graphml.ts';
import { readGraph } from '../../../demo/instance/graph.ts';
import { feedIn, flawOf } from '../../support/chunks.ts';

const CORPUS = corpusOf({ seed: 3, dimension: 5, vectorField: true, ingested: 9, deleted: [], queries: [] });
const GRAPH = [...graphmlFile(CORPUS)].join('');
const HEAD =
  '<?xml version="1.0" encoding="utf-8"?>\n<graphml xmlns="http://graphml.graphdrawing.org/xmlns">';

/** What a reader tells of a text that comes in chunks of some bytes, a line each. */
function told(text: string | Buffer, step = 1 << 20, wanted: readonly string[] = ['source_id']): string[] {
  const lines: string[] = [];
  const events = {
    node: (id: Buffer) => lines.push(`node ${id}`),
    edge: (source: Buffer, target: Buffer) => lines.push(`edge ${source} ${target}`),
    data: (name: string, value: Buffer) => lines.push(`${name} ${value}`),
  };
  const reader = new GraphReader(events, wanted);
  feedIn(reader, Buffer.from(text), step);
  return lines;
}

const flawOfText = (text: string | Buffer, step?: number): LayoutFlaw | undefined =>
  flawOf(() => told(text, step));

describe('a GraphML reader', () => {
  it('reads a networkx graph in chunks of any size', () => {
    const { nodes, edges } = readGraph(GRAPH);
    const wanted = [
      ...[...nodes.values()].flatMap(({ id, attributes }) => [
        `node ${id}`,
        `source_id ${attributes.source_id}`,
      ]),
      ...[...edges.values()].flatMap(({ ends: [source, target], attributes }) => [
        `edge ${source} ${target}`,
        `source_id ${attributes.source_id}`,
      ]),
    ];
    assert.equal(wanted.length > 50, true);
    for (const step of [1 << 20, 4096, 7, 1]) assert.deepEqual(told(GRAPH, step), wanted, `${step}`);
  });

  it('reports every prefix of a graph as cut', () => {
    const end = GRAPH.lastIndexOf('>') + 1;
    const bytes = Buffer.from(GRAPH);
    assert.equal(flawOfText(''), 'empty');
    for (let length = 1; length < Math.min(bytes.length, 6000); length++)
      assert.equal(flawOfText(bytes.subarray(0, length), 1000), 'cut', `${length}`);
    for (let length = 6000; length < Buffer.byteLength(GRAPH.slice(0, end)); length += 101)
      assert.equal(flawOfText(bytes.subarray(0, length)), 'cut', `${length}`);
    assert.equal(flawOfText(bytes), undefined);
  });

  it('reads attributes in any order and quotes, and decodes entities', () => {
    const text = `${HEAD}<!-- a > b --><key attr.type='string' attr.name="source_id" for="node" id="d7"/>
      <key id="d0" for="edge" attr.name="weight"/><graph><node id='a &amp; &lt;&#x4e2d;&#10;&#13;">\t\r\n'>
      <data key="d7">c1&lt;SEP&gt;<![CDATA[c<&2\r\n]]>\r&#13;</data><data key="d0">&gt;</data></node>
      <node id="b"/><edge target="b" source="b"></edge ></graph></graphml>\n`;
    for (const step of [1, 3, 1 << 20])
      assert.deepEqual(told(text, step), [
        'node a & <中\n\r">  ',
        'source_id c1<SEP>c<&2\n\n\r',
        'node b',
        'edge b b',
      ]);
  });

  it('refuses malformed XML', () => {
    const wrong = [
      '<!DOCTYPE graphml [<!ENTITY a "b">]><graphml><graph/></graphml>',
      `${HEAD}<!ELEMENT x></graphml>`,
      `${HEAD}<graph></graphml>`,
      `${HEAD}<graph/></graphml><graphml/>`,
      `${HEAD}<graph/></graphml> text`,
      `${HEAD}<graph><node id="a" b></node></graph></graphml>`,
      `${HEAD}<graph><node id="&none;"/></graph></graphml>`,
      `${HEAD}<graph><node id="a & b"/></graph></graphml>`,
      `${HEAD}<graph><node id="&#xd800;"/></graph></graphml>`,
      `${HEAD}<graph><node id="a" id="a"/></graph></graphml>`,
      `${HEAD}<graph><node id="a\u0007"/></graph></graphml>`,
      `${HEAD}<graph>&#7;</graph></graphml>`,
      `${HEAD}<graph>]]></graph></graphml>`,
      `${HEAD}<graph>\uffff</graph></graphml>`,
      `${HEAD}<1/></graphml>`,
      'graph',
      `${HEAD}${'<a>'.repeat(20_000)}`,
    ];
    for (const text of wrong)
      for (const step of [1, 5, 1 << 20])
        assert.equal(flawOfText(text, step), 'malformed', text.slice(0, 200));
  });

  const KEYS = ['string', 'int', 'long', 'integer', 'float', 'double', 'boolean']
    .map((type) => `<key id="${type}" for="node" attr.name="a-${type}" attr.type="${type}"/>`)
    .join('');
  const graph = (inner: string) => `${HEAD}${KEYS}<graph edgedefault="undirected">${inner}</graph></graphml>`;
  const data = (type: string, text: string) =>
    graph(`<node id="a"><data key="${type}">${text}</data></node>`);

  it('refuses what networkx does not read as a graph', () => {
    const wrong = [
      `${HEAD}</graphml>`,
      '<graphml xmlns="x"><graph/></graphml>',
      '<graphml ><graph/></graphml>',
      '<html></html>',
      `${HEAD}<key id="d0" for="node"/><graph/></graphml>`,
      `${HEAD}<key id="d0" attr.name="a" attr.type="text"/><graph/></graphml>`,
      `${HEAD}<key id="d0" attr.name="a" attr.type="int"><default/></key><graph/></graphml>`,
      `${HEAD}<key id="d0" attr.name="a" attr.type="boolean"><default>no</default></key><graph/></graphml>`,
      graph('<node id="a"><data key="d9">x</data></node>'),
      graph('<node id="a"><data>x</data></node>'),
      graph('<edge source="a" target="b"><data key="d9"/></edge>'),
      graph('<data key="d9"/>'),
      graph('<hyperedge/>'),
      graph('<edge source="a" target="b" directed="true"/>'),
      `${HEAD}<graph edgedefault="directed"><edge source="a" target="b" directed="false"/></graph></graphml>`,
      `${HEAD}<graph/><graph><node id="a"><data key="d9"/></node></graph></graphml>`,
      ...['1.0', 'x', '1__0', '_1', '- 1', '0x1', '1e3'].map((text) => data('int', text)),
      ...['', '.', 'x', '1e', '1_', '0x1', 'infinit', '1,5'].map((text) => data('double', `${text} `)),
      ...['yes', ' true', '2', ''].map((text) => data('boolean', `${text} `)),
    ];
    for (const text of wrong) assert.equal(flawOfText(text), 'malformed', text);
  });

  it('accepts what networkx accepts', () => {
    const right = [
      '<graphml><graph/></graphml>',
      '\ufeff<graphml><graph/></graphml>',
      `<!DOCTYPE graphml>${HEAD.slice(HEAD.indexOf('<graphml'))}<graph/></graphml>`,
      `<x xmlns="http://graphml.graphdrawing.org/xmlns"><graph/></x>`,
      `<g:graphml xmlns:g="http://graphml.graphdrawing.org/xmlns"><g:graph><g:node id="a"/></g:graph></g:graphml>`,
      `${HEAD}<data key="d9"/><graph><port/><x/></graph><x/></graphml>`,
      graph('<node id="a"><port><data key="d9"/></port></node>'),
      graph('<node id="a"><data key="int"><x/>no number</data></node>'),
      graph('<edge source="a" target="b" directed="false"/>'),
      ...['1', ' +1_0 ', '-0012', '\u0661', ''].map((text) => data('int', text)),
      ...['1', '.5', '5.', '1_0e-1_0', ' nan ', '-Infinity', '1E5', ''].map((text) => data('float', text)),
      ...['true', 'FALSE', '0', '1', ''].map((text) => data('boolean', text)),
    ];
    for (const text of right) assert.equal(flawOfText(text), undefined, text);
  });

  it('names as networkx does what has no name', () => {
    const text = graph('<node/><edge target="b"/>');
    assert.deepEqual(told(text), ['node None', 'edge None b']);
  });

  it('reports the first graph alone, with the nodes of its groups', () => {
    const group =
      '<node id="g" yfiles.foldertype="group"><graph><node id="in"/></graph><graph><node id="no"/></graph></node>';
    const text = `${HEAD}<graph>${group}<node id="b"><graph><node id="no"/></graph></node></graph><graph><node id="c"/></graph></graphml>`;
    assert.deepEqual(told(text), ['node g', 'node in', 'node b']);
  });

  it('does not buffer unwanted or over-long text', () => {
    const ids: string[] = [];
    const reader = new GraphReader(
      { node: (id) => ids.push(id.toString()), edge: () => {}, data: () => assert.fail('it is too long') },
      ['source_id'],
    );
    reader.feed(Buffer.from(`${HEAD}<key id="d0" for="node" attr.name="source_id"/><graph><node id="a">`));
    reader.feed(Buffer.from('<data key="d0">'));
    const chunk = Buffer.alloc(1 << 20, 'x');
    const before = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < 100; i++) reader.feed(chunk);
    assert.equal(process.memoryUsage().arrayBuffers - before < 40 << 20, true);
    reader.feed(Buffer.from('</data></node><node id="b"/></graph></graphml>'));
    reader.end();
    assert.deepEqual(ids, ['a', 'b']);
  });
});
