"""JSON as APIs, pandas, MongoDB, browsers and libraries write it."""

from __future__ import annotations

import base64
import gzip
import json
import uuid
from pathlib import Path

import numpy as np

from tests.testbeds.real_inputs import (
    Answer,
    Refusal,
    case,
    row,
    rows,
    text,
    vector,
    without,
    write_lines,
)

JSONL = Answer("jsonl")


@case({"文档.jsonl": Answer("jsonl", id="编号", text="正文", title="标题", vector="向量")})
def chinese_names(folder: Path) -> None:
    """Write records whose fields have Chinese names and texts without spaces."""
    write_lines(
        folder / "文档.jsonl",
        [
            {
                "编号": f"A{n}",
                "标题": f"标题{n}",
                "正文": "湖面的冰到春天才化" * 5,
                "向量": vector(n),
            }
            for n in range(20)
        ],
    )


@case({"arxiv.json": JSONL})
def ndjson_as_json(folder: Path) -> None:
    """Write one object a line into a file named .json."""
    write_lines(folder / "arxiv.json", rows(20))


@case({".": JSONL})
def ndjson_folder(folder: Path) -> None:
    """Write a folder of such files."""
    for part in range(3):
        write_lines(folder / f"part-{part}.json", rows(10, part * 10))


@case(
    {
        "dump.json": Answer("json", source={"records": "data"}),
        "split.json": Answer("json", source={"orient": "split"}),
        "columns.json": Answer("json", source={"orient": "columns"}),
        "deep.json": Answer("json", source={"records": "response.hits"}),
    }
)
def json_wrapper(folder: Path) -> None:
    """Write the records under a key of one object, as APIs answer, and as pandas' ``to_json``."""
    records = rows(20)
    (folder / "dump.json").write_text(json.dumps({"total": 20, "data": records}))
    split = {
        "columns": list(records[0]),
        "index": list(range(20)),
        "data": [list(record.values()) for record in records],
    }
    (folder / "split.json").write_text(json.dumps(split))
    columns = {
        name: {str(n): record[name] for n, record in enumerate(records)} for name in records[0]
    }
    (folder / "columns.json").write_text(json.dumps(columns))
    deep = {"status": "ok", "response": {"took": 3, "hits": records}}
    (folder / "deep.json").write_text(json.dumps(deep))


@case({"pretty.jsonl": Answer("json")})
def pretty_jsonl(folder: Path) -> None:
    """Write an indented array into a file named .jsonl."""
    (folder / "pretty.jsonl").write_text(json.dumps(rows(20), indent=2))


@case({"docs.jsonl": JSONL})
def float32array(folder: Path) -> None:
    """Write vectors as ``JSON.stringify`` writes a Float32Array: an object with keys 0 to d-1."""
    records = [
        row(n) | {"embedding": {str(index): x for index, x in enumerate(vector(n))}}
        for n in range(20)
    ]
    write_lines(folder / "docs.jsonl", records)


@case({"docs.jsonl": JSONL})
def empty_vector(folder: Path) -> None:
    """Write an empty list where a document has no vector."""
    write_lines(
        folder / "docs.jsonl",
        [row(n) | ({"embedding": []} if n % 40 == 3 else {}) for n in range(200)],
    )


@case({"gzipped.jsonl": JSONL, "plain.jsonl.gz": JSONL, "padded.jsonl.gz": JSONL, "bare": JSONL})
def wrong_compression(folder: Path) -> None:
    """Name compressed files as if they were plain and the reverse; fill one up with zeros."""
    data = "".join(json.dumps(record) + "\n" for record in rows(20)).encode()
    (folder / "gzipped.jsonl").write_bytes(gzip.compress(data))
    (folder / "plain.jsonl.gz").write_bytes(data)
    (folder / "padded.jsonl.gz").write_bytes(gzip.compress(data) + bytes(512))
    (folder / "bare").write_bytes(gzip.compress(data))


