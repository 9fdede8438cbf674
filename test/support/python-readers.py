"""Reads inputs as LightRAG's Python does: one JSON line {"kind", "bytes"} each, one JSON line of what it reads back.

The answer is null for an input that is refused.
"""

import base64
import io
import json
import sys
import xml.etree.ElementTree as ElementTree


def read_json(data):
    """As a file opened with the encoding utf-8."""
    with io.TextIOWrapper(io.BytesIO(data), encoding="utf-8") as file:
        return canonical(json.load(file))


def read_record_json(data):
    """As LightRAG's load_json: a byte-order mark is not part of the text."""
    with io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig") as file:
        return canonical(json.loads(file.read()))


def canonical(value):
    """Lone surrogates and numbers are compared by what JSON can carry of them."""
    if isinstance(value, dict):
        return {"map": [[canonical(key), canonical(item)] for key, item in value.items()]}
    if isinstance(value, list):
        return {"list": [canonical(item) for item in value]}
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return {"bare": True} if value is not None else None


def read_xml(data):
    return tree(ElementTree.parse(io.BytesIO(data)).getroot())


def tree(element):
    children = [[tree(child), child.tail or ""] for child in element]
    return [element.tag, sorted(element.attrib.items()), element.text or "", children]


def read_graph(data):
    import networkx

    graph = networkx.read_graphml(io.BytesIO(data))
    edges = sorted(sorted(edge[:2]) for edge in graph.edges)
    described = lambda items: sorted([list(name), str(values.get("description", ""))] for name, values in items)
    nodes = described(((name,), values) for name, values in graph.nodes(data=True))
    return {"nodes": nodes, "edges": edges}


def read_matrix(data):
    """As nano_vectordb decodes its matrix: the number of bytes."""
    return len(base64.b64decode(data.decode("utf-8")))


READERS = {
    "json": read_json,
    "record-json": read_record_json,
    "xml": read_xml,
    "graph": read_graph,
    "matrix": read_matrix,
}

sys.setrecursionlimit(20_000)
for line in sys.stdin:
    task = json.loads(line)
    try:
        result = {"value": READERS[task["kind"]](base64.b64decode(task["bytes"]))}
    except Exception as error:
        result = {"error": repr(error)[:200]}
    print(json.dumps(result), flush=True)
