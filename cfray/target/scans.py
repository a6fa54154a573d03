"""How much a scan of a target holds at once."""

from __future__ import annotations

from typing import TypedDict


class ScanLimits(TypedDict):
    """Keywords of Lance's scanners.

    Attributes:
        batch_size_bytes: Arrow data of a batch.
        batch_readahead: batches that a scan reads ahead.
        io_buffer_size: bytes that a scan reads ahead.
    """

    batch_size_bytes: int
    batch_readahead: int
    io_buffer_size: int


#: Of a task that reads a part of a target: Lance's defaults (16 batches, 2 GiB) would let the
#: reader, not the data, set the peak of its memory.
SCAN_LIMITS: ScanLimits = {
    "batch_size_bytes": 16 * 1024 * 1024,
    "batch_readahead": 4,
    "io_buffer_size": 64 * 1024 * 1024,
}
