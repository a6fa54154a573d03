"""Columns of any length through a model, batch by batch.

A batch is large enough to sort texts into groups of equal length, and small enough that a
column of long documents needs no more memory than a few of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cfray.embedders.texts import EmbeddedTexts, TextEmbedder
from cfray.records.vectors import Floats

#: Texts of a batch by device, and their bytes.
BATCH_ROWS = {"cpu": 512, "cuda": 4_096}
_BATCH_BYTES = 4 * 1024 * 1024


class TextModel(Protocol):
    """A model that takes columns of texts, wherever it runs."""

    def embed(self, column: pa.StringArray) -> EmbeddedTexts:
        """Embed texts.

        Raises:
            CfrayError: the model failed as a whole; never for a single text.
        """

    def embed_queries(self, column: pa.StringArray) -> Floats:
        """Embed queries, none of them blank: ``(n, d)`` float32.

        Raises:
            CfrayError: the model failed as a whole.
        """

    def flush(self) -> None:
        """Write what the cache holds back."""


class LocalModel:
    """A model in this process."""

    def __init__(self, texts: TextEmbedder, device: str) -> None:
        """Take an open embedder.

        Args:
            texts: the embedder with the job's rules for texts.
            device: ``cpu`` or ``cuda``.
        """
        self.texts, self.batch_rows = texts, BATCH_ROWS[device]

    def embed(self, column: pa.StringArray) -> EmbeddedTexts:
        """Embed texts, batch by batch."""
        batches = divide_texts(column, self.batch_rows)
        return join_batches([self.texts.embed(batch) for batch in batches])

    def embed_queries(self, column: pa.StringArray) -> Floats:
        """Embed queries, batch by batch."""
        batches = divide_texts(column, self.batch_rows)
        encode = self.texts.embedder.encode_queries
        return np.concatenate([encode(batch.to_pylist()) for batch in batches])

    def flush(self) -> None:
        """Write what the cache holds back."""
        if self.texts.cache is not None:
            self.texts.cache.flush()


def divide_texts(column: pa.StringArray, max_rows: int) -> Iterator[pa.StringArray]:
    """Divide texts into batches of at most so many rows and about 4 MiB.

    A column without texts is a batch, too: its vectors still have a width.
    """
    ends = np.cumsum(pc.fill_null(pc.binary_length(column), 0).to_numpy().astype(np.int64))
    start = 0
    while start < len(column):
        bytes_before = int(ends[start - 1]) if start else 0
        fitting = int(np.searchsorted(ends, bytes_before + _BATCH_BYTES, "right"))
        end = min(start + max_rows, max(start + 1, fitting))
        # copied, for a slice would take its whole buffer along
        yield pa.concat_arrays([column.slice(start, end - start)])
        start = end
    if not len(column):
        yield column


def join_batches(batches: Sequence[EmbeddedTexts]) -> EmbeddedTexts:
    """Put the vectors of batches together again."""
    first_rows = np.cumsum([0, *(len(batch.missing) for batch in batches)])[:-1].tolist()
    faults: dict[int, str] = {}
    counts: Counter[str] = Counter()
    for first_row, batch in zip(first_rows, batches, strict=True):
        counts += batch.counts
        faults |= {first_row + row: reason for row, reason in batch.faults.items()}
    return EmbeddedTexts(
        np.concatenate([batch.vectors for batch in batches]),
        np.concatenate([batch.missing for batch in batches]),
        faults,
        counts,
    )