@case(
    {
        "docs.ndjson": Answer(
            "jsonl", id="_id", text="_source.body", title="_source.title", vector=""
        )
    }
)
def nested_dot_collision(folder: Path) -> None:
    """Write a dotted key beside the nested path of the same spelling."""
    records: list[dict[str, object]] = [
        {
            "_id": f"e{n}",
            "_source": {
                "title": f"Title {n}",
                "body": text(n),
                "author": {"name": f"nested {n}", "org": f"org {n}"},
                "author.name": f"flat {n}",
            },
        }
        for n in range(10)
    ]
    write_lines(folder / "docs.ndjson", records)


@case({"docs.jsonl": JSONL})
def jsonl_text_vector(folder: Path) -> None:
    """Write vectors as the text that an API gives for a pgvector column."""
    records = [
        row(n) | {"embedding": "[" + ",".join(f"{x:.8g}" for x in vector(n)) + "]"}
        for n in range(20)
    ]
    write_lines(folder / "docs.jsonl", records)


@case({"docs.jsonl": Answer("jsonl", vector="embedding:base64")})
def base64_vector(folder: Path) -> None:
    """Write vectors as OpenAI sends them: base64 of float32 numbers; a hash looks alike."""
    records = []
    for n in range(20):
        blob = base64.b64encode(np.array(vector(n), "<f4").tobytes()).decode()
        token = base64.b64encode(np.random.default_rng(n).bytes(32)).decode()
        records.append(row(n) | {"embedding": blob, "token": token})
    write_lines(folder / "docs.jsonl", records)


@case(
    {
        "batch.jsonl": Answer(
            "jsonl",
            id="custom_id",
            text="input",
            title="",
            vector="response.body.data[0].embedding",
        )
    }
)
def openai_batch(folder: Path) -> None:
    """Write the vector deep in the answer of an embedding service."""
    records: list[dict[str, object]] = [
        {
            "custom_id": f"req-{n}",
            "input": text(n),
            "response": {
                "status_code": 200,
                "body": {"model": "m", "data": [{"index": 0, "embedding": vector(n)}]},
            },
        }
        for n in range(20)
    ]
    write_lines(folder / "batch.jsonl", records)


@case({"docs.jsonl": Answer("jsonl", id="_id.$oid", vector="embedding")})
def mongo_export(folder: Path) -> None:
    """Write what mongoexport writes: ids and numbers as objects of extended JSON."""
    records = [
        without(row(n), "id", "embedding")
        | {
            "_id": {"$oid": f"{n:024x}"},
            "embedding": [{"$numberDouble": repr(x)} for x in vector(n)],
            "parent": {"$oid": f"{n // 2:024x}"},
            "sha256": f"{n:064x}",
        }
        for n in range(20)
    ]
    write_lines(folder / "docs.jsonl", records)


@case({"page.jsonl": Answer("jsonl", id="pageId", text="plainText", title="pageTitle", vector="")})
def camel_case(folder: Path) -> None:
    """Write names in camel case beside base64 and JSON texts that are longer than the text."""
    records: list[dict[str, object]] = [
        {
            "pageId": n,
            "pageTitle": f"Page {n}",
            "plainText": text(n),
            "rawHtml": json.dumps({"html": text(n) * 5}),
            "thumb-nail": base64.b64encode(np.random.default_rng(n).bytes(600)).decode(),
            "viewCount": n * 3,
        }
        for n in range(20)
    ]
    write_lines(folder / "page.jsonl", records)


@case({"docs.jsonl": Answer("jsonl", id="url", text="text", title="headline", vector="")})
def urls(folder: Path) -> None:
    """Write pages whose only id is their address."""
    records: list[dict[str, object]] = [
        {"url": f"https://example.org/{n}", "headline": f"News {n}", "text": text(n), "lang": "en"}
        for n in range(20)
    ]
    write_lines(folder / "docs.jsonl", records)


