"""A Delta source reads the live rows of the version that the plan pinned, and no others.

Deleted rows, outdated rows and rows of other versions lie in the same folder.
"""

import datetime as dt
import decimal
import itertools
import json
from pathlib import Path

import pyarrow as pa
import pytest

from cfray.errors import SourceError
from cfray.records.record import file_of
from cfray.sources.files.delta import Delta
from cfray.sources.files.parquet import Parquet
from tests.sources import delta_tables
from tests.sources.contract import SourceContract
from tests.sources.corpus import CONTEXT, CORPUS, SCHEMA, SHARD_BYTES, items, make_row, rows
from tests.sources.delta_tables import deletion_vector, field, struct_of

deltalake = pytest.importorskip("deltalake")


def table(some_rows):
    return pa.Table.from_pylist(some_rows, SCHEMA)


def write(path, some_rows, **options):
    deltalake.write_deltalake(str(path), table(some_rows), **options)
    return Delta(uri=str(path), shard_bytes=SHARD_BYTES)


class TestDelta(SourceContract):
    cannot_tell_missing = "a Delta table has a schema: an absent value is null"

    @pytest.fixture
    def seed(self, tmp_path):
        numbers = itertools.count()

        def write_table(some_rows):
            path = tmp_path / f"{next(numbers)}"
            properties = deltalake.WriterProperties(max_row_group_size=10)
            return write(path, some_rows, writer_properties=properties)

        return write_table


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "table", CORPUS)


def append(delta):
    deltalake.write_deltalake(delta, table([make_row(999)]), mode="append")


CHANGES = [
    append,
    lambda delta: delta.delete("n < 30"),
    lambda delta: delta.update({"text": "'new'"}, predicate="n < 9"),
    lambda delta: delta.optimize.compact(),
]


@pytest.mark.parametrize("change", CHANGES, ids=["append", "delete", "update", "compact"])
def test_a_resume_reads_the_pinned_version_whatever_was_written_since(source, change):
    shards = source.shards(CONTEXT)
    before = rows(source, shards)
    change(deltalake.DeltaTable(source.uri))
    assert rows(source, shards) == before
    assert len(before) == len(CORPUS)


@pytest.mark.parametrize("change", CHANGES[:3], ids=["append", "delete", "update"])
def test_the_live_rows_are_those_that_the_library_itself_gives(source, change):
    delta = deltalake.DeltaTable(source.uri)
    change(delta)
    expected = {row["id"]: row["text"] for row in delta.to_pyarrow_table().to_pylist()}
    assert {row["id"]: row["text"] for row in rows(source)} == expected
    assert len(rows(source)) == len(expected)


def test_an_earlier_version_is_read_where_the_job_file_names_it(source):
    deltalake.DeltaTable(source.uri).delete("n < 30")
    earlier = source.model_copy(update={"version": 0})
    assert (len(rows(source)), len(rows(earlier))) == (len(CORPUS) - 30, len(CORPUS))
    (note,) = source.describe(CONTEXT, source.shards(CONTEXT)).notes
    assert "version 1" in note


def test_a_later_version_is_another_mark(source):
    before = source.marks(CONTEXT)
    append(deltalake.DeltaTable(source.uri))
    assert (before, source.marks(CONTEXT)) == (
        {"the table": "version 0"},
        {"the table": "version 1"},
    )


def test_a_live_file_that_vacuum_removed_is_named(source):
    delta = deltalake.DeltaTable(source.uri)
    append(delta)
    path = Path(delta.file_uris()[0])
    path.unlink()
    with pytest.raises(SourceError) as refused:
        source.shards(CONTEXT)
    assert path.name in refused.value.what
    assert "VACUUM" in refused.value.remedy


def test_partition_values_come_typed_from_the_log_whatever_the_folders_are_called(tmp_path):
    columns = {
        "id": [f"r{number}" for number in range(4)],
        "year": pa.array([2024, None, 2024, 2025], pa.int32()),
        "lang": ["d e/ü", "%41", "x=y", "__HIVE_DEFAULT_PARTITION__"],
        "day": [dt.date(2024, 1, 1), None, dt.date(1, 1, 1), dt.date(9999, 12, 31)],
        "price": pa.array(
            [decimal.Decimal("1.50"), None, decimal.Decimal("-2.00"), decimal.Decimal("0.00")],
            pa.decimal128(10, 2),
        ),
    }
    expected = pa.table(columns)
    location = str(tmp_path / "table")
    deltalake.write_deltalake(location, expected, partition_by=["year", "lang", "day", "price"])
    source = Delta(uri=location)
    read_rows = sorted(rows(source), key=lambda row: row["id"])
    assert read_rows == expected.to_pylist()
    schema = source.describe(CONTEXT, source.shards(CONTEXT)).schema
    assert [schema.field(name).type for name in ("year", "price")] == [
        pa.int32(),
        pa.decimal128(10, 2),
    ]


