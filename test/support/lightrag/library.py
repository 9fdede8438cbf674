"""Calls of the LightRAG library that no REST endpoint offers, on a directory whose server is stopped.

usage: python library.py COMMAND [JSON]

Settings come from the environment of a server. Prints one JSON document: {"ok", "result" or "error"}.
"""
import asyncio
import inspect
import json
import os
import sys
import urllib.request

import numpy as np
from lightrag import LightRAG, QueryParam
from lightrag.utils import EmbeddingFunc

DIMENSION = int(os.environ["EMBEDDING_DIM"])
MODEL = os.environ["EMBEDDING_MODEL"]
STORAGES = (
    "text_chunks full_docs full_entities full_relations entity_chunks relation_chunks entities_vdb "
    "relationships_vdb chunks_vdb chunk_entity_relation_graph doc_status"
).split()


def post(path, body):
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(os.environ["LLM_BINDING_HOST"] + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


async def complete(prompt, system_prompt=None, history_messages=None, **_):
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    messages = [*system, *(history_messages or []), {"role": "user", "content": prompt}]
    reply = await asyncio.to_thread(post, "/chat/completions", {"model": "gpt-4o-mini", "messages": messages})
    return reply["choices"][0]["message"]["content"]


async def embed(texts, **_):
    reply = await asyncio.to_thread(post, "/embeddings", {"model": MODEL, "input": list(texts)})
    return np.array([row["embedding"] for row in reply["data"]], dtype=np.float32)


def accepted(function, values):
    known = inspect.signature(function).parameters
    return {name: value for name, value in values.items() if name in known}


async def open_graph():
    fields = {
        "working_dir": os.environ["WORKING_DIR"],
        "workspace": os.environ.get("WORKSPACE", ""),
        "llm_model_func": complete,
        "llm_model_name": "gpt-4o-mini",
        "embedding_func": EmbeddingFunc(embedding_dim=DIMENSION, max_token_size=8192, func=embed),
        "embedding_model_name": MODEL,
        "chunk_token_size": 400,
        "chunk_overlap_token_size": 40,
    }
    rag = LightRAG(**accepted(LightRAG, fields))
    await rag.initialize_storages()
    try:  # Done by initialize_storages in later versions.
        from lightrag.kg.shared_storage import initialize_pipeline_status

        await initialize_pipeline_status()
    except (ImportError, TypeError):
        pass
    return rag


async def rebuild(rag):
    """Makes entities and relations anew from cached replies, as the deletion of a document does for the others."""
    from dataclasses import asdict

    from lightrag import operate

    graph = rag.chunk_entity_relation_graph
    sources = lambda row: [one for one in row.get("source_id", "").split("<SEP>") if one]
    entities = {node.get("id", node.get("entity_id")): sources(node) for node in await graph.get_all_nodes()}
    pairs = {tuple(sorted((edge["source"], edge["target"]))): sources(edge) for edge in await graph.get_all_edges()}
    function = getattr(operate, "rebuild_knowledge_from_chunks", None) or operate._rebuild_knowledge_from_chunks
    config = rag._build_global_config() if hasattr(rag, "_build_global_config") else asdict(rag)
    values = {
        "entities_to_rebuild": entities,
        "relationships_to_rebuild": pairs,
        "knowledge_graph_inst": graph,
        "entities_vdb": rag.entities_vdb,
        "relationships_vdb": rag.relationships_vdb,
        "text_chunks_storage": rag.text_chunks,
        "llm_response_cache": rag.llm_response_cache,
        "global_config": config,
        "entity_chunks_storage": getattr(rag, "entity_chunks", None),
        "relation_chunks_storage": getattr(rag, "relation_chunks", None),
    }
    await function(**accepted(function, values))
    await rag._insert_done()
    return {"entities": len(entities), "relations": len(pairs)}


async def drop(rag):
    for name in STORAGES:
        storage = getattr(rag, name, None)
        if storage is not None:
            await storage.drop()


async def delete_document(rag, given):
    values = {"doc_id": given["id"], "delete_llm_cache": given.get("cache", False)}
    return await rag.adelete_by_doc_id(**accepted(rag.adelete_by_doc_id, values))


async def custom_kg(rag, given):
    return await rag.ainsert_custom_kg(given["kg"], *([given["doc_id"]] if "doc_id" in given else []))


async def insert(rag, given):
    split = {"split_by_character": given.get("split"), "split_by_character_only": "split" in given}
    return await rag.ainsert(given["input"], ids=given.get("ids"), file_paths=given.get("file_paths"), **split)


COMMANDS = {
    "open": lambda rag, given: asyncio.sleep(0, "opened"),
    "custom_kg": custom_kg,
    "custom_chunks": lambda rag, given: rag.ainsert_custom_chunks(given["text"], given["chunks"], given.get("doc_id")),
    "insert": insert,
    "enqueue": lambda rag, given: rag.apipeline_enqueue_documents(given["input"], file_paths=given.get("file_paths")),
    "process": lambda rag, given: rag.apipeline_process_enqueue_documents(),
    "delete_document": delete_document,
    "delete_entity": lambda rag, given: rag.adelete_by_entity(given["name"]),
    "delete_relation": lambda rag, given: rag.adelete_by_relation(given["source"], given["target"]),
    "create_entity": lambda rag, given: rag.acreate_entity(given["name"], given["data"]),
    "create_relation": lambda rag, given: rag.acreate_relation(given["source"], given["target"], given["data"]),
    "edit_entity": lambda rag, given: rag.aedit_entity(given["name"], given["data"]),
    "edit_relation": lambda rag, given: rag.aedit_relation(given["source"], given["target"], given["data"]),
    "merge": lambda rag, given: rag.amerge_entities(
        given["names"], given["into"], given.get("strategy"), given.get("data")
    ),
    "export": lambda rag, given: rag.aexport_data(
        given["path"], file_format=given["format"], include_vector_data=given["format"] == "csv"
    ),
    "clear_cache": lambda rag, given: rag.aclear_cache(),
    "query": lambda rag, given: rag.aquery(given["query"], QueryParam(mode=given.get("mode", "mix"))),
    "drop": lambda rag, given: drop(rag),
    "rebuild": lambda rag, given: rebuild(rag),
}


async def main():
    command, given = sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    rag = await open_graph()
    try:
        reply = {"ok": True, "result": str(await COMMANDS[command](rag, given))[:500]}
    except Exception as error:  # The state that it leaves is what counts.
        reply = {"ok": False, "error": f"{type(error).__name__}: {error}"[:500]}
    finally:
        if not given.get("unfinished"):
            await rag.finalize_storages()
    print(json.dumps(reply))


if __name__ == "__main__":
    asyncio.run(main())