@case(
    {
        "docs.jsonl": Answer("jsonl"),
        "docs.json": Answer("jsonl"),
    }
)
def concatenated(folder: Path) -> None:
    """Write objects one behind the other on one line, as Firehose does."""
    data = "".join(json.dumps(record) for record in rows(20))
    (folder / "docs.jsonl").write_text(data)
    (folder / "docs.json").write_text(data)


@case({"docs.jsonl": JSONL})
def utf16(folder: Path) -> None:
    """Write JSON Lines in UTF-16, as PowerShell does."""
    data = "".join(json.dumps(record) + "\n" for record in rows(20))
    (folder / "docs.jsonl").write_bytes(data.encode("utf-16"))


def _nested(number: int) -> dict[str, object]:
    return {
        "doc": {
            "meta": {"ids": {"uuid": str(uuid.UUID(int=number + 5))}, "heading": f"H {number}"},
            "parts": {"body": text(number)},
            "ml": {"vectors": {"dense": vector(number)}},
        }
    }


@case(
    {
        "docs.jsonl": Answer(
            "jsonl",
            id="doc.meta.ids.uuid",
            text="doc.parts.body",
            title="doc.meta.heading",
            vector="doc.ml.vectors.dense",
        )
    }
)
def deeply_nested(folder: Path) -> None:
    """Write everything four levels deep."""
    write_lines(folder / "docs.jsonl", [_nested(number) for number in range(20)])


@case(
    {
        "chunks.jsonl": Answer(
            "jsonl", id="doc_id+chunk_id", text="chunk_text", title="", vector="emb"
        )
    }
)
def chunks(folder: Path) -> None:
    """Write pieces of documents, which their document and number name together."""
    records: list[dict[str, object]] = [
        {"doc_id": f"d{n // 5}", "chunk_id": n % 5, "chunk_text": text(n), "emb": vector(n)}
        for n in range(30)
    ]
    write_lines(folder / "chunks.jsonl", records)


@case(
    {
        "shop.jsonl": Answer(
            "jsonl",
            id="sku",
            text="description",
            title="name",
            vector="description_embedding",
            vectors=("image_embedding",),
        )
    }
)
def shop(folder: Path) -> None:
    """Write goods with a vector of their picture before that of their description."""
    records: list[dict[str, object]] = [
        {
            "sku": f"S-{n:04d}",
            "name": f"Lamp {n}",
            "description": text(n),
            "price": 9.5,
            "image_embedding": vector(n),
            "description_embedding": vector(n + 99),
        }
        for n in range(20)
    ]
    write_lines(folder / "shop.jsonl", records)


@case({"docs.jsonl": Answer("jsonl", id="docid", text="body", title="title", vector="")})
def docids(folder: Path) -> None:
    """Write an id in one word beside addresses that are unique, too."""
    records: list[dict[str, object]] = [
        {"docid": f"D{n}", "url": f"https://x/{n}", "title": f"T {n}", "body": text(n)}
        for n in range(20)
    ]
    write_lines(folder / "docs.jsonl", records)


@case({"batch.jsonl": Answer("jsonl", id="custom_id", text="", title="")})
def batch_ids(folder: Path) -> None:
    """Write the ids of a service's requests beside the ids that its user chose."""
    write_lines(
        folder / "batch.jsonl",
        [
            {"id": f"batch_req_{n}", "custom_id": f"doc-{n}", "embedding": vector(n)}
            for n in range(20)
        ],
    )


@case(
    {
        "comma.json": Refusal(("element 20", "empty")),
        "python.jsonl": Refusal(("double quotes",)),
    }
)
def not_quite_json(folder: Path) -> None:
    """Write a comma behind the last element, and what Python prints."""
    lines = [json.dumps(record) + ",\n" for record in rows(20)]
    (folder / "comma.json").write_text(f"[\n{''.join(lines)}]\n")
    (folder / "python.jsonl").write_text("".join(f"{record}\n" for record in rows(20)))
