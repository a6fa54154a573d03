"""What the documents of a dataset are, as sums of hashes: the same for the same documents.

Headers and chunks do not count: they are made of documents, and anew with each dataset.  Neither
do the order of rows, their fragments and deletions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cfray.engine.tasks import run_tasks
from cfray.frames import digests
from cfray.target.commit import Target
from cfray.transfers.exports.part import FragmentReader, Part
from cfray.transfers.exports.rows import plain_frames
from cfray.transfers.exports.settings import ExportSettings

#: Name of the sum over the bytes of blobs, beside those of the groups of columns.
RAW = "raw_data"


@dataclass(slots=True)
class Content:
    """Documents, counted and hashed.

    Attributes:
        rows: documents.
        sums: group of columns -> sum of the documents' hashes, modulo 2**64.
    """

    rows: int = 0
    sums: dict[str, int] = field(default_factory=dict)

    def add(self, other: Content) -> None:
        """Add further documents."""
        self.rows += other.rows
        self.sums = digests.add_sums(self.sums, other.sums)

    def differing(self, other: Content) -> list[str]:
        """Name what differs: the number of documents, and groups of columns."""
        groups = sorted({*self.sums, *other.sums})
        names = [name for name in groups if self.sums.get(name) != other.sums.get(name)]
        return ["documents", *names] if self.rows != other.rows else names

    def as_json(self) -> dict[str, Any]:
        """Give the sums as a person compares them, in hex."""
        return {"rows": self.rows, **{name: f"{total:016x}" for name, total in self.sums.items()}}


def content_of(uri: str) -> Content:
    """Hash every document of a dataset, some fragments a task.  Ray must be running."""
    dataset = Target(uri).open()
    reader = FragmentReader(uri, dataset.version, ExportSettings("parquet", "frames"))
    parts = [
        Part(number, (fragment.fragment_id,))
        for number, fragment in enumerate(dataset.get_fragments())
    ]
    content = Content()
    for found in run_tasks(PartContent(reader), parts):
        content.add(found)
    return content


@dataclass(frozen=True, slots=True)
class PartContent:
    """Hashes the documents of a part."""

    reader: FragmentReader

    def __call__(self, part: Part) -> Content:
        """Read and hash.  Body of a task."""
        content = Content()
        for frames in self.reader.batches(part):
            plain = plain_frames(frames)
            content.rows += plain.num_rows
            hashes = digests.content_hashes(plain) | {RAW: digests.raw_hashes(plain)}
            content.sums = digests.add_hashes(content.sums, hashes)
        return content
