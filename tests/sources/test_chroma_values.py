"""Chroma: every part that a record may have or lack comes back, and no value becomes another.

A record always has one vector; its document, its uri and its metadata may each be absent.
The other numbers and keys are those that older versions of Chroma took.
"""

import itertools
import json
import math
from contextlib import closing

import numpy as np
import pytest

from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.sources.chroma.export import forget_copies
from cfray.sources.chroma.source import Chroma
from cfray.sources.chroma.types import build_records
from tests.sources.chroma_bed import ChromaBed
from tests.sources.corpus import CONTEXT, items, plain_rows, rows
from tests.testbeds import chroma, lineup, older_chroma
from tests.testbeds.proxy import Status

pytestmark = pytest.mark.server("chroma")
INFINITY = float("inf")


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(ChromaBed)


@pytest.fixture(autouse=True, scope="module")
def _forget_copies_at_the_end():
    yield
    forget_copies()


def read_records_and_rejects(source):
    records, rejects = {}, {}
    for _, item in items(source):
        if isinstance(item, Reject):
            rejects[item.position.rpartition(" ")[2]] = item
        else:
            records |= {row["id"]: row for row in plain_rows(item)}
    return records, rejects


PARTS = {
    "documents": ("", "a text", None),
    "uris": ("", "s3://b/a", None),
    "metadatas": ({"n": 1, "b": True, "f": 1.0, "s": ""}, None),
}
MATRIX = [dict(zip(PARTS, values, strict=True)) for values in itertools.product(*PARTS.values())]
METADATA_ROW = {
    "n": ("int64", "1"),
    "b": ("bool", "true"),
    "f": ("double", "1.0"),
    "s": ("string", ""),
}


def add_matrix(collection):
    for number, record in enumerate(MATRIX):
        parts = {name: [value] for name, value in record.items() if value is not None}
        collection.add(ids=[f"r{number}"], embeddings=[[number + 0.1, -0.5, 3.0]], **parts)


def expected_matrix():
    for number, record in enumerate(MATRIX):
        yield {
            "id": f"r{number}",
            "vector": np.array([number + 0.1, -0.5, 3.0], np.float32).astype(float).tolist(),
            "text": record["documents"],
            **({"uri": ("string", record["uris"])} if record["uris"] is not None else {}),
            **(METADATA_ROW if record["metadatas"] else {}),
        }


def test_each_part_of_a_record_may_be_absent(bed):
    name = bed.fresh()
    add_matrix(bed.client.create_collection(name, embedding_function=None))
    assert rows(bed.source(name)) == list(expected_matrix())


def test_each_part_of_a_record_may_be_absent_in_a_directory(tmp_path):
    import chromadb
    from chromadb.config import Settings

    folder = tmp_path / "chroma"
    with chromadb.PersistentClient(folder, Settings(anonymized_telemetry=False)) as client:
        add_matrix(client.create_collection("docs", embedding_function=None))
    forget_copies()
    assert rows(Chroma(uri=str(folder))) == list(expected_matrix())


ODD_METADATA = {
    "id": 1,
    "vector": "v",
    "vectors": "w",
    "text": "t",
    "document": "d",
    "documents": "e",
    "uri": "u",
    "embedding": 2,
    "metadata": 3,
    "metadata.id": 4,
    "metadata.metadata.id": 5,
    "metadata.uri": 6,
    "metadata.other": 7,
    "a.b": 8,
    "a": 9,
}
ODD_NAMES = {
    "id": "metadata.id",
    "vector": "metadata.vector",
    "vectors": "metadata.vectors",
    "text": "metadata.text",
    "uri": "metadata.uri",
    "metadata.id": "metadata.metadata.id",
    "metadata.metadata.id": "metadata.metadata.metadata.id",
    "metadata.uri": "metadata.metadata.uri",
}


def test_keys_named_like_columns_have_the_same_name_on_every_page(bed):
    """A page may hold one record, so the name of a key depends on nothing but the key."""
    name = bed.fresh()
    collection = bed.client.create_collection(name, embedding_function=None)
    collection.add(ids=["all"], embeddings=[[1, 2]], metadatas=[ODD_METADATA])
    for key, value in ODD_METADATA.items():
        collection.add(ids=[f"only {key}"], embeddings=[[1, 2]], metadatas=[{key: value}])
    read_rows = {row["id"]: row for row in rows(bed.source(name, shard_bytes=1))}
    for key, value in ODD_METADATA.items():
        kind = "string" if isinstance(value, str) else "int64"
        for record_id in ("all", f"only {key}"):
            assert read_rows[record_id][ODD_NAMES.get(key, key)] == (kind, str(value))
    assert set(read_rows["all"]) == {"id", "vector", "text"} | {
        ODD_NAMES.get(key, key) for key in ODD_METADATA
    }


