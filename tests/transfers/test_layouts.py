"""Layouts of vector databases: what a record becomes in each, and what is said to be lost."""

from __future__ import annotations

import json
from dataclasses import replace
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest

from cfray.errors import ConfigError
from cfray.frames.schema import ORIGIN
from cfray.records.record import from_objects
from cfray.records.types import SPARSE
from cfray.transfers.exports.fields import Column
from cfray.transfers.exports.layouts.base import Batch, cleaned
from cfray.transfers.exports.layouts.choose import layout_of
from cfray.transfers.exports.layouts.facts import Facts, VectorColumn, free_name, stored_names
from cfray.transfers.exports.settings import LAYOUTS, SUFFIXES, ExportSettings
from cfray.transfers.exports.texts import json_objects

DENSE = pa.list_(pa.float32(), 2)
MULTI = pa.list_(pa.list_(pa.float32(), 2))
PRIMARY = VectorColumn("vector", "vector", DENSE)
#: A float32 whose shortest text says it in nine digits.
VECTOR = [0.1, 16777217.0]
OWN_UUID = "550e8400-e29b-41d4-a716-446655440000"


def uuid_of(row: int) -> str:
    return str(UUID(int=row + 1, version=4))


def written(
    store: str,
    records: list[dict[str, object]] | pa.RecordBatch,
    *,
    further: dict[VectorColumn, list[object]] | None = None,
    vectors: list[object] | None = None,
    collections: list[str] | None = None,
    texts: list[str | None] | None = None,
    **changes: object,
) -> tuple[list[dict[str, object]], dict[str, set[str]]]:
    """Give the rows of a store, and what is lost."""
    batch = records if isinstance(records, pa.RecordBatch) else from_objects(records)
    rows, further = batch.num_rows, further or {}
    numbers = vectors or [VECTOR] * rows
    columns = {
        "uuid": pa.array([uuid_of(row) for row in range(rows)]),
        "text_content": pa.array(texts or [None] * rows, pa.string()),
        "collection": pa.array(collections or ["docs"] * rows),
        "vector": pa.array([vector or [0.0, 0.0] for vector in numbers], DENSE),
        ORIGIN: pa.array([vector and "kept" for vector in numbers], pa.string()),
        **{vector.column: pa.array(values, vector.type) for vector, values in further.items()},
    }
    facts = Facts(
        names=tuple(sorted(batch.schema.names)),
        id_field="id",
        id_kinds=frozenset({"string"}),
        text_field=None,
        vectors=(PRIMARY, *further),
        collections=tuple(sorted(set(collections or ["docs"]))),
    )
    layout = layout_of(store, replace(facts, **changes))  # type: ignore[arg-type]
    lost: dict[str, set[str]] = {}
    made = layout.rows(Batch(pa.RecordBatch.from_pydict(columns), batch, layout.facts, lost))
    if store == "pinecone":
        return [{**row, "metadata": json.loads(row["metadata"])} for row in made.to_pylist()], lost
    return [json.loads(text) for text in json_objects(made, with_nulls=False).to_pylist()], lost


def test_a_vector_keeps_the_shortest_text_of_float32():
    (row,), _ = written("qdrant", [{"id": OWN_UUID}], vectors=[[0.1, 7.038531e-26]])
    assert json.dumps(row) == json.dumps(
        {"id": OWN_UUID, "vector": [0.1, 7.038531e-26], "payload": {}}
    )


@pytest.mark.parametrize(
    ("value", "own"),
    [
        (0, True),
        (2**64 - 1, True),
        (2**64, False),
        (-1, False),
        (1.0, False),
        ("1", False),
        (OWN_UUID, True),
        (OWN_UUID.upper(), False),
        (OWN_UUID.replace("-", ""), False),
        ("", False),
    ],
)
def test_an_id_that_is_none_of_qdrants_stays_in_the_payload(value, own):
    (row,), lost = written("qdrant", [{"id": value}], id_kinds=frozenset({"any"}))
    assert row["id"] == (value if own else uuid_of(0))
    foreign = str(value) if value == 2**64 else value
    assert row["payload"] == ({} if own else {"original_id": foreign})
    assert bool(lost) is not own


