"""Migrate a store as an operator does, and compare the target with what the vendor's client put in.

What must be there is computed from the seeded rows with the contract's oracle;
the target is read with pylance alone.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lance
import numpy as np

from tests.contract import oracle
from tests.scenarios import runs
from tests.scenarios.runs import PROVE, Job, Runner
from tests.sources.store_bed import Row, StoreBed

KINDS = (
    *("chroma", "milvus", "pinecone", "qdrant", "weaviate"),
    *("dynamodb", "elasticsearch", "mongodb", "opensearch", "postgres"),
)
#: Stores over which ``make test`` runs what ``make prove`` runs over all: one that is read in pages
#: of a point in time, one in a transaction, one in ranges.
REPRESENTATIVE = ("opensearch", "postgres", "qdrant")
ROWS, DIMENSION = (50_000, 384) if PROVE else (3_000, 24)
SHARDS = 10


def bed_of(kind: str) -> type[StoreBed]:
    """Find the bed of a store."""
    module = importlib.import_module(f"tests.sources.{kind}_bed")
    (bed,) = [
        member
        for member in vars(module).values()
        if isinstance(member, type) and issubclass(member, StoreBed) and member is not StoreBed
    ]
    return bed


def section(source: Any) -> dict[str, Any]:
    """Write a source as a job file does."""
    return {
        "kind": source.kind,
        **source.model_dump(mode="json", exclude_defaults=True, exclude_none=True),
    }


def settings(source: Any) -> dict[str, str]:
    """Give the environment variable that holds the source's credential."""
    return (
        {source.api_key.env: os.environ[source.api_key.env]}
        if source.api_key and source.api_key.env
        else {}
    )


def job_of(
    bed: StoreBed, folder: Path, *names: str, shard_bytes: int | None = None, **sections: Any
) -> Job:
    """Write the job that moves these collections, in about ``SHARDS`` shards each."""
    source = bed.source(*names, shard_bytes=shard_bytes or ROWS * (4 * DIMENSION + 1_000) // SHARDS)
    body = {
        "name": "stores",
        "source": section(source),
        "mapping": bed.mapping(),
        "target": {"uri": "out.lance"},
        **sections,
    }
    return runs.write_job(folder, body)


def migrate(cfray: Runner, bed: StoreBed, job: Job, *codes: int, **more: str) -> dict[str, Any]:
    """Run ``cfray migrate`` to its end and give the report."""
    cfray.run("migrate", job.path, **settings(bed.source("x")), **more).ended_with(*codes)
    return job.report()


#: Type of an id as a variant -> its tag; all others are integers.
VARIANT_TAGS = {"string": "s", "uuid": "u", "objectId": "o", "binary": "b", "extendedJson": "j"}


def tagged(value: Any) -> tuple[str, Any]:
    """Give the tag and the value of an id as ``corpus.plain_rows`` shows it."""
    if isinstance(value, tuple):
        kind, text = value
        tag = VARIANT_TAGS.get(kind, "i")
        if tag == "b":
            return tag, base64.b64decode(json.loads(text))
        return tag, json.loads(text) if tag in ("u", "o", "j") else text
    if isinstance(value, uuid.UUID):
        return "u", value
    return ("i", value) if isinstance(value, int) else ("s", value)


def differences(bed: StoreBed, job: Job, seeded: dict[str, Sequence[Row]]) -> list[str]:
    """Compare every seeded row, by source collection, with its frame.

    Identity, vectors (to the bit), values and their types are compared.
    """
    dataset = lance.dataset(job.target)
    declared = json.loads(dataset.schema.metadata[b"cfray.types"])
    frames = {
        row["uuid"]: row
        for batch in dataset.scanner(filter="record_type = 'document'").to_batches()
        for row in batch.to_pylist()
    }
    rules = {key: rule for key, rule in job.body["mapping"].items() if isinstance(rule, str)}
    wrong: list[str] = []
    for collection, rows in seeded.items():
        for row in map(bed.expected, rows):
            tag, value = tagged(row["id"])
            name = oracle.record_uuid(job.body["name"], collection, tag, value)
            frame = frames.pop(name, None)
            if frame is None:
                wrong.append(f"{collection}: no frame for {row['id']!r}")
            else:
                wrong += [
                    f"{collection} {row['id']!r}: {difference}"
                    for difference in _differs(row, frame, rules, declared, dataset.schema.names)
                ]
    return wrong + [
        f"{frame['uuid']} ({frame['custom_metadata']}) was never seeded"
        for frame in frames.values()
    ]


def _differs(
    row: Row, frame: Row, rules: dict[str, str], declared: dict[str, str], columns: list[str]
) -> list[str]:
    """Compare one row as it was read with its frame."""
    metadata = {entry["key"]: entry["value"] for entry in frame["custom_metadata"]}
    types = {**declared, **json.loads(metadata.pop("cfray.types", "{}"))}
    wrong = []
    named = {f"vectors.{key}": vector for key, vector in (row.get("vectors") or {}).items()}
    vectors = {**named, **({"vector": numbers(row["vector"])} if "vector" in row else {})}
    primary = rules.get("vector") or ("vector" if "vector" in vectors else next(iter(named), None))
    for key, value in vectors.items():
        column = "vector" if key == primary else f"x_vector_{key.removeprefix('vectors.')}"
        if column not in columns:
            wrong.append(f"{key} has no column {column}")
        elif key == primary and value is None:
            wrong += [f"{key} was missing, and is {frame[column]}"] if any(frame[column]) else []
        elif not _same(frame[column], value):
            wrong.append(f"{key}: {frame[column]!r:.80}, seeded {value!r:.80}")
    fields_of_columns = {rule: key for key, rule in rules.items() if key not in ("id", "vector")}
    for key, value in row.items():
        if key in ("id", "vector", "vectors"):
            continue
        kind, text = value if isinstance(value, tuple) else ("string", value)
        if text is not None and not isinstance(text, str):
            # a typed column: its type is the schema's
            text = oracle.metadata_text(text)
        shown = frame[fields_of_columns[key]] if key in fields_of_columns else metadata.get(key)
        if key in fields_of_columns and fields_of_columns[key] not in ("text_content", "title"):
            continue  # a day, a list of tags: other tests say how those look
        if key in fields_of_columns and kind == "null":
            continue
        if (
            shown != text
            and text is not None
            and not (fields_of_columns.get(key) == "title" and not text)
        ):
            wrong.append(f"{key}: {shown!r:.80}, seeded {text!r:.80}")
        elif isinstance(value, tuple) and types.get(key) != kind and key not in fields_of_columns:
            wrong.append(f"{key} is a {types.get(key)}, seeded as {kind}")
    if "text" in row and "text_content" not in rules and frame["text_content"] != row["text"]:
        wrong.append("the document differs")
    expected_keys = {*row, "original_id", *(f"source.{key}" for key in row)}
    return wrong + [f"{key} was never seeded" for key in metadata.keys() - expected_keys]


def numbers(vector: Any) -> Any:
    """Give the float32 numbers of a vector that a store without a schema has as a variant."""
    if not isinstance(vector, tuple):
        return vector
    value = json.loads(vector[1])
    return None if value is None else [float(number) for number in np.float32(value)]


def _same(read: Any, seeded: Any) -> bool:
    """Compare vectors to the bit: NaN never occurs, and -0.0 is not 0.0."""
    if read is None or seeded is None:
        return read is seeded
    if isinstance(seeded, dict):
        return read["indices"] == seeded["indices"] and _same(read["values"], seeded["values"])
    return np.asarray(read, np.float64).tobytes() == np.asarray(seeded, np.float64).tobytes()
