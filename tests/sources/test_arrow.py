"""An Arrow source splits the file format at its record batches, and reads a stream as one shard.

A stream that was cut between two messages looks complete to pyarrow; the source must refuse it.
"""

import pyarrow as pa
import pytest
from pyarrow import ipc

from cfray.errors import SourceError
from cfray.sources.files.arrow import Arrow
from tests.sources.contract import FileContract
from tests.sources.corpus import CONTEXT, CORPUS, SCHEMA, items, rows


def batches_of(some_rows):
    return pa.Table.from_pylist(some_rows, SCHEMA).to_batches(max_chunksize=10)


def write_with(open_writer, path, batches):
    with open_writer(path, SCHEMA) as writer:
        for batch in batches:
            writer.write_batch(batch)


class TestArrowFile(FileContract):
    suffix = ".arrow"
    cannot_tell_missing = "an Arrow file has a schema: an absent value is null"
    cannot_count = "only reading a record batch tells how many rows it has"
    cannot_compress = (
        "an Arrow file is read from its end, which a compressed file does not let one see"
    )

    def write(self, path, some_rows):
        write_with(ipc.new_file, path, batches_of(some_rows))

    def source_at(self, uri, **options):
        return Arrow(uri=str(uri), **options)


class TestArrowStream(FileContract):
    suffix = ".arrows"
    cannot_tell_missing = TestArrowFile.cannot_tell_missing
    cannot_count = TestArrowFile.cannot_count
    cannot_split = "an Arrow stream has no table of contents"

    def write(self, path, some_rows):
        write_with(ipc.new_stream, path, batches_of(some_rows))

    def source_at(self, uri, **options):
        return Arrow(uri=str(uri), **options)


def test_a_stream_cut_exactly_between_two_messages_is_refused(tmp_path):
    path = tmp_path / "a.arrows"
    ends = []
    with path.open("wb") as sink, ipc.new_stream(sink, SCHEMA) as writer:
        for batch in batches_of(CORPUS):
            writer.write_batch(batch)
            ends.append(sink.tell())
    complete = path.read_bytes()
    assert len(rows(Arrow(uri=str(path)))) == len(CORPUS)
    for end in ends:
        path.write_bytes(complete[:end])
        assert ipc.open_stream(path.read_bytes()).read_all().num_rows > 0, (
            "pyarrow itself takes it for complete"
        )
        with pytest.raises(SourceError, match=r"a\.arrows.*end marker"):
            Arrow(uri=str(path)).shards(CONTEXT)


def test_one_record_batch_of_uneven_rows_is_cut_by_bytes(tmp_path):
    sizes = [10] * 500 + [3_000] * 20 + [10] * 500
    batch = pa.record_batch({"id": range(len(sizes)), "text": ["x" * size for size in sizes]})
    with ipc.new_file(tmp_path / "a.arrow", batch.schema) as writer:
        writer.write_batch(batch)
    batches = [item for _, item in items(Arrow(uri=str(tmp_path / "a.arrow")))]
    assert pa.Table.from_batches(batches) == pa.Table.from_batches([batch])
    assert max(batch.nbytes for batch in batches) <= CONTEXT.batch_bytes


def test_a_dictionary_that_every_row_shares_is_written_out_within_bounds(tmp_path):
    column = pa.array(["x" * 900, "y" * 900] * 1_000).dictionary_encode()
    batch = pa.record_batch({"id": range(2_000), "text": column})
    with ipc.new_file(tmp_path / "a.arrow", batch.schema) as writer:
        writer.write_batch(batch)
    batches = [item for _, item in items(Arrow(uri=str(tmp_path / "a.arrow")))]
    assert [text[0] for item in batches for text in item["text"].to_pylist()] == ["x", "y"] * 1_000
    assert max(item.nbytes for item in batches) <= CONTEXT.batch_bytes
    assert len(batches) < 1_000


def test_a_file_of_two_streams_is_refused(tmp_path):
    """Trap: pyarrow reads the first one, and says nothing of the second."""
    path = tmp_path / "a.arrows"
    with path.open("wb") as sink, ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_batch(batches_of(CORPUS)[0])
    one = path.read_bytes()
    path.write_bytes(one + one)
    assert ipc.open_stream(path.read_bytes()).read_all().num_rows == batches_of(CORPUS)[0].num_rows
    with pytest.raises(SourceError, match="goes on behind the end marker") as refused:
        Arrow(uri=str(path)).shards(CONTEXT)
    assert "a file of its own" in refused.value.remedy