@pytest.mark.parametrize(
    ("store", "value", "own"),
    [
        ("pinecone", "it's", True),
        ("pinecone", "é", False),
        ("pinecone", "x" * 513, False),
        ("pinecone", "", False),
        ("chroma", "é\n", True),
        ("chroma", "", False),
        ("milvus", "", True),
        ("weaviate", OWN_UUID, True),
        ("weaviate", "it's", False),
    ],
)
def test_an_id_that_a_store_does_not_take_gives_way_to_the_uuid(store, value, own):
    (row,), lost = written(store, [{"id": value}])
    assert row["id"] == (value if own else uuid_of(0))
    fields = row.get("metadata") or row.get("properties") or row
    assert ("original_id" in fields) is ("id" in lost) is not own


def test_integers_and_texts_never_meet_as_ids():
    rows, _ = written("chroma", [{"id": 5}, {"id": "5"}], id_kinds=frozenset({"int64", "string"}))
    assert [row["id"] for row in rows] == [uuid_of(0), "5"]
    rows, lost = written("chroma", [{"id": 5}, {"id": 6}], id_kinds=frozenset({"int64"}))
    assert [row["id"] for row in rows] == ["5", "6"]
    assert not lost


def test_ids_of_several_source_collections_in_one_never_meet():
    rows, lost = written(
        "pinecone",
        [{"id": "a"}, {"id": "a"}],
        collections=["mixed", "docs"],
        shared=frozenset({"mixed"}),
    )
    assert [row["id"] for row in rows] == [uuid_of(0), "a"]
    assert [row["metadata"] for row in rows] == [{"original_id": "a"}, {}]
    assert "id" in lost


def test_the_name_of_a_lost_id_is_not_that_of_another_field():
    (row,), _ = written("qdrant", [{"id": "x", "original_id": 1}])
    assert row["payload"] == {"original_id": 1, "original_id_2": "x"}


def test_milvus_has_integers_as_keys_where_all_ids_are():
    rows, lost = written("milvus", [{"n°": 5}], id_field="n°", id_kinds=frozenset({"int64"}))
    assert rows == [{"n_": 5, "vector": [np.float32(0.1).astype(float).round(1), 16777216.0]}]
    assert lost == {"n°": {"the name, written as n_"}}


def test_without_one_field_for_ids_the_uuids_are_the_ids():
    (row,), lost = written("qdrant", [{"a": 1, "b": 2}], id_field="", id_kinds=frozenset())
    assert row["id"] == uuid_of(0)
    assert row["payload"] == {"a": 1, "b": 2}
    assert lost.keys() == {"id"}


def test_vectors_have_names_where_there_are_several_and_a_record_may_lack_any():
    sparse = VectorColumn("sparse", "x_vector_sparse", SPARSE, is_named=True)
    tokens = VectorColumn("tokens", "x_vector_tokens", MULTI, is_named=True)
    pair = {"indices": [1, 4_000_000_000], "values": [0.5, 0.1]}
    further = {sparse: [pair, None], tokens: [[[1.0, 2.0], [3.0, 4.0]], None]}
    records = [{"id": OWN_UUID}, {"id": OWN_UUID}]
    vectors = [[1.0, 2.0], None]
    rows, _ = written("qdrant", records, further=further, vectors=vectors)
    many = [[1.0, 2.0], [3.0, 4.0]]
    assert [row["vector"] for row in rows] == [
        {"vector": [1.0, 2.0], "sparse": pair, "tokens": many},
        {},
    ]
    rows, lost = written("weaviate", records, further=further, vectors=vectors)
    assert [row.get("vectors") for row in rows] == [{"vector": [1.0, 2.0], "tokens": many}, None]
    assert json.loads(rows[0]["properties"]["sparse"]) == pair
    assert lost.keys() == {"sparse", "collection"}
    rows, lost = written("milvus", records, further=further, vectors=vectors)
    assert rows[0]["sparse"] == {"1": 0.5, "4000000000": 0.1}
    assert "vector" not in rows[1]
    assert lost.keys() == {"vector", "sparse", "tokens"}
    rows, lost = written("pinecone", records, further=further)
    assert rows[0]["sparse_values"]["indices"] == pair["indices"]
    assert json.loads(rows[0]["metadata"]["tokens"]) == many
    assert lost.keys() == {"tokens"}
    rows, lost = written("chroma", records, further=further)
    assert json.loads(rows[0]["metadata"]["sparse"]) == pair
    assert lost.keys() == {"sparse", "tokens"}


