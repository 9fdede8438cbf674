"""Judges directories as a server would, many in one process.

Reads a JSON document a line: {"dir", "base"}; prints one a line. `base` is a directory that is whole: the reply has what
`dir` lacks of it.
  {"refused": why}       a server does not start on it
  {"broken": [why]}      it starts, and a call fails
  {"lost": [what]}       it starts, and something is not there when it is asked for
With {"writes": true} a document is inserted and another deleted: {"broken"} says what fails.

With {"truth": {file: {"text", "names", "pairs"}}} in place of `base`, {"lost"} is what documents lack that are called
processed, before and after the others have been processed again. {"documents"} has the states before that.
Settings come from the environment of a server.
"""
import asyncio
import json
import logging
import os
import shutil
import sys
import tempfile
from functools import partial

import numpy as np

sys.argv = sys.argv[:1]
REPLIES = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
logging.disable(logging.CRITICAL)

import library  # noqa: E402
from lightrag.kg import shared_storage  # noqa: E402

WHOLE = {}
NAMES = {"entities_vdb": ("entity_name",), "relationships_vdb": ("src_id", "tgt_id"), "chunks_vdb": ("full_doc_id",)}
KV = ("full_docs", "text_chunks")
SAME = 0.99
TEXT = "Walter Scott met Robert Burns in Edinburgh. Robert Burns praised the River Nith."


async def open_as_server(folder):
    os.environ["WORKING_DIR"] = folder
    shared_storage.finalize_share_data()
    rag = await library.open_graph()
    if hasattr(rag, "check_and_migrate_data"):
        await rag.check_and_migrate_data()
    return rag


def status_of(row):
    return str(getattr(row.status, "value", row.status))


async def rows_of(rag):
    """Returns the states of all documents that are listed."""
    listed, _ = await rag.doc_status.get_docs_paginated(status_filter=None, page=1, page_size=200)
    return dict(listed)


async def processed_of(rag):
    """Returns the records of the documents that are listed as processed."""
    keys = [key for key, row in (await rows_of(rag)).items() if status_of(row) == "processed"]
    return dict(zip(keys, await rag.doc_status.get_by_ids(keys)))


async def documents_of(rag):
    found = {key: status_of(row) for key, row in (await rows_of(rag)).items()}
    counts = await rag.doc_status.get_status_counts()
    if sum(counts.values()) < len(found):
        raise RuntimeError("the counts lack documents")
    return found


async def listed_of(rag):
    """Returns chunks that processed documents list and that are not there."""
    rows = (await processed_of(rag)).values()
    ids = [chunk for row in rows for chunk in row.get("chunks_list") or []]
    return [key for key, row in zip(ids, await rag.text_chunks.get_by_ids(ids)) if not row]


async def graph_of(rag):
    graph = rag.chunk_entity_relation_graph
    labels = await graph.get_all_labels()
    known = await graph.get_knowledge_graph("*", max_depth=3, max_nodes=10000)
    edges = await graph.get_all_edges()
    # An end of an edge that has no node of its own comes into being without properties.
    nodes = {str(node.id) for node in known.nodes if node.properties} & set(map(str, labels))
    return nodes, {tuple(sorted((str(edge["source"]), str(edge["target"])))) for edge in edges}


async def vectors_of(storage, names):
    """Returns the rows that a query finds, by id: their names and their matrix rows."""
    zeros = np.zeros(library.DIMENSION, dtype=np.float32)
    zeros[0] = 1
    storage.cosine_better_than_threshold = -2
    rows = await storage.query("anything", top_k=100_000, query_embedding=zeros.tolist())
    client = await storage._get_client()
    places = {row["__id__"]: i for i, row in enumerate(client._NanoVectorDB__storage["data"])}
    matrix = client._NanoVectorDB__storage["matrix"]
    # Queries need the names of entities and relations; nobody reads the document of a chunk.
    name = lambda row, key: row.get(key) if key == "full_doc_id" else row[key]
    return {row["id"]: (tuple(name(row, key) for key in names), matrix[places[row["id"]]]) for row in rows}


async def inventory(rag):
    """Returns what the server finds, and which calls fail."""
    found, broken = {}, []

    async def ask(name, call):
        try:
            found[name] = await call
        except Exception as error:
            broken.append(f"{name}: {type(error).__name__}: {error}"[:160])

    await ask("documents", documents_of(rag))
    await ask("listed", listed_of(rag))
    await ask("graph", graph_of(rag))
    for name, names in NAMES.items():
        await ask(name, vectors_of(getattr(rag, name), names))
    return found, broken


async def texts_of(rag, whole):
    """Returns which texts of documents and chunks are there, of those that the whole directory has."""
    texts, broken = {}, []
    for name, ids in whole["ids"].items():
        try:
            rows = await getattr(rag, name).get_by_ids(ids)
            texts[name] = {key for key, row in zip(ids, rows) if row is not None and isinstance(row["content"], str)}
        except Exception as error:
            broken.append(f"{name}: {type(error).__name__}: {error}"[:160])
    return texts, broken


async def wholeness(folder):
    rag = await open_as_server(folder)
    found, broken = await inventory(rag)
    ids = {}
    for name in KV:
        with open(os.path.join(folder, f"kv_store_{name}.json"), encoding="utf-8") as file:
            ids[name] = list(json.load(file))
    whole = {"found": found, "ids": ids}
    whole["texts"], more = await texts_of(rag, whole)
    if broken or more:
        raise RuntimeError(f"{folder} is not whole: {broken + more}")
    return whole


