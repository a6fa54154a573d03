"""The rows of an export: which columns they have, what those say, and how vectors are written."""

from __future__ import annotations

import json

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cfray.conversion.convert import Conversion
from cfray.conversion.restore import Restoration
from cfray.conversion.shown_values import MetadataRows
from cfray.errors import ConfigError
from cfray.job.spec import JobSpec
from cfray.planning.shape import work_out_shape
from cfray.records.record import from_objects
from cfray.sources.base import Description
from cfray.transfers.exports.fields import Column, Kinds, columns_of
from cfray.transfers.exports.held_types import held_columns
from cfray.transfers.exports.markdown import file_name, folder_name
from cfray.transfers.exports.rows import RowMaker
from cfray.transfers.exports.settings import TABULAR, ExportSettings
from cfray.transfers.exports.texts import json_objects
from tests.arrow_arrays import make_array
from tests.restoring import plain_values


def rows_of(records, mapping=None, *, sample=None, width=0, **settings):
    """Migrate some records and export them; give the rows and the columns.

    Args:
        records: a dict of columns, or objects.
        mapping: of the job.
        sample: the records that the plan reads.
        width: of the vectors that a model made in place of those of the source.
        settings: of the export.
    """
    asked = ExportSettings(**{"format": "parquet", **settings})
    is_fixed = isinstance(records, dict)
    batch = pa.RecordBatch.from_pydict(records) if is_fixed else from_objects(records)
    first = batch if sample is None else from_objects(sample)
    kind = "arrow" if is_fixed else "jsonl"
    job = JobSpec.model_validate(
        {
            "name": "rows",
            "source": {"kind": kind, "uri": "x"},
            "target": {"uri": "t"},
            "mapping": mapping or {},
            "embedding": {"missing_vector": "null"},
        }
    )
    schema = batch.schema if is_fixed else None
    description = Description(schema, None, exact=False, size=0, consistency="none")
    conversion = Conversion(job, work_out_shape(job, description, [first]))
    converted = conversion.convert(batch, "")
    assert not converted.faults
    frames = converted.frames
    if width:
        made = pa.array([[0.5] * width] * len(frames), pa.list_(pa.float32(), width))
        place = frames.schema.get_field_index("vector")
        frames = frames.set_column(place, "vector", made)
    restoration = Restoration(job.mapping, conversion.shape, has_made_vectors=width > 0)
    columns = None
    if asked.format in TABULAR:
        kinds = Kinds()
        metadata = MetadataRows.of(frames.column("custom_metadata"))
        kinds.add_rows(metadata, conversion.shape.types)
        columns = tuple(columns_of(restoration, kinds, frames.schema))
    vectors = frozenset(path[0] for path in restoration.vector_paths)
    rows = RowMaker(asked, restoration, columns, vectors).rows(frames)
    return rows, {column.name: column for column in columns or ()}


@pytest.mark.parametrize(
    "mapping", [{"title": "n"}, {"raw_data": "n", "raw_data_type": {"const": "text/plain"}}]
)
def test_a_large_integer_that_a_column_shows_is_not_rounded(mapping):
    rows, columns = rows_of([{"id": "a", "n": 2**60 + 1}, {"id": "b", "n": 0.5}], mapping)
    assert rows.column("n").to_pylist() == [str(2**60 + 1), "0.5"]
    assert columns["n"].lost


def test_a_mixed_list_that_a_column_shows_is_written_as_json():
    objects = [{"id": "a", "l": ["x"]}, {"id": "b", "l": [1, "a"]}]
    rows, columns = rows_of(objects, {"title": "l"}, sample=objects[:1])
    assert list(map(json.loads, rows.column("l").to_pylist())) == [["x"], [1, "a"]]
    assert columns["l"].lost


SEVERAL = [{"id": "a", "v": [1.0, 2.0]}, {"id": "b", "v": [1.0, 2.0, 3.0]}]
KEEP = {"vector": {"path": "v", "other_widths": "keep"}}


@pytest.mark.parametrize("form", ["list", "text", "columns"])
def test_vectors_of_several_widths_are_written_as_json(form):
    rows, columns = rows_of(SEVERAL, KEEP, sample=SEVERAL[:1], vectors=form)
    assert list(map(json.loads, rows.column("v").to_pylist())) == [[1, 2], [1, 2, 3]]
    assert columns["v"].lost


