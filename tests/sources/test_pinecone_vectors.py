"""Every vector and every key of every Pinecone record, whichever of them a record has.

The server is a double, or a project of the user's.
"""

import itertools
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from cfray.errors import SourceError
from cfray.sources.pinecone.source import Pinecone
from tests.sources.corpus import CONTEXT, rows
from tests.sources.pinecone_bed import PineconeBed

pytestmark = pytest.mark.server("pinecone")

#: Kind of index -> how it is created, and the vectors that a record of it may have.
KINDS = {
    "dense, cosine": ({"dimension": 3, "metric": "cosine"}, ("dense",)),
    "dense, euclidean": ({"dimension": 3, "metric": "euclidean"}, ("dense",)),
    "hybrid": ({"dimension": 3, "metric": "dotproduct"}, ("dense", "sparse")),
    "sparse": ({"vector_type": "sparse", "metric": "dotproduct"}, ("sparse",)),
}
METRICS = {"cosine": "cosine", "euclidean": "l2", "dotproduct": "dot"}
METADATA = (None, {}, {"n": 1.0, "tags": ["a"], "flag": True, "text": "", "none": []})


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(PineconeBed)


@pytest.fixture(scope="module")
def index_of(bed):
    """Give a function: the index of a kind, created once."""

    def create(kind):
        name = f"{bed.run}-vectors-{list(KINDS).index(kind)}".lower()
        return bed.create_index(name, **KINDS[kind][0])

    return create


def record_of(n, vectors, metadata):
    numbers = np.random.default_rng(n).standard_normal(5, np.float32).tolist()
    record = {"id": f"r{n:03d}"}
    if "dense" in vectors:
        record["values"] = numbers[:3]
    if "sparse" in vectors:
        record["sparse_values"] = {"indices": [n, 4_000_000_000], "values": numbers[3:]}
    return record if metadata is None else {**record, "metadata": metadata}


def expected_row(record):
    row = {"id": record["id"], "vector": record.get("values")}
    row["sparse"] = record.get("sparse_values")
    return row | {"keys": sorted(record.get("metadata") or {})}


def plain_row(row):
    vectors = row.get("vectors") or {}
    keys = sorted(row.keys() - {"id", "vector", "vectors"})
    assert vectors.keys() <= {"sparse"}
    return {
        "id": row["id"],
        "vector": row.get("vector"),
        "sparse": vectors.get("sparse"),
        "keys": keys,
    }


