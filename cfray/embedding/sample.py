"""Draw the sample of records that a map or a projection is learned from.

The sample is uniform: of all documents that have what is learned from, it holds those with
the smallest hash of their uuid.  At most 64 fragments of the target are read for it, spread
evenly and each read to its end, for the first rows of a fragment are no sample of it.  Nothing
is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.engine.tasks import run_tasks
from cfray.frames import digests
from cfray.records.vectors import has_number, matrix
from cfray.runtime import filesystems

Mask = npt.NDArray[np.bool_]
T = TypeVar("T")

#: Fragments that are read at most.
_MAX_READ = 64
#: Characters of a query that stands in for a title: about the length of a search.
_QUERY_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Sample:
    """Records drawn for learning.

    Attributes:
        hashes: of each uuid, ``(n,)``; the records with the smallest hashes are drawn.
        table: columns ``uuid``, ``text``, ``query`` (a title, or the text's first sentence) and
            ``old`` (the stored vector).
    """

    hashes: npt.NDArray[np.uint64]
    table: pa.Table

    @classmethod
    def from_columns(cls, uuids: pa.StringArray, columns: dict[str, pa.Array]) -> Sample:
        """Hash the uuids of some records and keep all of the records."""
        return cls(digests.row_hashes(uuids), pa.table({"uuid": uuids, **columns}))

    def merged_with(self, other: Sample, max_rows: int) -> Sample:
        """Give the records of two samples, at most the ``max_rows`` with the smallest hashes."""
        hashes = np.concatenate([self.hashes, other.hashes])
        return Sample(hashes, pa.concat_tables([self.table, other.table])).smallest(max_rows)

    def smallest(self, max_rows: int) -> Sample:
        """Give the ``max_rows`` records with the smallest hashes, ordered by hash.

        So the same records, in the same order, teach the same map, whichever shard was read first.
        """
        rows = np.argsort(self.hashes, kind="stable")[:max_rows]
        return Sample(self.hashes[rows], self.table.take(pa.array(rows)).combine_chunks())


@dataclass(frozen=True, slots=True)
class TargetSampling:
    """What a task needs to draw from a fragment of the target; travels to workers.

    Attributes:
        uri, version: of the dataset.
        policy: by which the new vectors will be made.
        max_rows: records to draw at most.
        has_titles: whether the job maps titles, so that they serve as queries.
    """

    uri: str
    version: int
    policy: str
    max_rows: int
    has_titles: bool

    def open_dataset(self) -> lance.LanceDataset:
        """Open the version that is read."""
        options = filesystems.storage_options(self.uri)
        return lance.dataset(self.uri, version=self.version, storage_options=options)


def draw_from_target(sampling: TargetSampling) -> Sample | None:
    """Draw from the target; None if no document has both a text and a vector."""
    fragments = [fragment.fragment_id for fragment in sampling.open_dataset().get_fragments()]
    samples = run_tasks(
        partial(_draw_from_fragment, sampling),
        spread_evenly(fragments, _MAX_READ),
    )
    return merge_samples(samples, sampling.max_rows)


def spread_evenly(items: Sequence[T], max_items: int) -> list[T]:
    """Choose at most ``max_items`` items, evenly spaced from the first to the last."""
    positions = np.linspace(0, len(items) - 1, min(max_items, len(items))).astype(int)
    return [items[position] for position in np.unique(positions).tolist()]


def merge_samples(samples: Iterator[Sample | None], max_rows: int) -> Sample | None:
    """Merge samples into one of at most ``max_rows`` records; None if all are None."""
    merged: Sample | None = None
    for sample in samples:
        if sample is not None:
            merged = (
                sample.smallest(max_rows)
                if merged is None
                else merged.merged_with(sample, max_rows)
            )
    return merged


def _draw_from_fragment(sampling: TargetSampling, fragment_id: int) -> Sample | None:
    """Draw from one fragment of the target.  Body of a Ray task."""
    fragment = sampling.open_dataset().get_fragment(fragment_id)
    scanner = fragment.scanner(
        columns=["uuid", "text_content", "title", "vector"], filter="record_type = 'document'"
    )

    def samples() -> Iterator[Sample]:
        for batch in scanner.to_batches():
            usable = _usable_rows(batch, sampling.policy)
            yield sample_of(batch, usable, has_titles=sampling.has_titles)

    return merge_samples(samples(), sampling.max_rows)


def _usable_rows(frames: pa.RecordBatch, policy: str) -> Mask:
    """Tell which rows have what is learned from: under ``keep`` a vector, else also a text."""
    if policy == "regenerate":
        return _has_text(frames)
    has_vector = has_number(matrix(frames.column("vector")))
    return has_vector if policy == "keep" else has_vector & _has_text(frames)


def _has_text(frames: pa.RecordBatch) -> Mask:
    """Tell which rows have a text that is not blank."""
    is_filled = pc.not_equal(pc.utf8_trim_whitespace(frames.column("text_content")), "")
    mask: Mask = pc.fill_null(is_filled, False).to_numpy(zero_copy_only=False)
    return mask


def sample_of(frames: pa.RecordBatch, usable: Mask, *, has_titles: bool) -> Sample:
    """Give the usable frames as a sample, each with a query that should find its document."""
    frames = frames.filter(pa.array(usable))
    texts = frames.column("text_content")
    sentences = _first_sentences(texts)
    queries = (
        pc.coalesce(_null_if_blank(frames.column("title")), sentences) if has_titles else sentences
    )
    columns = {"text": texts, "query": queries, "old": frames.column("vector")}
    return Sample.from_columns(frames.column("uuid"), columns)


def _first_sentences(texts: pa.StringArray) -> pa.StringArray:
    """Give the first sentence of each text, at most 80 characters of it."""
    beginnings = pc.utf8_slice_codeunits(pc.utf8_ltrim_whitespace(texts), 0, _QUERY_CHARACTERS)
    sentences = pc.struct_field(pc.extract_regex(beginnings, r"^(?P<sentence>[^.!?\r\n]+)"), [0])
    return pc.coalesce(_null_if_blank(sentences), beginnings)


def _null_if_blank(texts: pa.StringArray) -> pa.StringArray:
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(texts), ""), None, texts)
