"""What the plan makes of vectors.

Which is the primary one, how wide, and what travels beside it; through conversion to Lance and
back.
"""

import lance
import numpy as np
import pyarrow as pa
import pytest

from cfray.conversion.convert import Conversion
from cfray.errors import ConfigError
from cfray.formats import points
from cfray.frames import digests
from cfray.job.spec import JobSpec
from cfray.planning.shape import work_out_shape
from cfray.planning.vector_columns import metric_of
from cfray.records.record import Typed
from cfray.sources.base import Collection, Description

DENSE = pa.list_(pa.float32(), 4)
MULTI = pa.list_(DENSE)


def job(embedding=None, **mapping):
    return JobSpec.model_validate(
        {
            "name": "j",
            "source": {"kind": "parquet", "uri": "x"},
            "mapping": mapping,
            "embedding": embedding or {},
            "target": {"uri": "t"},
        }
    )


def page(**vectors):
    rows = len(next(iter(vectors.values())))
    ids = pa.array([f"i{n}" for n in range(rows)])
    return points.build_batch(
        ids,
        {name.replace("unnamed", ""): column for name, column in vectors.items()},
        [{"n": n} for n in range(rows)],
        payload_name="payload",
    )


def described(*collections, schema=None):
    return Description(
        schema, None, exact=False, size=0, consistency="none", collections=collections
    )


def converted(batch, **mapping):
    spec = job(**mapping)
    shape = work_out_shape(spec, described(), [batch])
    return shape, Conversion(spec, shape).convert(batch, "c").frames


A = pa.array([[0.1, 0.2, 0.3, 0.4], [1, 2, 3, 4], None], DENSE)
B = pa.array([[9, 8, 7, 6], None, [1, 1, 1, 1]], DENSE)
HALF = pa.array([np.array([0.5, 1.5], np.float16)] * 3, pa.list_(pa.float16(), 2))
MANY = pa.array([[[1, 2, 3, 4], [5, 6, 7, 8]], [], None], MULTI)
SPARSE = points.sparse_column([([4_000_000_000, 1], [0.5, -0.0]), None, ([], [])])


def test_the_only_named_dense_vector_is_the_primary_one():
    shape, frames = converted(page(title=A, sparse=SPARSE, many=MANY))
    assert shape.vector == ("vectors", "title")
    assert shape.vectors == {"sparse": ("vectors", "sparse"), "many": ("vectors", "many")}
    assert frames.column("vector").to_pylist()[:2] == A.to_pylist()[:2]
    assert frames.column("x_vector_sparse").equals(SPARSE)
    assert frames.column("x_vector_many").equals(MANY)


def test_several_named_vectors_need_a_choice_and_the_others_travel_beside():
    with pytest.raises(ConfigError) as refused:
        converted(page(a=A, b=B))
    assert "mapping.vector: vectors.a" in refused.value.remedy
    shape, frames = converted(page(a=A, b=B, half=HALF), vector="vectors.b")
    assert shape.dimension == 4
    assert frames.column("vector").to_pylist()[0] == [9, 8, 7, 6]
    assert frames.column("x_vector_a").equals(A)
    assert frames.column("x_vector_half").equals(HALF)


def test_an_unnamed_vector_goes_before_named_ones():
    shape, frames = converted(page(unnamed=A, b=B))
    assert shape.vector == ("vector",)
    assert frames.column("x_vector_b").equals(B)


def test_a_page_without_a_vector_the_sample_had_gives_nulls():
    spec = job()
    shape = work_out_shape(spec, described(), [page(unnamed=A, b=B)])
    frames = Conversion(spec, shape).convert(page(unnamed=A), "c").frames
    assert frames.column("x_vector_b").null_count == 3


def test_a_page_with_a_vector_of_another_kind_than_the_sample_keeps_it_whole():
    spec = job()
    shape = work_out_shape(spec, described(), [page(unnamed=A, b=B)])
    odd = page(unnamed=A, b=pa.array([[1.0], [2.0], [3.0]], pa.list_(pa.float32())))
    frames = Conversion(spec, shape).convert(odd, "c").frames
    assert frames.column("x_vector_b").null_count == 3
    assert {"key": "vectors.b", "value": "[1.0]"} in frames.column("custom_metadata")[0].as_py()