def test_pymilvus_reads_sparse_vectors_from_the_rows():
    helper = pytest.importorskip("pymilvus.client.entity_helper")
    sparse = VectorColumn("sparse", "x_vector_sparse", SPARSE, is_named=True)
    further = {sparse: [{"indices": [7, 3], "values": [0.5, 0.1]}]}
    (row,), _ = written("milvus", [{"id": "a"}], further=further)
    assert helper.entity_is_sparse_matrix([row["sparse"]])
    proto = helper.sparse_rows_to_proto([row["sparse"]])
    expected = helper.sparse_rows_to_proto([{3: 0.1, 7: 0.5}])
    assert proto.contents == expected.contents


def test_a_field_of_vectors_that_is_empty_does_not_stand_in_the_payload():
    records = [{"id": "a", "vectors": {"main": None}}, {"id": "b", "vectors": None}]
    for store in ("qdrant", "pinecone"):
        rows, _ = written(store, records, vector_fields=frozenset({"vectors"}))
        for row in rows:
            assert "vectors" not in (row.get("payload") or row.get("metadata"))
    (row,), _ = written(
        "qdrant", [{"id": "a", "vector": "no vector"}], vector_fields=frozenset({"vector"})
    )
    assert row["payload"]["vector"] == "no vector"


def test_chroma_has_the_text_as_document_and_nowhere_else():
    records = [{"id": "a", "body": "text"}, {"id": "b", "body": 5}, {"id": "c"}]
    rows, _ = written("chroma", records, texts=["text", "5", None], text_field="body")
    assert [(row.get("document"), row.get("metadata")) for row in rows] == [
        ("text", None),
        ("5", {"body": 5}),
        (None, None),
    ]


AWKWARD = {
    "id": "a",
    "wide": 2**53 + 1,
    "wider": 2**63,
    "widest": 2**64,
    "inner": {"n": [2**64]},
    "text": "NaN and 12345678901234567890",
    "null": None,
    "list": ["a", 'b"],'],
    "mixed": ["a", 1],
    "$odd": True,
    "float": 1e300,
}


@pytest.mark.parametrize(
    ("store", "as_text", "lost"),
    [
        ("qdrant", {"widest", "inner"}, {"widest", "inner"}),
        ("milvus", {"wider", "widest", "inner"}, {"wider", "widest", "inner", "$odd"}),
        (
            "pinecone",
            {"wide", "wider", "widest", "inner", "mixed"},
            {"wide", "wider", "widest", "inner", "mixed", "null", "$odd"},
        ),
        (
            "chroma",
            {"wider", "widest", "inner", "mixed", "list"},
            {"wider", "widest", "inner", "mixed", "list", "null"},
        ),
    ],
)
def test_values_that_a_store_does_not_keep_are_texts_and_named(store, as_text, lost):
    (row,), named = written(store, [AWKWARD])
    fields = row.get("payload") or row.get("metadata") or row
    for name, value in AWKWARD.items():
        if name == "id":
            continue
        stored = fields.get(f"_{name}" if name == "$odd" and "$odd" in lost else name, "missing")
        if name == "null" and name in lost:
            assert stored == "missing"
        elif name in as_text:
            assert json.loads(stored) == value
        else:
            assert stored == value
    assert named.keys() - {"id"} == lost


