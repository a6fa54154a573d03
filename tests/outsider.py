"""Recompute a migrated dataset from its export, as somebody who has the contract but not cfray.

Only pylance and pyarrow are used.

    python tests/outsider.py facts.json

The facts are what a job file says (job, kind, export, target, id, the fields
that columns took, dates, references, the types CSV columns are declared to
have).  Every uuid, every reference and every custom_metadata value is computed
from the export with the contract's oracle and compared with the dataset.
Prints what was compared; exits 1 and names the differences if there are any.
"""

import csv
import datetime as dt
import decimal
import json
import sys
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent / "contract"))
import oracle  # the contract in code; it stands beside this script and needs nothing

COLUMNS = [
    "uuid",
    "text_content",
    "title",
    "author",
    "tags",
    "created_at",
    "vector",
    "collection_id",
    "relationships",
    "custom_metadata",
]
CSV_TYPES = {
    "int64": int,
    "double": float,
    "float": lambda text: oracle.Float32(np.float32(text)),
    "bool": lambda text: text == "true",
    "decimal128(20, 4)": lambda text: decimal.Decimal(text).quantize(decimal.Decimal("0.0001")),
    "timestamp[us, UTC]": dt.datetime.fromisoformat,
    "list<float>": json.loads,
    "list<string>": json.loads,
}


def parquet_records(path):
    """A null is an absent field; a float32 is written as one."""
    table = pq.read_table(path)
    narrow = {field.name for field in table.schema if field.type == pa.float32()}
    for row in table.to_pylist():
        yield {
            key: oracle.Float32(value) if key in narrow else value
            for key, value in row.items()
            if value is not None
        }


def jsonl_records(path):
    """A null is a value; a missing key is missing."""
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def csv_records(path, types):
    """An undeclared column is text; an empty field of a declared one is absent."""
    csv.field_size_limit(10**8)
    with path.open(encoding="utf-8", newline="") as text:
        for row in csv.DictReader(text):
            yield {
                key: CSV_TYPES[types[key]](value) if key in types else value
                for key, value in row.items()
                if value or key not in types
            }


def records(facts):
    """Read the export."""
    path = Path(facts["export"])
    readers = {"parquet": parquet_records, "jsonl": jsonl_records}
    return (
        csv_records(path, facts["types"])
        if facts["kind"] == "csv"
        else readers[facts["kind"]](path)
    )


def day(value):
    """Give the day in UTC."""
    instant = dt.datetime.fromisoformat(value) if isinstance(value, str) else value
    return instant.astimezone(dt.UTC).date().isoformat()


def expected(record, facts):
    """Compute what the frame of a record must be."""
    job, tag = facts["job"], facts["id_tag"]
    header = oracle.header_uuid(job, "")
    # to a rule, an empty CSV field is an absent one; custom_metadata keeps it as the text it is
    seen = {key: value for key, value in record.items() if value != "" or facts["kind"] != "csv"}
    references = [
        (kind, oracle.record_uuid(job, "", tag, target))
        for kind, field in facts["references"]
        for target in (seen.get(field) if isinstance(seen.get(field), list) else [seen.get(field)])
        if target is not None
    ]
    metadata = {
        key: oracle.metadata_text(value)
        for key, value in record.items()
        if key not in facts["taken"].values()
    }
    columns = {
        column: seen.get(field)
        for column, field in facts["taken"].items()
        if column not in ("id", "vector")
    }
    return {
        "uuid": oracle.record_uuid(job, "", tag, record[facts["taken"]["id"]]),
        **columns,
        "created_at": day(record[facts["created_at"]]),
        "collection_id": header,
        "relationships": [*references, ("member_of", header)],
        "custom_metadata": metadata
        | {"original_id": oracle.id_text(tag, record[facts["taken"]["id"]])},
        "vector": np.array(record[facts["taken"]["vector"]], np.float32).tobytes(),
    }


def frames(facts):
    """Read the dataset: uuid -> frame, and what the rows say of types."""
    frames_by_uuid, types = {}, {}
    for batch in (
        lance.dataset(facts["target"])
        .scanner(columns=COLUMNS, filter="record_type = 'document'")
        .to_batches()
    ):
        vectors = batch.column("vector")
        flat = vectors.values.to_numpy().reshape(-1, vectors.type.list_size)[
            vectors.offset : vectors.offset + len(vectors)
        ]
        for row, vector in zip(batch.drop_columns(["vector"]).to_pylist(), flat, strict=True):
            assert row["uuid"] not in frames_by_uuid, f"{row['uuid']} twice"
            row["relationships"] = [
                (reference["type"], reference["id"]) for reference in row["relationships"]
            ]
            entries = row["custom_metadata"]
            row["custom_metadata"] = {entry["key"]: entry["value"] for entry in entries}
            assert len(entries) == len(row["custom_metadata"]), (
                f"{row['uuid']}: a key of custom_metadata twice"
            )
            types[row["uuid"]] = json.loads(row["custom_metadata"].pop("cfray.types", "{}"))
            frames_by_uuid[row["uuid"]] = row | {"vector": vector.tobytes()}
    return frames_by_uuid, types


def differences(facts):
    """Compare everything; count the custom_metadata values and references that were compared."""
    frames_by_uuid, types = frames(facts)
    wrong, counts = [], {"records": 0, "values": 0, "references": 0}
    for record in records(facts):
        expected_frame = expected(record, facts)
        frame = frames_by_uuid.pop(expected_frame["uuid"], None)
        if frame is None:
            wrong.append(
                f"no frame for {record[facts['taken']['id']]!r} ({expected_frame['uuid']})"
            )
            continue
        wrong += [
            f"{expected_frame['uuid']}.{key}: {frame[key]!r}, but the export gives {expected_frame[key]!r}"
            for key in expected_frame
            if frame[key] != expected_frame[key]
        ]
        expected_nulls = sorted(key for key, value in record.items() if value is None)
        stated_nulls = sorted(
            key for key, kind in types[expected_frame["uuid"]].items() if kind == "null"
        )
        if expected_nulls != stated_nulls:
            wrong.append(
                f"{expected_frame['uuid']}: null in the export: {expected_nulls}, in cfray.types: {stated_nulls}"
            )
        counts["records"] += 1
        counts["values"] += len(expected_frame["custom_metadata"])
        counts["references"] += len(expected_frame["relationships"])
    wrong += [f"{uuid} is in the dataset, but not in the export" for uuid in frames_by_uuid]
    return wrong, counts


if __name__ == "__main__":
    facts_given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    problems, compared = differences(facts_given)
    compared["types"] = json.loads(
        lance.dataset(facts_given["target"]).schema.metadata[b"cfray.types"]
    )
    compared["knows_cfray"] = any(name.split(".")[0] == "cfray" for name in sys.modules)
    print(json.dumps(compared))
    if problems:
        sys.exit(f"{len(problems)} differences; the first: " + "; ".join(problems[:3]))
