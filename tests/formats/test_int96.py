"""INT96 instants of Parquet are read exactly or set aside; years that nanoseconds miss among them."""

import datetime as dt
import json
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cfray.records import values
from cfray.records.record import Reject
from cfray.sources.files.parquet import Parquet
from tests.sources.corpus import CONTEXT, items

EPOCH = 2_440_588  # the Julian day of 1970-01-01
INSTANTS = [
    dt.datetime(2024, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC),
    None,
    dt.datetime(1, 1, 1, tzinfo=dt.UTC),
    dt.datetime(1000, 1, 1, 0, 0, 0, 1, tzinfo=dt.UTC),
]


def write(path, column, **options):
    pq.write_table(
        pa.table({"id": range(len(column)), "t": column}),
        path,
        use_deprecated_int96_timestamps=True,
        **options,
    )
    return Parquet(uri=str(path))


def read(source):
    read_items = [item for _, item in items(source)]
    rejects = [item for item in read_items if isinstance(item, Reject)]
    batches = [item for item in read_items if not isinstance(item, Reject)]
    texts = [text for batch in batches for text in values.metadata_texts(batch["t"]).to_pylist()]
    return texts, [str(batch.schema.field("t").type) for batch in batches], rejects


@pytest.mark.parametrize("store_schema", [True, False])
@pytest.mark.parametrize("rows_per_group", [2, 100])
def test_far_years_are_exact(tmp_path, store_schema, rows_per_group):
    column = pa.array(INSTANTS * 3, pa.timestamp("us"))
    source = write(
        tmp_path / "a.parquet", column, store_schema=store_schema, row_group_size=rows_per_group
    )
    texts, kinds, rejects = read(source)
    assert texts == values.metadata_texts(column).to_pylist()
    assert set(kinds) == {"timestamp[us]"}
    assert source.describe(CONTEXT, source.shards(CONTEXT)).schema.field("t").type == column.type
    assert not rejects


def test_nanoseconds_are_exact_to_both_ends_of_their_range(tmp_path):
    counts = [0, 1, None, 2**63 - 1, -(2**63), -1, 10**9]
    column = pa.array(counts, pa.int64()).view(pa.timestamp("ns"))
    texts, kinds, rejects = read(write(tmp_path / "a.parquet", column))
    assert texts == values.metadata_texts(column).to_pylist()
    assert set(kinds) == {"timestamp[ns]"}
    assert not rejects


@pytest.mark.parametrize(
    "nest",
    [
        lambda array: pa.StructArray.from_arrays([array, array], ["a", "b"]),
        lambda array: pa.ListArray.from_arrays(pa.array(range(len(array) + 1), pa.int32()), array),
        lambda array: pa.FixedSizeListArray.from_arrays(array, 1),
        lambda array: pa.MapArray.from_arrays(
            pa.array(range(len(array) + 1), pa.int32()), pa.array(range(len(array))), array
        ),
    ],
)
def test_nested_instants_are_exact(tmp_path, nest):
    column = nest(pa.array(INSTANTS * 2, pa.timestamp("us")))
    texts, _, rejects = read(write(tmp_path / "a.parquet", column))
    assert texts == values.metadata_texts(column).to_pylist()
    assert not rejects


def int96(day, nanoseconds):
    return struct.pack("<qi", nanoseconds, EPOCH + day)


def test_far_years_and_nanoseconds_in_one_column(tmp_path):
    """Patch INT96 values that pyarrow does not write into a file."""
    days = {"near": 19_000, "far": 2_932_896, "farther": 120_000_000}
    column = pa.array([days["near"] * 86_400 * 10**6 + n for n in range(5)]).view(
        pa.timestamp("us")
    )
    path = tmp_path / "a.parquet"
    source = write(path, column, use_dictionary=False, compression="none")
    content = path.read_bytes()
    patches = [
        int96(days["near"], 1_234_567_891),
        int96(days["far"], 5_000),
        int96(days["far"], 5_001),
        int96(days["farther"], 0),
        int96(days["near"], 0),
    ]
    for number, patch in enumerate(patches):
        original = int96(days["near"], number * 1000)
        assert content.count(original) == 1
        content = content.replace(original, patch)
    path.write_bytes(content)
    texts, kinds, rejects = read(source)
    assert texts == [
        '"2022-01-08T00:00:01.234567891"',
        '"9999-12-31T00:00:00.000005"',
        '"2022-01-08T00:00:00"',
    ]
    assert kinds == ["timestamp[ns]", "timestamp[us]", "timestamp[ns]"]
    contents = [json.loads(reject.content) for reject in rejects]
    assert [content["id"] for content in contents] == [2, 3]
    microseconds = days["far"] * 86_400 * 10**6 + 5
    assert contents[0]["t"]["us"] == microseconds
    assert (contents[0]["t"]["ns"] - microseconds * 1000) % 2**64 == 1
    assert contents[1]["t"]["ms"] == days["farther"] * 86_400 * 1000


def test_columns_whose_names_repeat_or_hold_dots(tmp_path):
    far = pa.array(INSTANTS, pa.timestamp("us"))
    near = pa.array([1, 2, None, 4, 5], pa.int64()).view(pa.timestamp("us"))
    inner = pa.StructArray.from_arrays([near, far], ["x", "y"])
    columns = {"id": pa.array(range(5)), "t": far, "t.x": near, "a.b": far, "a": inner}
    names = [*columns, "t"]
    table = pa.table([*columns.values(), near], names=names)
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, use_deprecated_int96_timestamps=True)
    ((_, batch),) = items(Parquet(uri=str(path)))
    assert batch.schema.names == ["id", "t#1", "t.x", "a.b", "a", "t#2"]
    for column, written in zip(batch.columns, table.columns, strict=True):
        expected = values.metadata_texts(pa.concat_arrays(written.chunks))
        assert values.metadata_texts(column) == expected
