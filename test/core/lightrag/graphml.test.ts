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
const HEAD = '<?xml version="1.0" encoding="utf-8"?>\n<graphml xmlns="x">';

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
      <key id="d0" for="edge" attr.name="weight"/><graph><node id='a &amp; &lt;&#x4e2d;&#10;">'>
      <data key="d7">c1&lt;SEP&gt;<![CDATA[c<&2]]></data><data key="d0">&nothing;</data></node>
      <node id="b"/><edge target="b" source="b"></edge ></graph></graphml>\n`;
    assert.deepEqual(told(text, 3), ['node a & <中\n">', 'source_id c1<SEP>c<&2', 'node b', 'edge b b']);
  });

  it('refuses malformed XML', () => {
    const wrong = [
      `<!DOCTYPE graphml [<!ENTITY a "b">]><graphml></graphml>`,
      `${HEAD}<!ELEMENT x></graphml>`,
      '<html></html>',
      `${HEAD}<graph></graphml>`,
      `${HEAD}</graphml><graphml/>`,
      `${HEAD}</graphml> text`,
      `${HEAD}<node></node></graphml>`,
      `${HEAD}<node id="a" b></node></graphml>`,
      `${HEAD}<edge source="a"/></graphml>`,
      `${HEAD}<node id="&none;"/></graphml>`,
      `${HEAD}<node id="a & b"/></graphml>`,
      `${HEAD}<node id="&#xd800;"/></graphml>`,
      `${HEAD}<node id="a"><data key="d9">x</data></node></graphml>`,
      `${HEAD}<1/></graphml>`,
      'graph',
      `${HEAD}${'<a>'.repeat(100)}`,
    ];
    for (const text of wrong) assert.equal(flawOfText(text), 'malformed', text);
  });

  it('does not buffer unwanted or over-long text', () => {
    const ids: string[] = [];
    const reader = new GraphReader(
      { node: (id) => ids.push(id.toString()), edge: () => {}, data: () => assert.fail('it is too long') },
      ['source_id'],
    );
    reader.feed(Buffer.from(`${HEAD}<key id="d0" for="node" attr.name="source_id"/><graph><node id="a">`));
    reader.feed(Buffer.from('<data key="d0">'));
    const before = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < 100; i++) reader.feed(Buffer.alloc(1 << 20, 'x'));
    assert.equal(process.memoryUsage().arrayBuffers - before < 40 << 20, true);
    reader.feed(Buffer.from('</data></node><node id="b"/></graph></graphml>'));
    reader.end();
    assert.deepEqual(ids, ['a', 'b']);
  });
});
