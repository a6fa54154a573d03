"""What the names of folders say is part of the records: partition keys, and the file itself."""

import json

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as pads
import pytest

from cfray.errors import SourceError
from cfray.records.record import file_of, is_variant
from cfray.sources.base import Context, Shard
from cfray.sources.files import rowgroups
from cfray.sources.files.listing import PinnedFile
from tests.sources.corpus import plain_rows
from tests.sources.file_shapes import (
    batches_of,
    notes_of,
    records,
    refusal,
    source_of,
    write_arrow,
    write_jsonl,
    write_parquet,
)

VALUES = ["de", "d e/ü", "%41", "x=y", "a:b", "", "__x__", "1.50", "über#?&"]


def rows_of(kind, uri, **options):
    return [row for batch in batches_of(kind, uri, **options) for row in plain_rows(batch)]


def schema_of(kind, uri, **options):
    source = source_of(kind, uri, **options)
    return source.describe(Context(), source.shards(Context())).schema


WRITERS = {
    "pandas": lambda table, path: table.to_pandas().to_parquet(
        path, partition_cols=["lang", "year"], index=False
    ),
    "polars": lambda table, path: pl.from_arrow(table).write_parquet(
        f"{path}/", partition_by=["lang", "year"]
    ),
    "pyarrow": lambda table, path: pads.write_dataset(
        table,
        path,
        format="parquet",
        partitioning=pads.partitioning(
            pa.schema([("lang", pa.string()), ("year", pa.int64())]), flavor="hive"
        ),
    ),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_writers_put_into_the_names_of_folders_comes_back(tmp_path, writer):
    values = [value for value in VALUES if value] + [None]
    table = pa.table(
        {
            "id": [f"d{number}" for number in range(len(values))],
            "lang": values,
            "year": [2020 + number % 3 for number in range(len(values))],
        }
    )
    WRITERS[writer](table, tmp_path / "t")
    expected = sorted(table.to_pylist(), key=lambda row: row["id"])
    # polars writes the keys into the files, too, with their types
    as_text = [
        {**row, "year": row["year"] if writer == "polars" else str(row["year"])} for row in expected
    ]
    read = sorted(rows_of("parquet", tmp_path / "t"), key=lambda row: row["id"])
    assert read == as_text
    typed = rows_of("parquet", tmp_path / "t", types={"year": "int64"}, partitioning="hive")
    assert sorted(typed, key=lambda row: row["id"]) == expected


def test_duckdb_writes_what_is_read(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    duckdb.sql(
        f"COPY (SELECT 'd' || i AS id, i % 2 AS half, CASE WHEN i < 2 THEN NULL ELSE 'x y' END AS w "
        f"FROM range(6) t(i)) TO '{tmp_path}/t' (FORMAT parquet, PARTITION_BY (half, w))"
    )
    read = {row["id"]: (row["half"], row["w"]) for row in rows_of("parquet", tmp_path / "t")}
    assert read == {f"d{i}": (str(i % 2), None if i < 2 else "x y") for i in range(6)}


class TestEveryKind:
    @pytest.fixture
    def folder(self, tmp_path):
        for number, (year, lang) in enumerate(
            [("2024", "de"), ("2025", "__HIVE_DEFAULT_PARTITION__")]
        ):
            folder = tmp_path / f"t/year={year}/lang={lang}"
            write_parquet(folder / "a.parquet", records(number, 1))
            write_arrow(folder / "a.arrow", records(number, 1))
            write_jsonl(folder / "a.jsonl", records(number, 1))
            (folder / "a.json").write_text(json.dumps(records(number, 1)))
            (folder / "a.csv").write_text(f"id,n\nd{number},{number}\n")
        return tmp_path / "t"

    @pytest.mark.parametrize("kind", ["parquet", "arrow", "csv", "jsonl", "json"])
    def test_keys_are_fields_of_the_records(self, folder, kind):
        read = rows_of(kind, folder)
        expected = [("2024", "de"), ("2025", None)]
        if kind in ("jsonl", "json"):
            expected = [
                (("string", "2024"), ("string", "de")),
                (("string", "2025"), ("null", "null")),
            ]
        assert [(row["year"], row["lang"]) for row in read] == expected
        assert any("year, lang" in note for note in notes_of(kind, folder))

    @pytest.mark.parametrize("kind", ["parquet", "arrow", "csv"])
    def test_the_schema_described_is_the_schema_read(self, folder, kind):
        schema = schema_of(kind, folder, types={"year": "int16"})
        assert schema.field("year").type == pa.int16()
        assert all(
            batch.schema == schema for batch in batches_of(kind, folder, types={"year": "int16"})
        )

    @pytest.mark.parametrize("kind", ["jsonl", "json"])
    def test_a_declared_key_is_typed_among_records_without_a_schema(self, folder, kind):
        batches = batches_of(kind, folder, types={"year": "int64"})
        assert [batch.column("year").to_pylist() for batch in batches] == [[2024], [2025]]

    @pytest.mark.parametrize("kind", ["parquet", "arrow", "csv", "jsonl", "json"])
    def test_none_makes_no_fields_and_says_so(self, folder, kind):
        assert all(set(row) == {"id", "n"} for row in rows_of(kind, folder, partitioning="none"))
        notes = notes_of(kind, folder, partitioning="none")
        assert any("partitioning: none" in note and "year, lang" in note for note in notes)

    @pytest.mark.parametrize(
        "location", ["year=2024", "year=2024/lang=de", "year=2024/lang=de/a.csv"]
    )
    def test_one_partition_has_the_keys_of_the_folders_above_it(self, folder, location):
        assert rows_of("csv", folder / location) == [
            {"id": "d0", "n": "0", "year": "2024", "lang": "de"}
        ]

    @pytest.mark.parametrize("glob", ["*/*/*.csv", "**/*.csv", "year=20*/lang=de/a.csv"])
    def test_a_glob_into_partitions_gives_the_keys(self, folder, glob):
        read = rows_of("csv", folder / glob)
        assert read[0] == {"id": "d0", "n": "0", "year": "2024", "lang": "de"}

    @pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
    def test_a_type_of_no_key_and_a_value_without_the_type_are_refused(self, folder, kind):
        error = refusal(kind, folder, types={"month": "int64"})
        assert "month" in error.what
        assert "year, lang" in error.what
        error = refusal(kind, folder, types={"lang": "int64"})
        assert "lang=de" in error.what


class TestFilesOutside:
    @pytest.fixture
    def folder(self, tmp_path):
        write_parquet(tmp_path / "t/year=2024/a.parquet", records(0, 1))
        write_parquet(tmp_path / "t/loose.parquet", records(1, 1))
        write_parquet(tmp_path / "t/year=2025/lang=de/b.parquet", records(2, 1))
        return tmp_path / "t"

    def test_auto_reads_all_and_names_the_files_without_a_key(self, folder):
        read = {row["id"]: (row.get("year"), row.get("lang")) for row in rows_of("parquet", folder)}
        assert read == {"d0": ("2024", None), "d1": (None, None), "d2": ("2025", "de")}
        notes = notes_of("parquet", folder)
        assert "no year in the path of 1 file: loose.parquet" in notes
        assert "no lang in the path of 2 files: loose.parquet, year=2024/a.parquet" in notes
        assert schema_of("parquet", folder).names == ["id", "n", "year", "lang"]

    def test_hive_refuses_a_file_outside_and_other_keys(self, folder):
        assert "loose.parquet" in refusal("parquet", folder, partitioning="hive").what
        (folder / "loose.parquet").unlink()
        assert "b.parquet" in refusal("parquet", folder, partitioning="hive").what


class TestCollisions:
    def test_a_column_with_the_same_values_stays_one_field(self, tmp_path):
        write_parquet(tmp_path / "t/year=2024/a.parquet", records(0, 2), year=[2024, 2024])
        assert rows_of("parquet", tmp_path / "t") == [
            {"id": "d0", "n": 0, "year": 2024},
            {"id": "d1", "n": 1, "year": 2024},
        ]
        assert schema_of("parquet", tmp_path / "t").names == ["id", "n", "year"]

    def test_a_column_with_other_values_is_kept_beside_the_folders_value(self, tmp_path):
        write_parquet(tmp_path / "t/year=2024/a.parquet", records(0, 3), year=[2024, 1999, None])
        read = rows_of("parquet", tmp_path / "t")
        assert [(row["year"], row["partition_year"]) for row in read] == [
            (2024, None),
            (1999, "2024"),
            (None, "2024"),
        ]
        assert any("partition_year" in note for note in notes_of("parquet", tmp_path / "t"))

    def test_records_without_a_schema_keep_both_where_they_differ(self, tmp_path):
        some = [
            {"id": 1},
            {"id": 2, "year": 2024},
            {"id": 3, "year": "1999"},
            {"id": 4, "year": None},
        ]
        write_jsonl(tmp_path / "t/year=2024/a.jsonl", some)
        read = [
            (row.get("year"), row.get("partition_year")) for row in rows_of("jsonl", tmp_path / "t")
        ]
        assert read == [
            (("string", "2024"), None),
            (("int64", "2024"), None),
            (("string", "1999"), ("string", "2024")),
            (("null", "null"), ("string", "2024")),
        ]

    def test_a_third_field_of_that_name_is_refused(self, tmp_path):
        write_parquet(
            tmp_path / "t/year=2024/a.parquet", records(0, 1), year=[1999], partition_year=["x"]
        )
        with pytest.raises(SourceError) as refused:
            rows_of("parquet", tmp_path / "t")
        assert "partition_year" in refused.value.what
        assert "partitioning: none" in refused.value.remedy

    def test_a_key_with_two_values_in_one_path_is_refused(self, tmp_path):
        write_parquet(tmp_path / "t/a=1/a=2/x.parquet", records(0, 1))
        assert "key a" in refusal("parquet", tmp_path / "t").what
        assert len(rows_of("parquet", tmp_path / "t", partitioning="none")) == 1


def test_keys_are_decoded_like_values(tmp_path):
    write_parquet(tmp_path / "t/a%20b=c%2Fd/%C3%A9=%FF/100%=50%/x.parquet", records(0, 1))
    assert rows_of("parquet", tmp_path / "t") == [
        {"id": "d0", "n": 0, "a b": "c/d", "é": "%FF", "100%": "50%"}
    ]


def test_a_folder_with_an_equals_sign_and_no_key_is_no_partition(tmp_path):
    write_parquet(tmp_path / "t/=x/a.parquet", records(0, 1))
    assert rows_of("parquet", tmp_path / "t") == [{"id": "d0", "n": 0}]


class TestFile:
    @pytest.mark.parametrize("kind", ["parquet", "arrow", "csv", "jsonl", "json"])
    def test_each_batch_names_its_file_below_the_location(self, tmp_path, kind):
        folder = tmp_path / "t/x=1/y"
        write_parquet(folder / "a.parquet", records(0, 1))
        write_arrow(folder / "a.arrow", records(0, 1))
        write_jsonl(folder / "a.jsonl", records(0, 1))
        (folder / "a.json").write_text("[{}]")
        (folder / "a.csv").write_text("id\n1\n")
        (batch,) = batches_of(kind, folder / f"a.{kind}")
        assert file_of(batch) == f"a.{kind}"
        (batch,) = batches_of(kind, tmp_path / f"t/*/*/*.{kind}")
        assert file_of(batch) == f"x=1/y/a.{kind}"
        (batch,) = batches_of(kind, tmp_path / "t")
        assert file_of(batch) == f"x=1/y/a.{kind}"
        assert (
            file_of(batch.slice(0, 1)) == file_of(batch.filter(pa.array([True]))) == file_of(batch)
        )

    def test_a_plan_of_an_earlier_version_reads_as_it_began(self, tmp_path):
        write_parquet(tmp_path / "t/year=2024/a.parquet", records(0, 2))
        source = source_of("parquet", tmp_path / "t")
        (shard,) = source.shards(Context())
        (part,) = shard.where["parts"]
        pin = {key: part["file"][key] for key in ("uri", "name", "size", "modified")}
        earlier = Shard(shard.id, {"parts": [{**part, "file": pin}]})
        (batch,) = source.read(earlier, Context())
        assert (batch.schema.names, file_of(batch)) == (["id", "n"], None)

    @pytest.mark.parametrize(
        ("name", "codec"), [("a.jsonl.gz", "gzip"), ("a.csv.zst", "zstd"), ("a.csv.bz2", None)]
    )
    def test_a_pin_of_an_earlier_version_has_the_codec_of_its_suffix(self, name, codec):
        pin = PinnedFile.from_json({"uri": f"/x/{name}", "name": name, "size": 1, "modified": 2})
        assert (pin.codec, pin.partition) == (codec, None)

    def test_a_pin_travels_into_the_plan_and_back(self):
        pin = PinnedFile("/x", "y", 1, 2, "gzip", ("../z",), (("year", "2024"), ("lang", None)))
        assert PinnedFile.from_json(json.loads(json.dumps(pin.to_json()))) == pin


class TestUnion:
    def test_a_column_that_only_a_later_file_has_is_a_field(self, tmp_path):
        write_parquet(tmp_path / "a.parquet", records(0, 2))
        write_parquet(tmp_path / "b.parquet", records(2, 2), author=["x", "y"])
        write_parquet(tmp_path / "c.parquet", [], late=pa.array([], pa.int8()))
        assert schema_of("parquet", tmp_path).names == ["id", "n", "author", "late"]
        write_arrow(tmp_path / "a.arrow", records(0, 2))
        write_arrow(tmp_path / "b.arrow", records(0, 2))
        assert schema_of("arrow", tmp_path).names == ["id", "n"]

    def test_files_that_disagree_on_a_type_are_named(self, tmp_path):
        write_parquet(tmp_path / "a.parquet", records(0, 2), x=pa.nulls(2))
        write_parquet(tmp_path / "b.parquet", records(0, 2), x=pa.array([1, 2]))
        write_parquet(tmp_path / "c.parquet", records(0, 2), x=["u", "v"])
        write_parquet(tmp_path / "d.parquet", records(0, 2), x=["u", "v"])
        assert schema_of("parquet", tmp_path).field("x").type == pa.int64()
        (note,) = [note for note in notes_of("parquet", tmp_path) if note.startswith("x is not")]
        assert "int64 in 1 file (b.parquet); string in 2 files (c.parquet)" in note
        assert "recorded as int64" in note

    def test_no_footer_is_read_twice_in_a_plan(self, tmp_path, monkeypatch):
        for number in range(4):
            write_parquet(tmp_path / f"{number}.parquet", records(number, 1))
        opened = []
        open_file = rowgroups.open_file
        monkeypatch.setattr(
            rowgroups, "open_file", lambda file: opened.append(file.name) or open_file(file)
        )
        source = source_of("parquet", tmp_path)
        source.describe(Context(), source.shards(Context()))
        assert sorted(opened) == [f"{number}.parquet" for number in range(4)]


def test_records_without_a_schema_have_variant_keys(tmp_path):
    write_jsonl(tmp_path / "t/year=1/a.jsonl", [{}, {"id": 1}])
    assert all(
        is_variant(field) for batch in batches_of("jsonl", tmp_path / "t") for field in batch.schema
    )
    assert [row["year"] for row in rows_of("jsonl", tmp_path / "t")] == [("string", "1")] * 2


def test_pandas_reads_the_same_partitions(tmp_path):
    write_parquet(tmp_path / "t/year=2024/a.parquet", records(0, 2))
    frame = pd.read_parquet(tmp_path / "t")
    assert [str(year) for year in frame["year"]] == [
        row["year"] for row in rows_of("parquet", tmp_path / "t")
    ]
