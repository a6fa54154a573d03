"""Lance datasets as a source.

Fragments of one pinned version, an exact snapshot whatever is written meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
from pydantic import Field

from cfray.errors import SourceError
from cfray.formats.columns import normal_schema, separate_invalid_text
from cfray.records.record import Reject
from cfray.runtime.error_text import describe_error
from cfray.runtime.filesystems import storage_options
from cfray.runtime.models import Location
from cfray.runtime.storage_errors import classify_read_error, is_refused_access, is_unanswered
from cfray.sources.base import Context, Description, Shard, Source
from cfray.sources.files import kinds, marks, notes
from cfray.sources.files.locations import list_location

if TYPE_CHECKING:
    import lance


class Lance(Source):
    """One Lance dataset."""

    kind: Literal["lance"] = "lance"
    uri: Location
    #: The version to read; default: the latest when the plan is made.
    version: int | None = Field(default=None, ge=1)

    def shards(self, context: Context) -> list[Shard]:
        """Gather fragments, in order, into shards of about ``shard_bytes``."""
        dataset = self._open(self.version)
        shards: list[Shard] = []
        numbers: list[int] = []
        rows = size = 0
        for fragment in dataset.get_fragments():
            fragment_bytes = sum(file.file_size_bytes or 0 for file in fragment.metadata.files)
            if numbers and size + fragment_bytes > self.shard_bytes:
                shards.append(_shard_of(dataset.version, numbers, rows, size))
                numbers, rows, size = [], 0, 0
            numbers.append(fragment.fragment_id)
            rows += fragment.count_rows()
            size += fragment_bytes
        if numbers:
            shards.append(_shard_of(dataset.version, numbers, rows, size))
        if not shards:
            raise SourceError(
                f"the Lance dataset at {self.uri} has no rows", "correct source.uri in the job file"
            )
        return shards

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Scan the shard's fragments in order."""
        dataset = self._open(int(str(shard.where["version"])))
        numbers = shard.where["fragments"]
        assert isinstance(numbers, list)
        for number in numbers:
            with self._explain_errors(f"fragment {number}"):
                fragment = dataset.get_fragment(int(str(number)))
                scanner = fragment.scanner(
                    batch_size_bytes=context.batch_bytes, blob_handling="all_binary"
                )
                for batch_number, batch in enumerate(scanner.to_batches()):
                    yield from separate_invalid_text(
                        batch, f"fragment {number}, batch {batch_number}", context.batch_bytes
                    )

    def data_files(self, shard: Shard) -> Iterator[str]:
        """List the data files of a shard's fragments, by their paths below the dataset."""
        dataset = self._open(int(str(shard.where["version"])))
        numbers = shard.where["fragments"]
        assert isinstance(numbers, list)
        for number in numbers:
            for file in dataset.get_fragment(int(str(number))).metadata.files:
                yield f"data/{file.path}"

    def marks(self, context: Context) -> dict[str, str]:
        """Mark the dataset by the version that is read."""
        return {"the dataset": f"version {self._open(self.version).version}"}

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Say what the pinned version holds."""
        version = int(str(shards[0].where["version"]))
        scanner = self._open(version).scanner(blob_handling="all_binary")
        return replace(
            super().describe(context, shards),
            schema=normal_schema(scanner.projected_schema),
            consistency="snapshot",
            notes=(f"version {version} of the dataset is read",),
        )

    def _open(self, version: int | None) -> lance.LanceDataset:
        import lance

        try:
            return lance.dataset(
                self.uri, version=version, storage_options=storage_options(self.uri)
            )
        except (ValueError, OSError) as error:
            if is_refused_access(error) or is_unanswered(error):
                raise classify_read_error(error, self.uri) from error
            raise self._no_dataset(error, version) from error

    def _no_dataset(self, error: Exception, version: int | None) -> SourceError:
        """Say why there is nothing to open: no such version, other files, or nothing at all."""
        if not kinds.is_lance_dataset(self.uri):
            listing = list_location(self.uri)
            datasets = [
                entry.name.rstrip("/")
                for entry in listing.entries
                if entry.why_passed_over == marks.LANCE
            ]
            if datasets:
                return SourceError(
                    f"{self.uri} is no Lance dataset, but holds some, as LanceDB keeps its tables: "
                    f"{notes.list_names(datasets)}",
                    f"make a job for each: source.uri: {listing.locate(datasets[0])}",
                )
            present, right_kind = kinds.describe_names(
                entry.name for entry in listing.entries if not entry.why_passed_over
            )
            if right_kind:
                return SourceError(
                    f"no Lance dataset at {self.uri}; there are: {present}",
                    f"write source.kind: {right_kind} in the job file, or correct source.uri",
                )
        at_version = f", version {version}" if version else ""
        return SourceError(
            f"cannot open the Lance dataset at {self.uri}{at_version}: {describe_error(error)}",
            "correct source.uri or source.version in the job file",
        )

    @contextmanager
    def _explain_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowInvalid, ValueError, OSError) as error:
            location = f"{self.uri}, {what},"
            if is_refused_access(error) or is_unanswered(error):
                raise classify_read_error(error, location) from error
            raise SourceError(
                f"{location} cannot be read: {describe_error(error)}",
                "restore the dataset's data files",
            ) from error


def _shard_of(version: int, numbers: list[int], rows: int, size: int) -> Shard:
    return Shard(
        id=f"{numbers[0]:08d}",
        where={"version": version, "fragments": list(numbers)},
        rows=rows,
        size=size,
    )
