"""Arrow IPC exports, file and stream format.

A file is cut by record batches; a stream is read from its start by one
worker.  A stream that was cut exactly between two messages reads as complete
unless one looks for its end marker, so we do (``sources.md`` 2.11).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import ClassVar, Literal

import pyarrow as pa
from pyarrow import ipc

from cfray.errors import SourceError
from cfray.formats.columns import plain_batch, plain_schema
from cfray.records.record import Reject
from cfray.sources.base import Context, Json
from cfray.sources.files.base import FileSource, Part
from cfray.sources.files.listing import PinnedFile, opened, undamaged

_MAGIC = b"ARROW1"
_END_OF_STREAM = (
    b"\xff\xff\xff\xff\x00\x00\x00\x00"  # Arrow columnar format, "IPC Streaming Format"
)


class Arrow(FileSource):
    """One Arrow IPC file or stream, or a folder or glob of them.

    Where their schemas differ, the deviating types are noted per row.
    """

    kind: Literal["arrow"] = "arrow"
    suffixes: ClassVar[tuple[str, ...]] = (".arrow", ".feather", ".ipc", ".arrows")

    def parts(self, file: PinnedFile, context: Context) -> list[Part]:
        """Gather a file's record batches, in order, into parts of about ``shard_bytes``.

        A stream is one part.
        """
        if not _is_file_format(file):
            _check_stream_end(file)
            return [Part(file, "0", {"stream": True}, file.size, splittable=False)]
        with undamaged(file), opened(file) as stream:
            reader = ipc.open_file(stream)
            count = reader.num_record_batches
            wanted = max(1, min(count, -(-file.size // self.shard_bytes)))
            cuts = sorted({count * cut // wanted for cut in range(wanted + 1)})
        return [
            Part(
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
        with undamaged(file), opened(file) as stream:
            for number, batch in _batches(stream, where):
                step = max(1, context.batch_bytes * batch.num_rows // max(1, batch.nbytes))
                for start in range(0, batch.num_rows, step):
                    yield from plain_batch(
                        batch.slice(start, step),
                        f"{file.name}:batch {number}, from row {start}",
                        context.batch_bytes,
                    )

    def record_schema(self, file: PinnedFile, context: Context) -> pa.Schema:
        """Give the columns as Arrow types."""
        with undamaged(file), opened(file) as stream:
            reader = ipc.open_file(stream) if _is_file_format(file) else ipc.open_stream(stream)
            return plain_schema(reader.schema)


def _batches(stream: pa.NativeFile, where: dict[str, Json]) -> Iterator[tuple[int, pa.RecordBatch]]:
    if where["stream"]:
        yield from enumerate(ipc.open_stream(stream))
        return
    reader = ipc.open_file(stream)
    for number in range(int(str(where["from"])), int(str(where["to"]))):
        yield number, reader.get_batch(number)


def _is_file_format(file: PinnedFile) -> bool:
    if file.codec:
        # a compressed file cannot be read from its end, so only streams may be compressed
        return False
    with opened(file) as stream:
        return bool(stream.read(len(_MAGIC)) == _MAGIC)


def _check_stream_end(file: PinnedFile) -> None:
    """Refuse a stream without its end marker: what is missing behind the cut could not be noticed.

    Raises:
        SourceError: the marker is not there.
    """
    tail = b""
    with undamaged(file), opened(file) as stream:
        while block := stream.read(1 << 20):
            tail = (tail + block)[-len(_END_OF_STREAM) :]
    if tail != _END_OF_STREAM:
        raise SourceError(
            f"{file.uri} is an Arrow stream without its end marker: it was cut short, or its writer was not closed",
            "export it again; what is missing behind the cut cannot be known",
        )
