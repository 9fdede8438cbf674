import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { corpusOf } from '../../../demo/corpus.ts';
import { graphmlFile } from '../../../demo/graphml.ts';
import { edgeKey, graphText, readGraph } from '../../../demo/instance/graph.ts';
import { parseVectors, readVectors, vectorsText } from '../../../demo/instance/vectors.ts';
import { entityRows, vdbFile } from '../../../demo/vdb.ts';

const CORPUS = corpusOf({ seed: 3, dimension: 5, vectorField: true, ingested: 9, deleted: [], queries: [] });
const GRAPH = [...graphmlFile(CORPUS)].join('');
const VECTORS = [...vdbFile(CORPUS, () => entityRows(CORPUS))].join('');

describe('the graph of an instance', () => {
  it('is written as it was read', () => {
    assert.equal([...graphText(readGraph(GRAPH))].join(''), GRAPH);
  });

  it('is refused wherever it is cut', () => {
    for (let length = 0; length < GRAPH.length; length += 7) {
      assert.throws(() => readGraph(GRAPH.slice(0, length)), Error, `${length}`);
    }
  });

  it('is read by the names of its attributes, however they are numbered', () => {
    const { keys, nodes, edges } = readGraph(
      `<?xml version="1.0"?>\n<graphml xmlns='x'>\n<key attr.type="string" attr.name="description" for="node" id="d1"/>
      <key id="d0" for="edge" attr.name="weight" attr.type="double" /><graph edgedefault="undirected">
      <node id="a &amp; &quot;b&quot;&#10;"><data key="d1">&lt;b&gt; &#x4e2d;</data></node><node id='c'/>
      <edge source="c" target="a &amp; &quot;b&quot;&#10;"><data key="d0"/></edge></graph></graphml>\n`,
    );
    const name = 'a & "b"\n';
    assert.deepEqual(
      keys.map((key) => key.name),
      ['weight', 'description'],
    );
    assert.deepEqual(nodes.get(name), { id: name, attributes: { description: '<b> 中' } });
    assert.deepEqual(edges.get(edgeKey([name, 'c'])), { ends: ['c', name], attributes: { weight: '' } });
  });

  it('is refused if it is no such graph', () => {
    const inGraph = (text: string) => `<graphml><graph>${text}</graph></graphml>`;
    const cases: [text: string, state: RegExp][] = [
      ['{}', /not GraphML at character 0/],
      ['<html></html>', /not GraphML/],
      [inGraph('<node></node>'), /lacks its "id"/],
      [inGraph('<node id="a"/><node id="a"/>'), /twice/],
      [inGraph('<node id="a"></edge>'), /closes nothing/],
      [inGraph('<node id="a"><data key="d9">x</data></node>'), /not declared/],
      [inGraph('<node id="a"/><edge source="a" target="b"/>'), /which is not a node/],
      [inGraph('loose'), /text outside/],
      [`${inGraph('')}<graphml/>`, /not GraphML/],
    ];
    assert.doesNotThrow(() => readGraph(inGraph('')));
    for (const [text, state] of cases) assert.throws(() => readGraph(text), state, text);
  });
});

describe('the vectors of an instance', () => {
  it('are written as they were read', () => {
    assert.equal([...vectorsText(readVectors(parseVectors(VECTORS) as object))].join(''), VECTORS);
  });

  it('preserve what newer versions add', () => {
    const text =
      '{"embedding_dim": 1, "data": [{"__id__": "a", "new": [1, {"b": null}]}], "more": true, "matrix": "AACAPw=="}';
    assert.equal([...vectorsText(readVectors(JSON.parse(text)))].join(''), text);
  });

  it('are refused if rows and matrix disagree', () => {
    const { data, matrix } = JSON.parse(VECTORS) as { data: object[]; matrix: string };
    const cases: [parsed: object, state: RegExp][] = [
      [{ embedding_dim: 5, data, matrix: matrix.slice(0, -4) }, /its matrix has/],
      [{ embedding_dim: 6, data, matrix }, /its matrix has/],
      [{ embedding_dim: 5, data: data.slice(1), matrix }, /its matrix has/],
      [{ embedding_dim: 5, data: [data[1], ...data.slice(1)], matrix }, /twice/],
      [{ embedding_dim: 5, data: [{}, ...data.slice(1)], matrix }, /no "__id__"/],
      [{ embedding_dim: 5, data }, /no "matrix"/],
      [{ embedding_dim: 0, data: [], matrix: '' }, /not a number/],
      [{ embedding_dim: 5, data: {}, matrix: '' }, /not a list/],
    ];
    for (const [parsed, state] of cases) assert.throws(() => readVectors(parsed), state);
  });
});