def test_each_record_has_the_file_that_it_is_from(source):
    files = {file_of(batch) for _, batch in items(source)}
    assert len(files) == 1
    assert files.pop().endswith(".parquet")


def test_a_column_that_later_versions_added_is_null_in_the_files_without_it(tmp_path):
    location = str(tmp_path / "table")
    deltalake.write_deltalake(location, pa.table({"id": ["a"]}))
    deltalake.write_deltalake(
        location, pa.table({"id": ["b"], "n": [7]}), mode="append", schema_mode="merge"
    )
    assert sorted(rows(Delta(uri=location)), key=lambda row: row["id"]) == [
        {"id": "a", "n": None},
        {"id": "b", "n": 7},
    ]


NUMBERS = pa.table({"id": [f"r{n}" for n in range(10)], "n": pa.array(range(10), pa.int32())})
NUMBERS_SCHEMA = struct_of(field("id"), field("n", "integer"))


@pytest.mark.parametrize("deleted", [[0], [9], [1, 3, 4, 5, 9], list(range(10)), [4, 5, 6, 7]])
def test_rows_that_a_deletion_vector_marks_are_not_read(tmp_path, deleted):
    name = "a b%20.parquet"
    marked = {"path": "a%20b%2520.parquet", "deletionVector": deletion_vector(deleted)}
    delta_tables.write_delta(
        tmp_path / "t",
        NUMBERS_SCHEMA,
        [(name, NUMBERS, marked), ("b.parquet", NUMBERS, {})],
        features=["deletionVectors"],
    )
    source = Delta(uri=str(tmp_path / "t"), shard_bytes=1)
    expected = [n for n in range(10) if n not in deleted] + list(range(10))
    shards = source.shards(CONTEXT)
    assert [row["n"] for row in rows(source, shards)] == expected
    assert sum(shard.rows for shard in shards) == len(expected)
    assert any("1 file " in note for note in source.describe(CONTEXT, shards).notes)


def test_a_deletion_since_the_plan_does_not_change_what_a_resume_leaves_out(tmp_path):
    delta_tables.write_delta(
        tmp_path / "t",
        NUMBERS_SCHEMA,
        [("a.parquet", NUMBERS, {"deletionVector": deletion_vector([2])})],
        features=["deletionVectors"],
    )
    source = Delta(uri=str(tmp_path / "t"))
    shards = source.shards(CONTEXT)
    log = tmp_path / "t/_delta_log/00000000000000000000.json"
    log.write_text(log.read_text().replace('"deletionVector"', '"gone"'))
    assert len(rows(source)) == 10
    assert len(rows(source, shards)) == 9


def test_columns_are_found_by_their_names_in_the_files(tmp_path):
    schema = struct_of(
        field("id", id=1, physicalName="col-1"),
        field("n", "integer", id=2, physicalName="col-2"),
        field("lang", id=3, physicalName="col-3"),
    )
    renamed = NUMBERS.rename_columns(["col-1", "col-2"])
    delta_tables.write_delta(
        tmp_path / "t",
        schema,
        [("a.parquet", renamed, {"partitionValues": {"col-3": "de"}})],
        features=["columnMapping"],
        configuration={"delta.columnMapping.mode": "name"},
        partition_columns=["lang"],
    )
    assert rows(Delta(uri=str(tmp_path / "t"))) == [
        {**row, "lang": "de"} for row in NUMBERS.to_pylist()
    ]