def lost(whole, found, texts):
    """Returns what of the whole is not found, a word each."""
    missing = []
    before = whole["found"]
    if "documents" in found:
        missing += [f"status {key}" for key, status in before["documents"].items() if found["documents"].get(key) != status]
    missing += [f"listed {key}" for key in found.get("listed", ())]
    if "graph" in found:
        missing += [f"node {name}" for name in before["graph"][0] - found["graph"][0]]
        missing += [f"edge {pair}" for pair in before["graph"][1] - found["graph"][1]]
    for name in NAMES:
        for key, (names, row) in before[name].items() if name in found else ():
            now = found[name].get(key)
            if now is None or (now[0] != names and name != "chunks_vdb"):
                missing.append(f"{name} {key}")
            elif not float(np.dot(row, now[1])) >= SAME:
                missing.append(f"{name} {key}: another vector")
    for name, keys in whole["texts"].items():
        missing += [f"{name} {key}" for key in sorted(keys) if name in texts and key not in texts[name]]
    return missing


async def writes(rag):
    """Inserts a document and deletes another one, and returns what fails."""
    before = await documents_of(rag)
    await rag.ainsert(TEXT, file_paths=["written.txt"])
    after = await documents_of(rag)
    new = [key for key in after if key not in before]
    if [after[key] for key in new] != ["processed"]:
        rows = [await rag.doc_status.get_by_id(key) for key in new]
        return [f"insert: {[row.get('error_msg') for row in rows]}"[:160]]
    first = next((key for key, status in before.items() if status == "processed"), None)
    if first is None:
        return []
    result = await library.delete_document(rag, {"id": first})
    return [] if result.status == "success" else [f"delete: {result.status} {result.message}"[:160]]


async def lacking(rag, truth):
    """Returns what the documents lack that are called processed, by what their texts say."""
    nodes, edges = await graph_of(rag)
    found = {name: await vectors_of(getattr(rag, name), names) for name, names in NAMES.items()}
    named = {names[0] for names, _ in found["entities_vdb"].values()}
    related = {tuple(sorted(names)) for names, _ in found["relationships_vdb"].values()}
    missing = []
    for key, row in (await processed_of(rag)).items():
        file, ids = row["file_path"], row.get("chunks_list") or []
        document = truth.get(file)
        if document is None:
            missing.append(f"{file}: nobody inserted it")
            continue
        lost = [f"node {name}" for name in document["names"] if name not in nodes]
        lost += [f"vector of {name}" for name in document["names"] if name not in named]
        pairs = [tuple(sorted(pair)) for pair in document["pairs"]]
        lost += [f"edge {pair}" for pair in pairs if pair not in edges]
        lost += [f"vector of {pair}" for pair in pairs if pair not in related]
        text = await rag.full_docs.get_by_id(key)
        if text is None or text["content"].strip() != document["text"].strip():
            lost.append("text")
        chunks = await rag.text_chunks.get_by_ids(ids)
        lost += ["chunks"] if not ids else []
        lost += [f"chunk {name}" for name, chunk in zip(ids, chunks) if chunk is None]
        lost += [f"vector of {name}" for name in ids if name not in found["chunks_vdb"]]
        for name, chunk in zip(ids, chunks):
            hits = await rag.chunks_vdb.query(chunk["content"], top_k=3) if chunk is not None else []
            if name not in [hit["id"] for hit in hits]:
                lost.append(f"query for {name}")
        missing += [f"{file}: {what}" for what in lost]
    return missing


async def judge_truth(folder, truth):
    try:
        rag = await open_as_server(folder)
    except (Exception, SystemExit) as error:
        return {"refused": f"{type(error).__name__}: {error}"[:160]}
    try:
        documents = await documents_of(rag)
        lost = await lacking(rag, truth)
        await rag.apipeline_process_enqueue_documents()
        after = await documents_of(rag)
        unfinished = [f"{key} stays {status}" for key, status in after.items() if status not in ("processed", "failed")]
        lost += [f"reprocessed: {what}" for what in [*unfinished, *await lacking(rag, truth)]]
        return {"broken": [], "lost": lost, "documents": list(documents.values())}
    except Exception as error:
        return {"broken": [f"{type(error).__name__}: {error}"[:160]]}


async def judge(folder, base, with_writes):
    if base not in WHOLE:
        copy = tempfile.mkdtemp()
        shutil.copytree(base, copy, dirs_exist_ok=True)
        WHOLE[base] = await wholeness(copy)
        shutil.rmtree(copy)
    try:
        rag = await open_as_server(folder)
    except (Exception, SystemExit) as error:
        return {"refused": f"{type(error).__name__}: {error}"[:160]}
    found, broken = await inventory(rag)
    texts, more = await texts_of(rag, WHOLE[base])
    reply = {"broken": broken + more, "lost": lost(WHOLE[base], found, texts)}
    if with_writes and not reply["broken"] and not reply["lost"]:
        try:
            reply["broken"] = await writes(rag)
        except Exception as error:
            reply["broken"] = [f"write: {type(error).__name__}: {error}"[:160]]
    return reply


async def main():
    for line in iter(partial(sys.stdin.readline), ""):
        asked = json.loads(line)
        copy = tempfile.mkdtemp()
        try:
            shutil.copytree(asked["dir"], copy, dirs_exist_ok=True)
            if "truth" in asked:
                reply = await judge_truth(copy, asked["truth"])
            else:
                reply = await judge(copy, asked["base"], asked.get("writes", False))
        finally:
            shutil.rmtree(copy, ignore_errors=True)
        print(json.dumps(reply), file=REPLIES, flush=True)


asyncio.run(main())