# What older versions of Chroma took.

#: So many writes after the odd records make the index save them, and its log is read no more.
FLUSHING = [
    {"ids": [f"g{n}"], "embeddings": [[float(n), 2.0]], "metadatas": [{"k": n}]} for n in range(30)
]
ODD_RECORDS = {
    "bool": ([1.0, 2.0], {"b": True, "c": False, "i": 1, "f": 1.0}),
    "infinity": ([1.0, 2.0], {"x": INFINITY, "k": 1}),
    "minus-infinity": ([1.0, 2.0], {"x": -INFINITY}),
    "empty-key": ([1.0, 2.0], {"": 1, "k": 2}),
    "dots": ([1.0, 2.0], {"a.b": 1, "a": 2}),
    "vector-nan": ([1.0, math.nan], {"k": 1}),
    "vector-infinity": ([1.0, INFINITY], {"k": 1}),
}


@pytest.fixture(scope="module", params=["0.5.23", "0.6.3"])
def odd_directory(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    odd_records = {
        "ids": list(ODD_RECORDS),
        "embeddings": [vector for vector, _ in ODD_RECORDS.values()],
        "metadatas": [metadata for _, metadata in ODD_RECORDS.values()],
    }
    settings = {"hnsw:sync_threshold": 10, "hnsw:batch_size": 5}
    with lineup.taking_part("older chroma", older_chroma.installing(request.param)):
        older_chroma.write(
            request.param,
            folder / "data",
            [{"name": "odd", "metadata": settings, "adds": [odd_records, *FLUSHING]}],
        )
    return folder


def test_numbers_that_json_cannot_write_come_out_of_a_directory(odd_directory):
    forget_copies()
    records, rejects = read_records_and_rejects(Chroma(uri=str(odd_directory / "data")))
    assert not rejects
    assert records["infinity"]["x"] == ("double", "Infinity")
    assert records["infinity"]["k"] == ("int64", "1")
    assert records["minus-infinity"]["x"] == ("double", "-Infinity")
    assert records["vector-infinity"]["vector"] == [1.0, INFINITY]
    assert math.isnan(records["vector-nan"]["vector"][1])
    assert {key: records["bool"][key] for key in "bcif"} == {
        "b": ("bool", "true"),
        "c": ("bool", "false"),
        "i": ("int64", "1"),
        "f": ("double", "1.0"),
    }
    assert (records["empty-key"][""], records["empty-key"]["k"]) == (("int64", "1"), ("int64", "2"))
    assert (records["dots"]["a.b"], records["dots"]["a"]) == (("int64", "1"), ("int64", "2"))
    assert len(records) == len(ODD_RECORDS) + 30


def test_a_server_writes_null_for_them_and_such_records_are_set_aside(odd_directory):
    with lineup.taking_part("chroma", chroma.start(odd_directory, ["odd"])) as server:
        records, rejects = read_records_and_rejects(Chroma(url=server.endpoint))
    assert set(rejects) == {"infinity", "minus-infinity"}
    assert "metadata key x" in rejects["infinity"].reason
    assert "source.uri" in rejects["infinity"].reason
    content = json.loads(rejects["infinity"].content)
    assert (content["id"], content["metadata"], content["embedding"]) == (
        "infinity",
        {"x": None, "k": 1},
        [1.0, 2.0],
    )
    assert not set(rejects) & set(records)
    assert len(records) + len(rejects) == len(ODD_RECORDS) + 30
    for record_id in ("vector-nan", "vector-infinity"):
        assert math.isnan(records[record_id]["vector"][1])


def test_rejects_among_other_records_move_none_of_them():
    answer = {
        "ids": ["b", "a", "c", "d"],
        "embeddings": [[2.0], [1.0], [3.0], None],
        "documents": ["text b", "text a", None, None],
        "uris": None,
        "metadatas": [{"n": 2}, {"n": None}, {"n": 3}, None],
    }
    batch, unreadable = build_records(json.dumps(answer).encode(), ["a", "b", "x", "c", "d"], 1)
    assert plain_rows(batch) == [
        {"id": "b", "vector": [2.0], "text": "text b", "n": ("int64", "2")},
        {"id": "c", "vector": [3.0], "text": None, "n": ("int64", "3")},
        {"id": "d", "vector": None, "text": None},
    ]
    assert list(unreadable) == ["a", "x"]
    assert json.loads(unreadable["a"][1]) == {
        "id": "a",
        "document": "text a",
        "uri": None,
        "metadata": {"n": None},
        "embedding": [1.0],
    }


def test_a_collection_that_declares_no_width_says_so(tmp_path):
    """Chroma then gives no vectors, and no error."""
    import sqlite3

    records = {"ids": ["a"], "embeddings": [[1.0, 2.0]], "documents": ["text a"]}
    with lineup.taking_part("older chroma", older_chroma.installing("0.5.23")):
        folder = older_chroma.write(
            "0.5.23", tmp_path / "data", [{"name": "odd", "adds": [records]}]
        )
    with closing(sqlite3.connect(folder / "chroma.sqlite3")) as database:
        database.execute("UPDATE collections SET dimension = NULL")
        database.commit()
    source = Chroma(uri=str(folder))
    shards = source.shards(CONTEXT)
    assert rows(source, shards) == [{"id": "a", "text": "text a"}]
    description = source.describe(CONTEXT, shards)
    assert (description.collections[0].dimension, description.collections[0].metric) == (None, None)
    assert any("gives no vectors for its 1 records" in note for note in description.notes)


def test_vectors_of_a_collection_without_a_declared_width_are_read():
    answer = {"ids": ["a", "b"], "embeddings": [None, [1.0, 2.0]]}
    batch, _ = build_records(json.dumps(answer).encode(), ["a", "b"], None)
    assert [row["vector"] for row in plain_rows(batch)] == [None, [1.0, 2.0]]


def test_a_log_that_the_present_version_cannot_read_is_named_with_its_way_out(tmp_path):
    """NaN in metadata, as pandas gives it, stops Chroma 1.5 until the index has saved it."""
    adds = [{"ids": ["a"], "embeddings": [[1.0, 2.0]], "metadatas": [{"x": math.nan}]}]
    with lineup.taking_part("older chroma", older_chroma.installing("0.5.23")):
        folder = older_chroma.write("0.5.23", tmp_path / "data", [{"name": "odd", "adds": adds}])
    with pytest.raises(SourceError) as error:
        Chroma(uri=str(folder)).shards(CONTEXT)
    assert "NaN" in error.value.remedy
    assert "version of chromadb that wrote" in error.value.remedy


@pytest.mark.parametrize(
    ("name", "remedy_word"),
    [("chroma-collections.parquet", "chroma-migrate"), ("other.txt", "source.uri")],
)
def test_a_folder_without_the_database_is_named(tmp_path, name, remedy_word):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SourceError, match=r"chroma\.sqlite3") as error:
        Chroma(uri=str(tmp_path)).shards(CONTEXT)
    assert remedy_word in error.value.remedy


