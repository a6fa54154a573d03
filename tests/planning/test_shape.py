"""The plan decides which vector is the primary one, how wide it is and which vectors go beside it.

Each decision is followed through conversion; all kinds of vectors go to Lance and back.
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
from cfray.records.record import Typed
from cfray.sources.base import Collection, Description

DENSE_TYPE = pa.list_(pa.float32(), 4)
MULTI_TYPE = pa.list_(DENSE_TYPE)


def job_spec(embedding=None, **mapping):
    return JobSpec.model_validate(
        {
            "name": "j",
            "source": {"kind": "parquet", "uri": "x"},
            "mapping": mapping,
            "embedding": embedding or {},
            "target": {"uri": "t"},
        }
    )


def make_page(**vectors):
    row_count = len(next(iter(vectors.values())))
    ids = pa.array([f"i{row}" for row in range(row_count)])
    return points.build_batch(
        ids,
        {name.replace("unnamed", ""): column for name, column in vectors.items()},
        [{"n": row} for row in range(row_count)],
        payload_name="payload",
    )


def describe(*collections, schema=None):
    return Description(
        schema, None, exact=False, size=0, consistency="none", collections=collections
    )


def convert(batch, **mapping):
    spec = job_spec(**mapping)
    shape = work_out_shape(spec, describe(), [batch])
    return shape, Conversion(spec, shape).convert(batch, "c").frames


DENSE_A = pa.array([[0.1, 0.2, 0.3, 0.4], [1, 2, 3, 4], None], DENSE_TYPE)
DENSE_B = pa.array([[9, 8, 7, 6], None, [1, 1, 1, 1]], DENSE_TYPE)
HALF_PRECISION = pa.array([np.array([0.5, 1.5], np.float16)] * 3, pa.list_(pa.float16(), 2))
MULTI_VECTORS = pa.array([[[1, 2, 3, 4], [5, 6, 7, 8]], [], None], MULTI_TYPE)
SPARSE_VECTORS = points.sparse_column([([4_000_000_000, 1], [0.5, -0.0]), None, ([], [])])


def test_the_only_named_dense_vector_is_the_primary_one():
    shape, frames = convert(make_page(title=DENSE_A, sparse=SPARSE_VECTORS, many=MULTI_VECTORS))
    assert shape.vector == ("vectors", "title")
    assert shape.vectors == {"sparse": ("vectors", "sparse"), "many": ("vectors", "many")}
    assert frames.column("vector").to_pylist()[:2] == DENSE_A.to_pylist()[:2]
    assert frames.column("x_vector_sparse").equals(SPARSE_VECTORS)
    assert frames.column("x_vector_many").equals(MULTI_VECTORS)


def test_several_named_vectors_need_a_choice_and_the_others_travel_beside():
    with pytest.raises(ConfigError) as refused:
        convert(make_page(a=DENSE_A, b=DENSE_B))
    assert "mapping.vector: vectors.a" in refused.value.remedy
    shape, frames = convert(
        make_page(a=DENSE_A, b=DENSE_B, half=HALF_PRECISION), vector="vectors.b"
    )
    assert shape.dimension == 4
    assert frames.column("vector").to_pylist()[0] == [9, 8, 7, 6]
    assert frames.column("x_vector_a").equals(DENSE_A)
    assert frames.column("x_vector_half").equals(HALF_PRECISION)


def test_an_unnamed_vector_goes_before_named_ones():
    shape, frames = convert(make_page(unnamed=DENSE_A, b=DENSE_B))
    assert shape.vector == ("vector",)
    assert frames.column("x_vector_b").equals(DENSE_B)


def test_a_page_without_a_vector_the_sample_had_gives_nulls():
    spec = job_spec()
    shape = work_out_shape(spec, describe(), [make_page(unnamed=DENSE_A, b=DENSE_B)])
    frames = Conversion(spec, shape).convert(make_page(unnamed=DENSE_A), "c").frames
    assert frames.column("x_vector_b").null_count == 3


def test_a_page_with_a_vector_of_another_kind_than_the_sample_keeps_it_whole():
    spec = job_spec()
    shape = work_out_shape(spec, describe(), [make_page(unnamed=DENSE_A, b=DENSE_B)])
    narrow_page = make_page(
        unnamed=DENSE_A, b=pa.array([[1.0], [2.0], [3.0]], pa.list_(pa.float32()))
    )
    frames = Conversion(spec, shape).convert(narrow_page, "c").frames
    assert frames.column("x_vector_b").null_count == 3
    assert {"key": "vectors.b", "value": "[1.0]"} in frames.column("custom_metadata")[0].as_py()


def test_collections_of_different_widths_are_refused_by_name():
    description = describe(
        Collection("one", dimension=4), Collection("two", dimension=8), Collection("none")
    )
    with pytest.raises(ConfigError, match="4 in one; 8 in two") as refused:
        work_out_shape(job_spec(), description, [make_page(unnamed=DENSE_A)])
    assert "source.collections" in refused.value.remedy


@pytest.mark.parametrize("mapping", [{}, {"vector": "vector"}], ids=["not mapped", "mapped"])
def test_a_declared_dimension_that_no_vector_of_the_sample_has_is_refused(mapping):
    with pytest.raises(ConfigError) as refused:
        work_out_shape(
            job_spec({"dimension": 8}, **mapping), describe(), [make_page(unnamed=DENSE_A)]
        )
    assert "embedding.dimension is 8" in refused.value.what
    assert "(vector) have 4 numbers" in refused.value.what
    assert "embedding.dimension" in refused.value.remedy


def test_a_further_vector_of_another_width_per_collection_has_its_own_column():
    wide = pa.array([[1.0, 2, 3, 4, 5, 6]] * 3, pa.list_(pa.float32(), 6))
    pages = [make_page(a=DENSE_A, b=DENSE_B), make_page(a=DENSE_A, b=wide)]
    spec = job_spec(vector="vectors.a")
    shape = work_out_shape(spec, describe(), pages)
    assert shape.vectors == {"b": ("vectors", "b"), "b_6": ("vectors", "b")}
    first, second = (Conversion(spec, shape).convert(page, "c").frames for page in pages)
    assert first.column("x_vector_b").equals(DENSE_B)
    assert first.column("x_vector_b_6").null_count == 3
    assert second.column("x_vector_b").null_count == 3
    assert second.column("x_vector_b_6").equals(wide)
    assert not any(
        entry["key"].startswith("vectors")
        for frames in (first, second)
        for entries in frames.column("custom_metadata").to_pylist()
        for entry in entries
    )


def test_a_second_listed_vector_of_a_record_has_its_own_column():
    page = make_page(a=DENSE_A, b=DENSE_B)
    shape, frames = convert(page, vector=["vectors.a", "vectors.b"])
    assert shape.vectors == {"b": ("vectors", "b")}
    assert frames.column("vector").to_pylist() == [
        *DENSE_A.to_pylist()[:2],
        DENSE_B.to_pylist()[2],
    ]
    assert frames.column("x_vector_b").equals(DENSE_B)


def test_collections_that_name_their_vectors_differently_lose_none():
    spec = job_spec(vector=["vectors.a", "vectors.b"])
    pages = [make_page(a=DENSE_A), make_page(b=DENSE_B)]
    description = describe(
        Collection("x", vectors={"a": (4, "dot")}), Collection("y", vectors={"b": (4, "dot")})
    )
    shape = work_out_shape(spec, description, pages)
    assert (shape.dimension, shape.vectors) == (4, {})
    for page, vectors in zip(pages, (DENSE_A, DENSE_B), strict=True):
        converted = Conversion(spec, shape).convert(page, "c")
        expected = [vector or [0] * 4 for vector in vectors.to_pylist()]
        assert converted.frames.column("vector").to_pylist() == expected
        assert converted.counts["missing_vectors"] == 1


def test_collections_whose_listed_vectors_have_different_widths_are_refused():
    description = describe(
        Collection("x", vectors={"a": (4, "dot")}), Collection("y", vectors={"b": (8, "dot")})
    )
    with pytest.raises(ConfigError, match="4 in x; 8 in y"):
        work_out_shape(
            job_spec(vector=["vectors.a", "vectors.b"]), description, [make_page(a=DENSE_A)]
        )


def test_explicit_further_vectors_of_a_store_keep_their_kind():
    _, frames = convert(
        make_page(unnamed=DENSE_A, many=MULTI_VECTORS, sparse=SPARSE_VECTORS),
        vectors={"many": "vectors.many", "thin": "vectors.sparse"},
    )
    assert frames.column("x_vector_many").equals(MULTI_VECTORS)
    assert frames.column("x_vector_thin").equals(SPARSE_VECTORS)


def test_a_declared_dimension_holds_for_vectors_of_several_widths():
    widths = pa.array([[1.0, 2.0], [1.0, 2.0, 3.0, 4.0], None], pa.list_(pa.float32()))
    narrow_page, wide_page = (
        make_page(unnamed=widths.slice(0, 1)),
        make_page(unnamed=widths.slice(1, 1)),
    )
    for dimension in (2, 4):
        shape = work_out_shape(
            job_spec({"dimension": dimension}), describe(), [narrow_page, narrow_page, wide_page]
        )
        assert shape.dimension == dimension


@pytest.mark.parametrize("dimension", [None, 8])
def test_a_source_without_vectors_gets_the_declared_dimension_or_1(dimension):
    batch = make_page(unnamed=DENSE_A).drop_columns(["vector"])
    shape = work_out_shape(job_spec({"dimension": dimension}), describe(), [batch])
    assert shape.dimension == (dimension or 1)


@pytest.mark.parametrize(
    "odd_type",
    [
        pa.struct([("key", pa.uuid())]),
        pa.list_(pa.uuid()),
        pa.dense_union([pa.field("number", pa.int64())]),
    ],
    ids=str,
)
def test_a_schema_may_hold_types_that_arrow_makes_no_empty_table_of(odd_type):
    schema = pa.schema([("id", pa.string()), ("odd", odd_type)])
    shape = work_out_shape(job_spec(), describe(schema=schema), [])
    assert "odd" in shape.types


def test_no_vector_lands_in_a_column_that_cfray_writes_itself():
    page = make_page(unnamed=DENSE_A, small=DENSE_B)
    columns = {"small": {"of": "vector", "dtype": "float16"}}
    with pytest.raises(ConfigError, match=r"embedding\.columns\.small: .* vectors\.small"):
        work_out_shape(job_spec({"columns": columns}), describe(), [page])
    page = make_page(unnamed=DENSE_A, origin=DENSE_B)
    with pytest.raises(ConfigError, match="x_vector_origin") as refused:
        work_out_shape(job_spec(), describe(), [page])
    assert "mapping.vectors: {source_origin: vectors.origin}" in refused.value.remedy
    shape, _ = convert(page, vectors={"source_origin": "vectors.origin"})
    assert set(shape.vectors) == {"source_origin"}


def test_every_kind_of_vector_comes_back_from_lance_to_the_bit_with_the_same_hash(tmp_path):
    _, frames = convert(
        make_page(
            unnamed=DENSE_A,
            b=DENSE_B,
            half=HALF_PRECISION,
            sparse=SPARSE_VECTORS,
            many=MULTI_VECTORS,
        )
    )
    lance.write_dataset(pa.table(frames), tmp_path / "d.lance", data_storage_version="2.2")
    (stored,) = lance.dataset(tmp_path / "d.lance").to_table().combine_chunks().to_batches()
    for name in ("vector", "x_vector_b", "x_vector_half", "x_vector_sparse", "x_vector_many"):
        assert stored.column(name).to_pylist() == frames.column(name).to_pylist(), name
    converted_hashes, stored_hashes = digests.content_hashes(frames), digests.content_hashes(stored)
    assert {group: hashes.tolist() for group, hashes in stored_hashes.items()} == {
        group: hashes.tolist() for group, hashes in converted_hashes.items()
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
        pa.array(["i"]), {"": DENSE_A.slice(0, 1)}, payload, payload_name="payload"
    )
    mapping = {
        "created_at": "when",
        "author": "by",
        "raw_data": "picture",
        "raw_data_type": {"const": "image/png"},
    }
    _, frames = convert(batch, **mapping)
    row = frames.to_pylist()[0]
    assert (row["created_at"], row["author"], row["raw_data"]) == (
        "2024-02-04",
        "6f9619ff-8b86-d011-b42d-00c04fc964ff",
        b"\x00\xff",
    )
    assert {"key": "when", "value": '"2024-02-03T23:30:00-02:00"'} in row["custom_metadata"]
