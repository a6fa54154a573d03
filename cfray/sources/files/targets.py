"""Finished targets of cfray's, on their way into one dataset: what several jobs have made.

Each target is a source collection, named after its job.  Its documents keep their uuids, which
hold the job's name, so that those of two jobs never meet, and a reference from one job into another
(``mapping.relationships``, key ``job``) leads to a document that is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from cfray.errors import SourceError
from cfray.frames.schema import TYPES_KEY
from cfray.records.record import Reject, canonical
from cfray.runtime import filesystems
from cfray.runtime.error_text import describe_error
from cfray.runtime.filesystems import Folder, storage_options
from cfray.runtime.models import Location
from cfray.runtime.plurals import counted
from cfray.runtime.storage_errors import classify_read_error, is_refused_access, is_unanswered
from cfray.sources.base import Collection, Context, Description, Shard, Source

if TYPE_CHECKING:
    import lance

#: Keys of a target's schema metadata: its ledger, and how its vectors came to be.
_LEDGER, _EMBEDDING = b"cfray.ledger", b"cfray.embedding"
#: Column of a chunk: the document that it was cut from.
_CHUNK_OF = "x_chunk_of"
#: Type of a key of custom_metadata that nothing names a type of.
_UNTYPED = "string"


@dataclass(frozen=True, slots=True)
class Part:
    """One target, at one version.

    Attributes:
        uri: of the dataset.
        version: that is read.
        job: name of the job that made it.
        schema: of its rows.
        types: of the keys of ``custom_metadata``.
        model: of its vectors, as parsed JSON; None where they are those of its source.
        collections: their names.
        where: SQL that its documents fit, and neither headers nor chunks.
        rows: documents.
        chunks: rows that are left out.
        quarantined: records of its source that do not fit, by its header.
        mark: changes with each commit of rows.
    """

    uri: str
    version: int
    job: str
    schema: pa.Schema
    types: dict[str, str]
    model: Any
    collections: list[str]
    where: str
    rows: int
    chunks: int
    quarantined: int
    mark: str


class Targets(Source):
    """Finished targets, each of a job of its own."""

    kind: Literal["targets"] = "targets"
    #: The addresses of the targets.
    uris: list[Location] = Field(min_length=1)
    #: Put the name of the job before the name of each collection: ``people/staff``.
    prefix_collections: bool = False

    def resolve_paths(self, base: Path) -> Self:
        """Resolve each address against the folder of the job file."""
        uris = [filesystems.resolve_path(uri, base) for uri in self.uris]
        return self.model_copy(update={"uris": uris})

    @property
    def address(self) -> str:
        """Name all targets."""
        return ", ".join(filesystems.strip_credentials(uri) for uri in self.uris)

    def would_read(self, target: str) -> bool:
        """Tell whether a target is one of these."""
        return any(filesystems.path_below(target, uri) is not None for uri in self.uris)

    def shards(self, context: Context) -> list[Shard]:
        """Gather the fragments of each target into shards of about ``shard_bytes``."""
        parts = self._parts()
        self._check_that_they_fit(parts)
        merged = _merged_types(parts)
        shards = [
            shard for part in parts for shard in self._shards_of(part, _types_to_name(part, merged))
        ]
        if not shards:
            raise SourceError(
                f"{self.address} hold no document",
                "migrate their jobs first, or correct source.uris",
            )
        return shards

    def _shards_of(self, part: Part, types: dict[str, str]) -> Iterator[Shard]:
        groups: list[list[int]] = [[]]
        size = total = 0
        dataset = _open(part.uri, part.version)
        for fragment in dataset.get_fragments():
            fragment_bytes = sum(file.file_size_bytes or 0 for file in fragment.metadata.files)
            if groups[-1] and size + fragment_bytes > self.shard_bytes:
                groups.append([])
                size = 0
            groups[-1].append(fragment.fragment_id)
            size += fragment_bytes
            total += fragment_bytes
        for number, fragments in enumerate(filter(None, groups)):
            rows = sum(dataset.get_fragment(item).count_rows(part.where) for item in fragments)
            yield Shard(
                id=f"{part.job}#{number:05d}",
                where={
                    "uri": part.uri,
                    "version": part.version,
                    "fragments": list(fragments),
                    "where": part.where,
                    "types": dict(types),
                },
                rows=rows,
                size=total // len(groups),
                collection=part.job,
            )

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Scan the documents of a shard."""
        place = shard.where
        numbers, named = place["fragments"], place["types"]
        assert isinstance(numbers, list)
        assert isinstance(named, dict)
        types = {key: str(kind) for key, kind in named.items()}
        uri, schema = str(place["uri"]), self._schema
        dataset = _open(uri, int(str(place["version"])))
        try:
            for number in numbers:
                batches = (
                    dataset.get_fragment(int(str(number)))
                    .scanner(
                        filter=str(place["where"]),
                        batch_size_bytes=context.batch_bytes,
                        blob_handling="all_binary",
                    )
                    .to_batches()
                )
                for batch in batches:
                    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                    columns["custom_metadata"] = with_types(columns["custom_metadata"], types)
                    if self.prefix_collections:
                        columns["collection"] = pc.binary_join_element_wise(
                            shard.collection, columns["collection"], "/"
                        )
                    yield pa.RecordBatch.from_arrays(
                        [
                            columns[item.name].cast(item.type)
                            if item.name in columns
                            else pa.nulls(batch.num_rows, item.type)
                            for item in schema
                        ],
                        schema=schema,
                    )
        except OSError as error:
            raise classify_read_error(error, uri) from error

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Say what the targets hold."""
        versions = {str(shard.where["uri"]): int(str(shard.where["version"])) for shard in shards}
        parts = [_part(uri, versions.get(uri)) for uri in self.uris]
        chunks = sum(part.chunks for part in parts)
        left_out = (
            f"{counted(chunks, 'chunk')} of long documents: their vectors are made of parts of "
            "texts, and are left out"
        )
        return replace(
            super().describe(context, shards),
            schema=self._schema,
            rows=sum(part.rows for part in parts),
            exact=True,
            consistency="snapshot" if len(parts) == 1 else "pinned files",
            frame_types=_merged_types(parts),
            notes=tuple(
                f"{counted(part.rows, 'document')} of the job {part.job}: version {part.version} "
                f"of {part.uri}"
                for part in parts
            )
            + tuple(
                f"{counted(part.quarantined, 'record')} of the job {part.job} "
                f"{'is' if part.quarantined == 1 else 'are'} in its quarantine, and not here"
                for part in parts
                if part.quarantined
            ),
            collections=tuple(Collection(part.job, part.rows) for part in parts),
            unread=(left_out,) if chunks else (),
        )

    def marks(self, context: Context) -> dict[str, str]:
        """Mark each target by what its ledger has committed."""
        return {part.job: part.mark for part in self._parts()}

    @cached_property
    def _schema(self) -> pa.Schema:
        """Give the columns of all targets; chunks are left out, and so is their column."""
        fields: dict[str, pa.Field] = {}
        for uri in self.uris:
            # blobs as they are read: bytes
            for item in _open(uri, None).scanner(blob_handling="all_binary").projected_schema:
                if item.name != _CHUNK_OF:
                    fields.setdefault(item.name, item)
        return pa.schema(list(fields.values()))

    def _parts(self) -> list[Part]:
        return [_part(uri) for uri in self.uris]

    def _check_that_they_fit(self, parts: list[Part]) -> None:
        """Refuse targets that cannot be one dataset.

        Raises:
            SourceError: says which two, and what can be done.
        """
        first = parts[0]
        owners: dict[str, Part] = {}
        jobs: dict[str, Part] = {}
        for part in parts:
            if part.job in jobs:
                raise SourceError(
                    f"{jobs[part.job].uri} and {part.uri} are both of the job {part.job}: their "
                    "documents have the same identities",
                    "leave one of them out, or migrate one by a job of another name",
                )
            jobs[part.job] = part
            widths = [item.schema.field("vector").type.list_size for item in (first, part)]
            if widths[0] != widths[1]:
                raise SourceError(
                    f"the vectors of {first.job} are {widths[0]} wide, those of {part.job} "
                    f"{widths[1]}",
                    "make them by one model: cfray embed",
                )
            if part.model != first.model:
                raise SourceError(
                    f"the vectors of {first.job} and of {part.job} were not made by the same model",
                    "make them by one model: cfray embed",
                )
            for item in part.schema:
                known = first.schema.field(item.name) if item.name in first.schema.names else item
                if known.type != item.type:
                    raise SourceError(
                        f"the column {item.name} is {known.type} in {first.job} and {item.type} in "
                        f"{part.job}",
                        "call one of the vectors otherwise: cfray embed with other "
                        "embedding.columns",
                    )
            for name in () if self.prefix_collections else part.collections:
                other = owners.setdefault(name, part)
                if other is not part:
                    raise SourceError(
                        f"{other.job} and {part.job} both have a collection {name!r}",
                        "set source.prefix_collections: true: the job's name stands before each",
                    )


def _open(uri: str, version: int | None) -> lance.LanceDataset:
    """Open a dataset.

    Raises:
        SourceError: there is none, or not this version.
        SourceUnavailable: the storage did not answer.
    """
    import lance

    system, path = filesystems.open_filesystem(uri)
    try:
        if system.get_file_info(path).is_file:
            raise SourceError(
                f"{uri} is a file, and a target is a folder",
                "name the folders that cfray migrate made in source.uris",
            )
        return lance.dataset(uri, version=version, storage_options=storage_options(uri))
    except (ValueError, OSError) as error:
        if is_refused_access(error) or is_unanswered(error):
            raise classify_read_error(error, uri) from error
        what = (
            f"there is no target at {uri}"
            if version is None
            else (f"version {version} of {uri} is gone")
        )
        raise SourceError(
            f"{what}: {describe_error(error)[:200]}",
            "migrate its job first, or correct source.uris; a version that was removed since the "
            "plan needs --restart",
        ) from error


def _part(uri: str, version: int | None = None) -> Part:
    """Look at a target, at its newest version or another one.

    Raises:
        SourceError: it is no target of cfray's, or not finished.
    """
    dataset = _open(uri, version)
    metadata = dataset.schema.metadata or {}
    headers: list[dict[str, Any]] = []
    if _LEDGER in metadata:
        headers = dataset.to_table(
            columns=["title", "record_type", "custom_metadata"],
            filter="record_type IN ('dataset_header', 'collection_header')",
        ).to_pylist()
    of_dataset = [row for row in headers if row["record_type"] == "dataset_header"]
    if len(of_dataset) != 1:
        raise SourceError(
            f"{uri} is no finished target of cfray's",
            "migrate its job first; another Lance dataset is read by kind: lance",
        )
    (header,) = of_dataset
    counts = {entry["key"]: entry["value"] for entry in header["custom_metadata"]}
    where, has_chunks = "record_type = 'document'", _CHUNK_OF in dataset.schema.names
    chunks = dataset.count_rows(f"{_CHUNK_OF} IS NOT NULL") if has_chunks else 0
    if has_chunks:
        where += f" AND {_CHUNK_OF} IS NULL"
    entries = json.loads(metadata[_LEDGER])["entries"]
    _check_is_finished(uri, entries)
    digest = hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()[:16]
    return Part(
        uri=uri,
        version=dataset.version,
        job=header["title"],
        schema=dataset.schema,
        types=json.loads(metadata.get(TYPES_KEY.encode(), b"{}")),
        model=json.loads(metadata.get(_EMBEDDING, b"{}")).get("model"),
        collections=[row["title"] for row in headers if row["record_type"] != "dataset_header"],
        where=where,
        rows=dataset.count_rows(where),
        chunks=chunks,
        quarantined=int(counts["read"]) - int(counts["records"]),
        mark=f"{counted(len(entries), 'commit')}, {digest}",
    )


def _check_is_finished(uri: str, entries: Mapping[str, Any]) -> None:
    """Refuse a target of which planned shards are missing; one without its folder tells nothing.

    Raises:
        SourceError: they are, or the folder is damaged.
    """
    plan = Folder(f"{uri}.cfray").read("plan.json")
    if plan is None:
        return
    try:
        planned = len(json.loads(plan)["shards"])
    except (ValueError, LookupError, TypeError) as error:
        raise SourceError(
            f"{uri}.cfray/plan.json is damaged",
            "restore the folder beside the target from a backup, or migrate its job anew",
        ) from error
    committed = sum(kind == "shard" for kind, *_ in entries.values())
    if committed < planned:
        raise SourceError(
            f"{uri} is not finished: {planned - committed:,} of {counted(planned, 'shard')} are "
            "missing",
            "run cfray migrate with its job file first",
        )


def _merged_types(parts: list[Part]) -> dict[str, str]:
    """Give the type of each key, as the first target has it that names one."""
    types: dict[str, str] = {}
    for part in parts:
        types = part.types | types
    return types


def _types_to_name(part: Part, merged: Mapping[str, str]) -> dict[str, str]:
    """Give the keys that are of another type in a target than in all of them together."""
    return {
        key: own for key, kind in merged.items() if (own := part.types.get(key, _UNTYPED)) != kind
    }


def with_types(column: pa.ListArray, types: Mapping[str, str]) -> pa.ListArray:
    """Have each row say the types of some of its keys, where it does not say them itself.

    Args:
        column: ``custom_metadata``.
        types: key -> its type.
    """
    if not types:
        return column
    rows = column.to_pylist()
    for row in rows:
        named = {entry["key"]: entry for entry in row or ()}
        missing = {key: kind for key, kind in types.items() if key in named}
        if not missing:
            continue
        own = named.get(TYPES_KEY)
        said = missing | (json.loads(own["value"]) if own else {})
        if own:
            own["value"] = canonical(said)
        else:
            row.append({"key": TYPES_KEY, "value": canonical(said)})
    return pa.array(rows, column.type)