def test_the_database_file_itself_is_no_directory(tmp_path):
    (tmp_path / "chroma.sqlite3").write_bytes(b"x")
    with pytest.raises(SourceError) as error:
        Chroma(uri=str(tmp_path / "chroma.sqlite3")).shards(CONTEXT)
    assert "directory" in error.value.remedy


def test_a_collection_that_is_named_twice_is_read_once(bed):
    name = bed.fresh()
    bed.client.create_collection(name, embedding_function=None).add(ids=["a"], embeddings=[[1, 2]])
    with pytest.raises(SourceError) as error:
        bed.source(f"{name}x").shards(CONTEXT)
    assert f"did you mean {name}" in error.value.what
    source = bed.source(name, f"default_tenant/default_database/{name}")
    assert len(rows(source)) == 1


def test_an_answer_with_bare_words_of_a_server_is_read(bed):
    """A later server may write NaN as a bare word, as the copy of a directory does."""
    name = bed.fresh()
    bed.client.create_collection(name, embedding_function=None).add(ids=["a"], embeddings=[[1, 2]])
    proxy, source = bed.proxied(name)
    answer = {
        "ids": ["a"],
        "embeddings": [[1.0, 2.0]],
        "metadatas": [{"x": INFINITY}],
        "documents": None,
        "uris": None,
    }
    with closing(proxy):
        shards = source.shards(CONTEXT)
        proxy.fail(Status(200, {}, json.dumps(answer).encode()), matching=bed.page_request())
        ((_, batch),) = [
            (shard, batch) for shard in shards for batch in source.read(shard, CONTEXT)
        ]
    assert plain_rows(batch)[0]["x"] == ("double", "Infinity")
