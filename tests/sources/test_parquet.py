"""A Parquet source splits a file at its row groups, and reads each row once.

Dictionaries, field metadata and damaged texts must not change the rows or swell a batch.
"""

import base64
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.sources.base import Context
from cfray.sources.files.parquet import Parquet
from tests.sources.contract import FileContract
from tests.sources.corpus import CONTEXT, SCHEMA, items, plain_rows, rows


class TestParquet(FileContract):
    suffix = ".parquet"
    cannot_tell_missing = "a Parquet file has a schema: an absent value is null"
    cannot_compress = "Parquet compresses its own pages, and is read from its end"

    def write(self, path, some_rows):
        pq.write_table(pa.Table.from_pylist(some_rows, SCHEMA), path, row_group_size=10)

    def source_at(self, uri, **options):
        return Parquet(uri=str(uri), **options)


def write_source(path, table, **options):
    pq.write_table(table, path, **options)
    return Parquet(uri=str(path))


class TestBatches:
    def test_repeated_text_that_the_file_holds_once_does_not_swell_a_batch(self, tmp_path):
        source = write_source(
            tmp_path / "a.parquet", pa.table({"id": range(500), "text": ["x" * 1_000] * 500})
        )
        batches = [item for _, item in items(source, Context(batch_bytes=20_000))]
        assert sum(batch.num_rows for batch in batches) == 500
        assert max(batch.nbytes for batch in batches) <= 20_000

    def test_batches_a_little_larger_than_the_file_says_are_not_cut_in_halves(self, tmp_path):
        plain_columns = {f"n{number}": np.arange(4_000) for number in range(10)}
        # A row takes 88 bytes in memory and 81 in the file.
        table = pa.table({**plain_columns, "year": np.arange(4_000) % 5})
        source = write_source(
            tmp_path / "a.parquet", table, use_dictionary=["year"], compression="none"
        )
        batches = [batch for _, batch in items(source, Context(batch_bytes=100_000))]
        assert [batch.num_rows for batch in batches] == [1_000] * 4
        assert max(batch.nbytes for batch in batches) <= 100_000

    def test_a_row_whose_text_is_not_utf8_is_a_reject_with_its_bytes(self, tmp_path):
        texts = pa.array([b"good", b"b\xffd", b"fine"]).view(pa.string())
        read_items = [
            item
            for _, item in items(
                write_source(tmp_path / "a.parquet", pa.table({"id": [1, 2, 3], "text": texts}))
            )
        ]
        (reject,) = [item for item in read_items if isinstance(item, Reject)]
        assert "text" in reject.reason
        assert json.loads(reject.content) == {
            "id": 2,
            "text": {"base64": base64.b64encode(b"b\xffd").decode()},
        }
        # The reject stands between the rows, as in the file.
        assert [read_items.index(reject), len(read_items)] == [1, 3]
        assert [
            row["id"]
            for item in read_items
            if not isinstance(item, Reject)
            for row in plain_rows(item)
        ] == [1, 3]

    def test_dictionary_columns_and_field_metadata_do_not_change_the_rows(self, tmp_path):
        field = pa.field("t", pa.string(), metadata={b"PARQUET:field_id": b"7", b"x": b"y"})
        table = pa.table(
            [pa.array(["a", "b", "a"])], schema=pa.schema([field], metadata={b"pandas": b"{}"})
        )
        encoded = table.set_column(0, "t", table.column(0).dictionary_encode())
        for equal_table in (table, encoded):
            source = write_source(tmp_path / "a.parquet", equal_table)
            ((_, batch),) = items(source)
            assert plain_rows(batch) == [{"t": "a"}, {"t": "b"}, {"t": "a"}]
            assert batch.schema == source.describe(CONTEXT, source.shards(CONTEXT)).schema


def test_each_file_keeps_its_own_schema(tmp_path):
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": [1], "x": [0.5]}), tmp_path / "b.parquet")
    assert rows(Parquet(uri=str(tmp_path))) == [{"id": "a"}, {"id": 1, "x": 0.5}]


def test_a_flipped_bit_of_a_page_with_a_checksum_is_refused(tmp_path):
    """Trap: Parquet itself reads it, as another text."""
    path = tmp_path / "a.parquet"
    table = pa.table({"id": range(20), "text": [f"Document {n}." for n in range(20)]})
    source = write_source(
        path, table, write_page_checksum=True, compression="none", use_dictionary=False
    )
    content = bytearray(path.read_bytes())
    content[content.index(b"Document 7.") + 9] ^= 14
    path.write_bytes(content)
    assert pq.read_table(path)["text"][7].as_py() == "Document 9."
    with pytest.raises(SourceError, match="checksum") as refused:
        rows(source)
    assert not refused.value.transient