def test_numbers_that_are_no_json_are_texts():
    records = pa.RecordBatch.from_pydict(
        {"id": [OWN_UUID, OWN_UUID], "x": [float("nan"), 1.5], "xs": [[float("inf")], [2.0]]}
    )
    for store in ("qdrant", "milvus", "pinecone", "chroma"):
        rows, lost = written(store, records)
        fields = [row.get("payload") or row.get("metadata") or row for row in rows]
        assert [item["x"] for item in fields] == ["NaN", 1.5]
        assert fields[0]["xs"] == "[Infinity]"
        assert {"x", "xs"} <= lost.keys()


def test_weaviate_has_one_type_a_property_and_names_that_it_allows():
    records = [{"id": "a", "Title": "x", "n": 2**53 + 1, "2 x": 1}, {"id": "b", "n": 1, "_id": "y"}]
    columns = (
        Column("Title", pa.string()),
        Column("n", pa.int64()),
        Column("2 x", pa.int64()),
        Column("_id", pa.string()),
    )
    rows, lost = written(
        "weaviate", records, columns=columns, wide=frozenset({"n"}), collections=["a b", "a_b"]
    )
    assert [row["properties"] for row in rows] == [
        {"title": "x", "n": str(2**53 + 1), "_2_x": 1, "original_id": "a"},
        {"n": "1", "__id": "y", "original_id": "b"},
    ]
    assert [row["class"] for row in rows] == ["A_b", "A_b_2"]
    assert lost.keys() == {"id", "Title", "n", "2 x", "_id", "collection"}


def test_weaviate_tells_the_type_of_each_property():
    columns = (
        Column("flags", pa.list_(pa.bool_())),
        Column("n", pa.int32()),
        Column("u", pa.uint64()),
        Column("when", pa.timestamp("us")),
        Column("ratio", pa.float64()),
    )
    names = tuple(column.name for column in columns)
    facts = Facts(names, "id", frozenset(), None, (), columns=columns)
    assert layout_of("weaviate", facts).described() == {
        "flags": "boolean[]",
        "n": "int",
        "u": "text",
        "when": "text",
        "ratio": "number",
        "original_id": "text",
    }


def test_a_tenant_is_told_from_a_class():
    rows, _ = written("weaviate", [{"id": "a"}] * 2, collections=["Docs/acme", "docs/a b"])
    assert [(row["class"], row.get("tenant")) for row in rows] == [
        ("Docs", "acme"),
        ("Docs_a_b", None),
    ]


def test_the_folder_of_a_namespace():
    facts = Facts((), "", frozenset(), None, (), collections=("a/b", "a", "c", "a/b/c"))
    layout = layout_of("pinecone", facts)
    assert [layout.folder(name) for name in ("a/b", "a", "c", "a/b/c", "é", "")] == [
        "a/b",
        "a/__default__",
        "c",
        "a/b%2Fc",
        "%C3%A9",
        "__default__",
    ]
    assert layout_of("qdrant", facts).folder("a/é?") == "a/%C3%A9%3F"


def test_a_row_without_any_member_is_an_object_all_the_same():
    rows = from_objects([{"a": "x,"}, {}, {"b": [1]}])
    objects = json_objects(rows, with_nulls=False)
    assert objects.to_pylist() == ['{"a":"x,"}', "{}", '{"b":[1]}']


def test_names_stay_apart():
    assert free_name("a", ["a", "a_2"]) == "a_3"
    assert stored_names(["a b", "a_b", "c"], cleaned, ["c"]) == {
        "a_b": "a_b",
        "c": "c_2",
        "a b": "a_b_2",
    }


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_of_records_and_has_folders(name):
    assert ExportSettings(name).has_folders
    assert name in SUFFIXES
    for settings in (ExportSettings(name, "frames"), ExportSettings(name, vectors="text")):
        with pytest.raises(ConfigError):
            settings.check()
