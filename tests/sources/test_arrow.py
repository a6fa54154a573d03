"""Arrow IPC: the file format splits, the stream format is whole, and a stream that was cut is noticed."""

import pyarrow as pa
import pytest
from pyarrow import ipc

from cfray.errors import SourceError
from cfray.sources.arrow import Arrow
from tests.sources.contract import CONTEXT, CORPUS, SCHEMA, FileContract, rows


def batches_of(some_rows):
    return pa.Table.from_pylist(some_rows, SCHEMA).to_batches(max_chunksize=10)


def write_with(writer_of, path, batches):
    with writer_of(path, SCHEMA) as writer:
        for batch in batches:
            writer.write_batch(batch)


class TestArrowFile(FileContract):
    suffix = ".arrow"
    cannot_tell_missing = "an Arrow file has a schema: an absent value is null"
    cannot_count = "only reading a record batch tells how many rows it has"
    cannot_compress = "an Arrow file is read from its end, which a compressed file does not let one see"

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
    whole = path.read_bytes()
    assert len(rows(Arrow(uri=str(path)))) == len(CORPUS)
    for end in ends:
        path.write_bytes(whole[:end])
        assert ipc.open_stream(path.read_bytes()).read_all().num_rows > 0, "pyarrow itself takes it for complete"
        with pytest.raises(SourceError, match=r"a\.arrows.*end marker"):
            Arrow(uri=str(path)).shards(CONTEXT)


def test_files_of_two_schemas_are_refused_when_the_plan_is_made(tmp_path):
    for name, value in (("a", "x"), ("b", 1)):
        table = pa.table({"id": [value]})
        with ipc.new_file(tmp_path / f"{name}.arrow", table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(SourceError, match=r"b\.arrow"):
        Arrow(uri=str(tmp_path)).shards(CONTEXT)