def test_collections_of_different_widths_are_refused_by_name():
    told = described(
        Collection("one", dimension=4), Collection("two", dimension=8), Collection("none")
    )
    with pytest.raises(ConfigError, match="4 in one; 8 in two") as refused:
        work_out_shape(job(), told, [page(unnamed=A)])
    assert "source.collections" in refused.value.remedy


@pytest.mark.parametrize("more", [{}, {"vector": "vector"}], ids=["found", "mapped"])
def test_a_declared_dimension_that_no_vector_of_the_sample_has_is_refused(more):
    with pytest.raises(ConfigError) as refused:
        work_out_shape(job({"dimension": 8}, **more), described(), [page(unnamed=A)])
    assert "embedding.dimension is 8" in refused.value.what
    assert "(vector) have 4 numbers" in refused.value.what
    assert "embedding.dimension" in refused.value.remedy


def test_a_declared_dimension_holds_for_vectors_of_several_widths():
    widths = pa.array([[1.0, 2.0], [1.0, 2.0, 3.0, 4.0], None], pa.list_(pa.float32()))
    first, second = page(unnamed=widths.slice(0, 1)), page(unnamed=widths.slice(1, 1))
    for dimension in (2, 4):
        shape = work_out_shape(job({"dimension": dimension}), described(), [first, first, second])
        assert shape.dimension == dimension


@pytest.mark.parametrize("dimension", [None, 8])
def test_a_source_without_vectors_gets_the_declared_dimension_or_1(dimension):
    batch = page(unnamed=A).drop_columns(["vector"])
    shape = work_out_shape(job({"dimension": dimension}), described(), [batch])
    assert shape.dimension == (dimension or 1)


@pytest.mark.parametrize(
    "kind",
    [
        pa.struct([("key", pa.uuid())]),
        pa.list_(pa.uuid()),
        pa.dense_union([pa.field("number", pa.int64())]),
    ],
    ids=str,
)
def test_a_schema_may_hold_types_that_arrow_makes_no_empty_table_of(kind):
    schema = pa.schema([("id", pa.string()), ("odd", kind)])
    shape = work_out_shape(job(), described(schema=schema), [])
    assert "odd" in shape.types


def test_the_metric_is_carried_over_where_the_collections_agree():
    one, two = (
        Collection("a", metric="dot", vectors={"t": (4, "cosine")}),
        Collection("b", metric="l2", vectors={"t": (4, "cosine")}),
    )
    assert metric_of(described(one), ("vector",)) == "dot"
    assert metric_of(described(one, two), ("vector",)) is None
    assert metric_of(described(one, two), ("vectors", "t")) == "cosine"


def test_every_kind_of_vector_comes_back_from_lance_to_the_bit_with_the_same_hash(tmp_path):
    _, frames = converted(page(unnamed=A, b=B, half=HALF, sparse=SPARSE, many=MANY))
    lance.write_dataset(pa.table(frames), tmp_path / "d.lance", data_storage_version="2.2")
    (back,) = lance.dataset(tmp_path / "d.lance").to_table().combine_chunks().to_batches()
    for name in ("vector", "x_vector_b", "x_vector_half", "x_vector_sparse", "x_vector_many"):
        assert back.column(name).to_pylist() == frames.column(name).to_pylist(), name
    wanted, found = digests.content_hashes(frames), digests.content_hashes(back)
    assert {group: rows.tolist() for group, rows in found.items()} == {
        group: rows.tolist() for group, rows in wanted.items()
    }


def test_a_store_of_its_own_types_is_mapped_like_plain_ones():
    payload = [
        {
            "when": Typed("date", "2024-02-03T23:30:00-02:00"),
            "by": Typed("uuid", "6f9619ff-8b86-d011-b42d-00c04fc964ff"),
        }
    ]
    payload[0]["picture"] = Typed("binary", "AP8=")
    batch = points.build_batch(
        pa.array(["i"]), {"": A.slice(0, 1)}, payload, payload_name="payload"
    )
    mapping = {
        "created_at": "when",
        "author": "by",
        "raw_data": "picture",
        "raw_data_type": {"const": "image/png"},
    }
    _, frames = converted(batch, **mapping)
    row = frames.to_pylist()[0]
    assert (row["created_at"], row["author"], row["raw_data"]) == (
        "2024-02-04",
        "6f9619ff-8b86-d011-b42d-00c04fc964ff",
        b"\x00\xff",
    )
    assert {"key": "when", "value": '"2024-02-03T23:30:00-02:00"'} in row["custom_metadata"]