REFUSED = {
    "numbers": (
        struct_of(field("id", id=1, physicalName="id")),
        {"features": ["columnMapping"], "configuration": {"delta.columnMapping.mode": "id"}},
        "by number",
    ),
    "nested": (
        struct_of(
            field("id", id=1, physicalName="id"),
            field(
                "author", struct_of(field("name", id=3, physicalName="c-3")), id=2, physicalName="c"
            ),
        ),
        {"features": ["columnMapping"], "configuration": {"delta.columnMapping.mode": "name"}},
        "author.name",
    ),
    "feature": (NUMBERS_SCHEMA, {"features": ["variantType"]}, "variantType"),
    "future": (NUMBERS_SCHEMA, {"features": ["someFutureFeature"]}, "someFutureFeature"),
    "bytes": (
        struct_of(field("id"), field("b", "binary")),
        {"partition_columns": ["b"]},
        "partitioned by bytes",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_not_be_read_right_is_refused_by_name(tmp_path, case):
    schema, options, words = REFUSED[case]
    rows_of_file = pa.table({"id": ["a"]})
    values = {"partitionValues": {"b": "x"}} if case == "bytes" else {}
    delta_tables.write_delta(
        tmp_path / "t", schema, [("a.parquet", rows_of_file, values)], **options
    )
    with pytest.raises(SourceError) as refused:
        Delta(uri=str(tmp_path / "t")).shards(CONTEXT)
    assert words in refused.value.what
    assert str(tmp_path / "t") in refused.value.what
    assert refused.value.transient is False


def test_a_folder_of_a_table_names_the_table(tmp_path):
    location = tmp_path / "table"
    deltalake.write_deltalake(
        str(location), pa.table({"id": ["a"], "year": ["1"]}), partition_by=["year"]
    )
    with pytest.raises(SourceError) as refused:
        Delta(uri=str(location / "year=1")).shards(CONTEXT)
    assert f"source.uri: {location}" in refused.value.remedy


def test_a_missing_version_and_an_empty_table_are_refused(source):
    with pytest.raises(SourceError, match="version 9"):
        source.model_copy(update={"version": 9}).shards(CONTEXT)
    deltalake.DeltaTable(source.uri).delete()
    with pytest.raises(SourceError, match="no rows"):
        source.shards(CONTEXT)


def test_an_odd_folder_name_is_read(tmp_path):
    # the library's writer does not take such a name
    write(tmp_path / "plain", CORPUS[:3])
    path = (tmp_path / "plain").rename(tmp_path / "export [2024] 100% #1")
    assert len(rows(Delta(uri=str(path)))) == 3


def test_the_shards_travel_into_the_plan(source):
    shards = source.shards(CONTEXT)
    assert json.loads(json.dumps([dict(shard.where) for shard in shards]))


@pytest.mark.parametrize("location", ["", "*.parquet", "year=1", "year=1/*.parquet", "*/*.parquet"])
def test_a_table_read_as_parquet_is_refused_with_the_way_out(tmp_path, location):
    path = tmp_path / "data/table"
    deltalake.write_deltalake(
        str(path), pa.table({"id": ["a"], "year": ["1"]}), partition_by=["year"]
    )
    (path / "loose.parquet").write_bytes(next(path.glob("year=1/*.parquet")).read_bytes())
    for uri in (path / location, tmp_path / "data"):
        with pytest.raises(SourceError) as refused:
            Parquet(uri=str(uri)).shards(CONTEXT)
        assert f"{path} is a Delta table" in refused.value.what
        assert f"source.kind: delta and source.uri: {path}" in refused.value.remedy


def test_a_shallow_clone_reads_the_files_of_the_table_that_it_was_made_of(tmp_path):
    original = tmp_path / "a b" / "original.parquet"
    delta_tables.write_delta(original.parent, NUMBERS_SCHEMA, [(original.name, NUMBERS, {})])
    marked = {"path": original.as_uri(), "deletionVector": deletion_vector([0, 1])}
    delta_tables.write_delta(
        tmp_path / "clone",
        NUMBERS_SCHEMA,
        [("own.parquet", NUMBERS, marked)],
        features=["deletionVectors"],
    )
    assert [row["n"] for row in rows(Delta(uri=str(tmp_path / "clone")))] == list(range(2, 10))


def test_types_that_were_widened_since_are_those_of_the_table(tmp_path):
    delta_tables.write_delta(
        tmp_path / "t",
        struct_of(field("id"), field("n", "long"), field("at", "timestamp")),
        [("a.parquet", NUMBERS, {})],
        features=["typeWidening"],
    )
    source = Delta(uri=str(tmp_path / "t"))
    schema = source.describe(CONTEXT, source.shards(CONTEXT)).schema
    assert schema.field("n").type == pa.int64()
    assert all(batch.schema == schema for _, batch in items(source))
    assert [(row["n"], row["at"]) for row in rows(source)] == [(n, None) for n in range(10)]


def test_deletions_that_the_library_does_not_read_are_refused(tmp_path):
    delta_tables.write_delta(
        tmp_path / "t",
        NUMBERS_SCHEMA,
        [("a.parquet", NUMBERS, {"deletionVector": deletion_vector([1])})],
        features=["deletionVectors", "typeWidening"],
    )
    with pytest.raises(SourceError, match="deletion vectors of the Delta table at"):
        Delta(uri=str(tmp_path / "t")).shards(CONTEXT)
