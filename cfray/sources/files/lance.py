"""Lance datasets as a source.

Fragments of one pinned version, an exact snapshot whatever is written meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
from pydantic import Field

from cfray.errors import SourceError
from cfray.formats.columns import plain_batch, plain_schema
from cfray.records.record import Reject
from cfray.runtime.filesystems import storage_options
from cfray.sources.base import Context, Description, Shard, Source

if TYPE_CHECKING:
    import lance


class Lance(Source):
    """One Lance dataset; ``version`` pins one of its versions (default.

    The latest when the plan is made).
    """

    kind: Literal["lance"] = "lance"
    uri: str = Field(min_length=1)
    version: int | None = Field(default=None, ge=1)

    def shards(self, context: Context) -> list[Shard]:
        """Gather fragments, in order, into shards of about ``shard_bytes``."""
        dataset = self._open(self.version)
        shards: list[Shard] = []
        group: list[int] = []
        rows = size = 0
        for fragment in dataset.get_fragments():
            weight = sum(file.file_size_bytes or 0 for file in fragment.metadata.files)
            if group and size + weight > self.shard_bytes:
                shards.append(_shard(dataset.version, group, rows, size))
                group, rows, size = [], 0, 0
            group.append(fragment.fragment_id)
            rows += fragment.count_rows()
            size += weight
        if group:
            shards.append(_shard(dataset.version, group, rows, size))
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
            fragment = dataset.get_fragment(int(str(number)))
            scanner = fragment.scanner(
                batch_size_bytes=context.batch_bytes, blob_handling="all_binary"
            )
            try:
                for count, batch in enumerate(scanner.to_batches()):
                    yield from plain_batch(
                        batch, f"fragment {number}, batch {count}", context.batch_bytes
                    )
            except (pa.ArrowInvalid, ValueError, OSError) as error:
                raise SourceError(
                    f"{self.uri}, fragment {number}, cannot be read: {error}",
                    "restore the dataset's data files",
                ) from error

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Say what the pinned version holds."""
        base = super().describe(context, shards)
        version = int(str(shards[0].where["version"]))
        dataset = self._open(version)
        schema = plain_schema(dataset.scanner(blob_handling="all_binary").projected_schema)
        return Description(
            schema,
            base.rows,
            base.exact,
            base.size,
            "snapshot",
            (f"version {version} of the dataset is read",),
        )

    def _open(self, version: int | None) -> lance.LanceDataset:
        import lance

        try:
            return lance.dataset(
                self.uri, version=version, storage_options=storage_options(self.uri)
            )
        except (ValueError, OSError) as error:
            at = f", version {version}" if version else ""
            raise SourceError(
                f"cannot open the Lance dataset at {self.uri}{at}: {error}",
                "correct source.uri or source.version in the job file",
            ) from error


def _shard(version: int, fragments: list[int], rows: int, size: int) -> Shard:
    return Shard(
        id=f"{fragments[0]:08d}",
        where={"version": version, "fragments": list(fragments)},
        rows=rows,
        size=size,
    )