def test_vectors_of_several_widths_are_written_as_asked():
    rows, _ = rows_of(SEVERAL, KEEP, sample=SEVERAL[:1], vectors="none", format="jsonl")
    assert rows.schema.names == ["id"]
    rows, _ = rows_of(SEVERAL, KEEP, sample=SEVERAL[:1], vectors="text", format="jsonl")
    objects = map(json.loads, json_objects(rows, with_nulls=False).to_pylist())
    assert [row["v"] for row in objects] == ["[1.0,2.0]", "[1.0,2.0,3.0]"]


def test_a_null_vector_leaves_the_column_one_of_vectors():
    objects = [{"id": "a", "vector": [1.0, 2.0]}, {"id": "b", "vector": None}]
    rows, columns = rows_of(objects, sample=objects[:1])
    assert rows.column("vector").to_pylist() == [[1, 2], None]
    assert not columns["vector"].lost


def test_a_further_vector_has_its_own_type():
    objects = [{"id": "a", "v": [1.0, 2.0], "h": [1.0, 2.0, 3.0]}]
    rows, _ = rows_of(objects, {"vector": "v", "vectors": {"h": "h"}})
    assert rows.column("h").to_pylist() == [[1, 2, 3]]


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_a_made_vector_of_another_width_than_the_sources_is_written(form):
    vectors = pa.array([[1, 2], [3, 4]], pa.list_(pa.float32(), 2))
    columns = {"id": pa.array(["a", "b"]), "vector": vectors}
    rows, _ = rows_of(columns, width=3, format=form)
    assert rows.column("vector").to_pylist() == [[0.5] * 3] * 2


def test_only_the_fields_that_are_asked_for_are_written():
    rows, _ = rows_of([{"id": "a", "price": 1, "price_2020": 2}], columns=("price",))
    assert rows.schema.names == ["price"]


@pytest.mark.parametrize("where", ["true) OR (true", "(true", "a = ')' )"])
def test_a_condition_stays_within_its_parentheses(where):
    with pytest.raises(ConfigError, match="parenthesis"):
        ExportSettings("jsonl", where=where).check()
    ExportSettings("jsonl", where="(a = 'it''s :-)' OR b IN (1, 2))").check()


def test_no_two_documents_have_a_file_of_one_name():
    assert file_name("1", "u1") != file_name("1", "u2", is_unique=False)
    assert file_name("x" * 900, "u1") != file_name("x" * 900, "u2")
    assert len(file_name("1" * 900, "u1")) < 256


@pytest.mark.parametrize("name", ["x" * 900, "é" * 90, "cfray-export.json", "a.md", "..", ""])
def test_a_folder_has_a_name_that_every_disk_takes(name):
    folder = folder_name(name)
    assert 0 < len(folder) < 256
    assert folder not in ("cfray-export.json", "a.md", "..")
    assert folder_name(f"{name}/{name}") == f"{folder}/{folder}"


RARE = [
    pa.run_end_encoded(pa.int32(), pa.string()),
    pa.list_(pa.run_end_encoded(pa.int32(), pa.string())),
    pa.month_day_nano_interval(),
    pa.decimal32(9, 2),
    pa.struct([]),
    pa.string_view(),
    pa.map_(pa.string(), pa.uuid()),
]


@pytest.mark.parametrize("kind", RARE, ids=str)
@pytest.mark.parametrize("file_format", ["parquet", "lance"])
def test_a_type_that_the_format_lacks_is_written_otherwise(kind, file_format, tmp_path):
    (column,) = held_columns([Column("c", kind)], file_format)
    values = make_array(kind, 9, 1)
    written = column.of(values, pa.field("c", kind), len(values))
    assert written.type == column.type
    table = pa.table({"c": written})
    if file_format == "parquet":
        pq.write_table(table, tmp_path / "x.parquet")
        again = pq.read_table(tmp_path / "x.parquet")
    else:
        again = lance.write_dataset(table, str(tmp_path / "x")).to_table()
    assert plain_values(again.column("c").combine_chunks()) == plain_values(written)
    assert column.type == kind or column.lost
