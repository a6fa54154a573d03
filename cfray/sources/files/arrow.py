"""Arrow IPC exports, file and stream format.

A file is cut by record batches; a stream is read from its start by one worker.  A stream
that was cut exactly between two messages reads as complete, and so does the first of two
streams that were put into one file: the plan looks for the first end marker, and refuses a
file that does not end with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import ClassVar, Literal

import pyarrow as pa
from pyarrow import ipc

from cfray.errors import SourceError
from cfray.formats.columns import batch_size, normal_schema, separate_invalid_text
from cfray.records.record import Reject
from cfray.sources.base import Context, Json
from cfray.sources.files.base import FilePart, FileSource
from cfray.sources.files.kinds import SUFFIXES
from cfray.sources.files.listing import PinnedFile, check_kind, explain_read_errors, open_file

_MAGIC = b"ARROW1"
#: First bytes of a Feather file as Arrow wrote it before 0.17.
_FEATHER_V1 = b"FEA1"
#: Source: Arrow columnar format, "IPC Streaming Format".
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_BLOCK = 1 << 20


class Arrow(FileSource):
    """One Arrow IPC file or stream, or a folder or glob of them.

    Where their schemas differ, the deviating types are noted per row.
    """

    kind: Literal["arrow"] = "arrow"
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES["arrow"]

    def split_file(self, file: PinnedFile, context: Context) -> list[FilePart]:
        """Gather a file's record batches, in order, into parts of about ``shard_bytes``.

        A stream is one part.
        """
        if not _is_file_format(file):
            _check_stream_end(file)
            return [FilePart(file, "0", {"stream": True}, file.size, splittable=False)]
        with explain_read_errors(file, "arrow"), open_file(file) as stream:
            reader = ipc.open_file(stream)
            count = reader.num_record_batches
            part_count = max(1, min(count, -(-file.size // self.shard_bytes)))
            cuts = sorted({count * number // part_count for number in range(part_count + 1)})
        return [
            FilePart(
                file,
                f"{first:06d}",
                {"stream": False, "from": first, "to": end},
                file.size * (end - first) // max(1, count),
            )
            for first, end in itertools.pairwise(cuts)
        ]

    def read_part(
        self, file: PinnedFile, where: dict[str, Json], context: Context
    ) -> Iterator[pa.RecordBatch | Reject]:
        """Decode record batches one at a time, cut to the bytes a batch may have."""
        with explain_read_errors(file, "arrow"), open_file(file) as stream:
            for number, batch in _batches(file, stream, where):
                step = max(1, context.batch_bytes * batch.num_rows // max(1, batch_size(batch)))
                for start in range(0, batch.num_rows, step):
                    yield from separate_invalid_text(
                        batch.slice(start, step),
                        f"{file.name}:batch {number}, from row {start}",
                        context.batch_bytes,
                    )

    def record_schema(self, file: PinnedFile, context: Context) -> pa.Schema:
        """Give the columns as the records have them."""
        with explain_read_errors(file, "arrow"), open_file(file) as stream:
            reader = ipc.open_file(stream) if _is_file_format(file) else ipc.open_stream(stream)
            return normal_schema(reader.schema)


def _batches(
    file: PinnedFile, stream: pa.NativeFile, where: dict[str, Json]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    if where["stream"]:
        yield from enumerate(ipc.open_stream(stream))
        _check_nothing_behind(file, stream)
        return
    reader = ipc.open_file(stream)
    for number in range(int(str(where["from"])), int(str(where["to"]))):
        yield number, reader.get_batch(number)


def _is_file_format(file: PinnedFile) -> bool:
    if file.codec:
        # The file format is read from its end, which a compressed file does not allow.
        return False
    with open_file(file) as stream:
        first_bytes = stream.read(len(_MAGIC))
    if first_bytes.startswith(_FEATHER_V1):
        raise SourceError(
            f"{file.uri} is a Feather file of version 1, which Arrow has given up",
            'write it again: python -c "from pyarrow import feather as f; '
            "f.write_feather(f.read_table('OLD'), 'NEW.arrow')\"",
        )
    return bool(first_bytes == _MAGIC)


def _check_stream_end(file: PinnedFile) -> None:
    """Refuse a stream that does not end with its end marker: rows would be lost without a word.

    Raises:
        SourceError: the marker is missing, or something stands behind it.
    """
    tail = b""
    with explain_read_errors(file, "arrow"), open_file(file) as stream:
        while block := stream.read(_BLOCK):
            tail = (tail + block)[-len(_END_OF_STREAM) :]
    if tail != _END_OF_STREAM:
        check_kind(file, "arrow")
        raise SourceError(
            f"{file.uri} is an Arrow stream without its end marker: it was cut short, or its "
            "writer was not closed",
            "export it again; what is missing behind the cut cannot be known",
        )
    with explain_read_errors(file, "arrow"), open_file(file) as stream:
        for _ in ipc.MessageReader.open_stream(stream):
            pass
        _check_nothing_behind(file, stream)


def _check_nothing_behind(file: PinnedFile, stream: pa.NativeFile) -> None:
    """Refuse bytes behind an end marker, where the stream stands: nobody would read them.

    Raises:
        SourceError: there are some, perhaps another stream.
    """
    if stream.read(1):
        raise SourceError(
            f"{file.uri} goes on behind the end marker of its Arrow stream: perhaps two streams "
            "were put into one file",
            "give each stream a file of its own, and name their folder in source.uri",
        )