@pytest.mark.parametrize("namespace", ["", "a", "b/c"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_vector_of_every_record_is_read(bed, index_of, kind, namespace):
    index, vectors = index_of(kind), KINDS[kind][1]
    choices = [
        chosen
        for size in range(1, len(vectors) + 1)
        for chosen in itertools.combinations(vectors, size)
    ]
    records = [
        record_of(n, chosen, metadata)
        for n, (chosen, metadata) in enumerate(itertools.product(choices, METADATA))
    ]
    with bed.index(index) as client:
        client.upsert(vectors=records, namespace=namespace)
    name = f"{index}/{namespace}" if namespace else index
    source = bed.source(name, shard_bytes=300)
    assert list(map(plain_row, rows(source))) == list(map(expected_row, records))
    (collection,) = source.describe(CONTEXT, source.shards(CONTEXT)).collections
    has_dense = "dense" in vectors
    metric = METRICS[KINDS[kind][0]["metric"]] if has_dense else None
    assert (collection.rows, collection.dimension, collection.metric) == (
        len(records),
        3 if has_dense else None,
        metric,
    )
    assert source.count(CONTEXT) == len(records)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_index_says_its_width_and_metric(bed, kind):
    name = bed.create_index(f"{bed.run}-empty-{list(KINDS).index(kind)}".lower(), **KINDS[kind][0])
    source = bed.source(name)
    assert source.shards(CONTEXT) == []
    (collection,) = source.describe(CONTEXT, []).collections
    has_dense = "dense" in KINDS[kind][1]
    assert (collection.rows, collection.dimension, collection.metric) == (
        0,
        3 if has_dense else None,
        METRICS[KINDS[kind][0]["metric"]] if has_dense else None,
    )
    assert source.count(CONTEXT) == 0


def test_keys_named_like_a_records_own_columns_are_kept(bed, index_of):
    index = index_of("hybrid")
    metadata = {
        key: f"the metadata's {key}"
        for key in (
            *("id", "vector", "vectors", "text", "values", "sparse_values", "metadata"),
            *("metadata.vector", "vectors.sparse", "metadata.id", "_id", "score", ""),
        )
    }
    record = record_of(7, ("dense", "sparse"), metadata)
    plain = record_of(8, ("dense", "sparse"), {"vector": "alone on its page"})
    with bed.index(index) as client:
        client.upsert(vectors=[record, plain], namespace="keys")
    source = bed.source(f"{index}/keys", shard_bytes=1)
    first, second = rows(source)
    assert (first["vector"], first["vectors"]["sparse"]) == (
        record["values"],
        record["sparse_values"],
    )
    texts = {
        key: value[1] for key, value in first.items() if key not in ("vector", "vectors", "id")
    }
    assert sorted(texts.values()) == sorted(metadata.values())
    assert texts["metadata.vector"] == "the metadata's vector"
    assert texts["metadata.metadata.vector"] == "the metadata's metadata.vector"
    assert second["metadata.vector"][1] == "alone on its page"
    assert second["vector"] == plain["values"]


def test_every_field_of_every_document_is_read(bed):
    fields = {
        "main": {"type": "dense_vector", "dimension": 2, "metric": "euclidean"},
        "terms": {"type": "sparse_vector"},
        "body": {"type": "string", "full_text_search": {}},
    }
    index = bed.create_index(f"{bed.run}-fields".lower(), schema={"fields": fields})
    sparse = {"indices": [4_000_000_000], "values": [0.5]}
    optional = {"terms": sparse, "body": "text", "id": "an id", "vectors": "x", "vector": "y"}
    documents = [
        {"_id": f"d{n:02d}", "main": [n + 0.5, 1.0], **{name: optional[name] for name in chosen}}
        for n, chosen in enumerate(
            chosen
            for size in range(len(optional) + 1)
            for chosen in itertools.combinations(optional, size)
        )
    ]
    with bed.index(index) as client:
        client.documents.upsert(namespace="__default__", documents=documents)
    read_rows = rows(bed.source(index, shard_bytes=200))
    assert len(read_rows) == len(documents)
    for row, document in zip(read_rows, documents, strict=True):
        named = {name: vector for name, vector in row["vectors"].items() if vector is not None}
        assert named == {name: document[name] for name in ("main", "terms") if name in document}
        assert {
            name.removeprefix("fields."): value[1]
            for name, value in row.items()
            if name not in ("id", "vectors")
        } == {name: document[name] for name in document if name not in ("_id", "main", "terms")}


def test_the_default_namespace_may_be_written_out(bed, index_of):
    index = index_of("dense, cosine")
    with bed.index(index) as client:
        client.upsert(vectors=[record_of(1, ("dense",), None)])
    for name in (f"{index}/__default__", f"{index}/"):
        source = bed.source(name, index)
        assert source.collections == [index]
        assert {shard.collection for shard in source.shards(CONTEXT)} == {index}


def test_namespaces_that_the_job_does_not_name_are_named(bed, index_of):
    index = index_of("dense, euclidean")
    with bed.index(index) as client:
        for namespace in ("", "left", "out"):
            client.upsert(vectors=[record_of(1, ("dense",), None)], namespace=namespace)
    source = bed.source(index, f"{index}/left")
    notes = source.describe(CONTEXT, source.shards(CONTEXT)).notes
    (unread,) = [note for note in notes if note.startswith("not read")]
    assert f"{index}/out" in unread
    assert f"{index}/left" not in unread
    with pytest.raises(SourceError, match=f"did you mean {index}/left"):
        bed.source(f"{index}/lefts").shards(CONTEXT)


def test_the_host_of_an_index_is_no_address_of_a_project():
    with pytest.raises(ValidationError, match=r"source\.collections"):
        Pinecone(url="https://birds-abc123.svc.aped-4627-b74a.pinecone.io")


# Files for its import


def write_import(folder, table):
    folder.mkdir(parents=True)
    pq.write_table(table, folder / "0.parquet", row_group_size=2)
    return Pinecone(uri=str(folder.parent))


LISTS = {
    "list": pa.list_(pa.float32()),
    "large list": pa.large_list(pa.float32()),
    "float64": pa.list_(pa.float64()),
}


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("absent", [None, []])
def test_a_record_of_a_file_without_a_dense_vector_takes_it_from_no_other(tmp_path, kind, absent):
    """The first record has no dense vector, and an empty list is none."""
    vectors = [absent, [1.0, 2.0], absent, absent, [3.0, 4.0], [5.0, 6.0]]
    sparse = [{"indices": [1], "values": [0.5]}] * 3 + [None] * 3
    sparse_type = pa.struct(
        [("indices", pa.list_(pa.uint32())), ("values", pa.list_(pa.float32()))]
    )
    table = pa.table(
        {
            "id": [f"r{n}" for n in range(6)],
            "values": pa.array(vectors, LISTS[kind]),
            "sparse_values": pa.array(sparse, sparse_type),
            "metadata": [json.dumps({"n": n}) for n in range(6)],
        }
    )
    source = write_import(tmp_path / "birds" / "__default__", table)
    read_rows = rows(source)
    assert [row["vector"] for row in read_rows] == [vector or None for vector in vectors]
    assert [row["vectors"]["sparse"] for row in read_rows] == sparse
    (collection,) = source.describe(CONTEXT, source.shards(CONTEXT)).collections
    assert (collection.rows, collection.dimension) == (6, 2)
    assert rows(source.model_validate({"uri": source.uri, "collections": ["birds/__default__"]}))


def test_columns_of_a_later_file_that_are_not_read_are_named(tmp_path):
    table = pa.table({"id": ["a"], "values": [[1.0]], "metadata": ["{}"]})
    source = write_import(tmp_path / "birds" / "a", table)
    later = table.append_column("more", pa.array([1]))
    pq.write_table(later, tmp_path / "birds" / "a" / "1.parquet")
    (tmp_path / "birds" / "a" / "notes.txt").write_text("x")
    (tmp_path / "birds" / ".hidden").mkdir()
    notes = " ".join(source.describe(CONTEXT, source.shards(CONTEXT)).notes)
    for name in ("more", "a/notes.txt", ".hidden"):
        assert name in notes
