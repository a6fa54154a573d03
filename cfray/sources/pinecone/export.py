"""Files in the layout of Pinecone's import.

A folder with one folder a namespace, in each Parquet files of records.

Pinecone itself exports nothing; this is what it takes, so what other tools
write for it.  Columns ``id``, ``values``, ``sparse_values`` (indices, values)
and ``metadata`` (a JSON object as text); others Pinecone ignores.  The folder's
name stands for the index, so that records have the identity they have live.

Source: docs.pinecone.io, "Import records" and "Import vectors into a legacy vector index".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from cfray.errors import SourceError
from cfray.formats import points
from cfray.formats.columns import interleaved, pieces
from cfray.formats.jsontext import NotExact, parse
from cfray.records.record import Reject
from cfray.records.types import SPARSE
from cfray.runtime import filesystems
from cfray.sources.base import Collection, Context, Description, Json, Shard
from cfray.sources.files import listing, rowgroups
from cfray.sources.files.base import pack_parts, parts_of
from cfray.sources.files.listing import PinnedFile
from cfray.sources.pinecone.types import DEFAULT

_COLUMNS = ("id", "values", "sparse_values", "metadata")


def shards(uri: str, shard_bytes: int, chosen: Callable[[Iterable[str]], list[str]]) -> list[Shard]:
    """Cut the files of each namespace.

    Raises:
        SourceError: no namespace, or one without a Parquet file, or a file that has no ids.
    """
    spaces = _namespaces(uri)
    found: list[Shard] = []
    for name in chosen(spaces):
        pinned = [replace(file, name=f"{name}/{file.name}") for file in _files(spaces[name])]
        parts = [part for file in pinned for part in rowgroups.parts(file, shard_bytes)]
        width = _width(pinned)
        packed = pack_parts(parts, shard_bytes)
        found += [
            replace(
                shard,
                id=f"{name}#{shard.id}",
                where={**shard.where, "width": width},
                collection=name,
            )
            for shard in packed
        ]
    return found


def _namespaces(uri: str) -> dict[str, str]:
    """Give the collections: their names, and their folders."""
    root = uri.rstrip("/")
    system, path = filesystems.filesystem(root)
    infos: list[pafs.FileInfo] = system.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    loose = sorted(
        info.base_name
        for info in infos
        if info.type == pafs.FileType.File and info.base_name.endswith(rowgroups.SUFFIXES)
    )
    if loose:
        raise SourceError(
            f"{root}/{loose[0]} is in no namespace's folder",
            f"move it into {root}/{DEFAULT}, or correct source.uri",
        )
    index = root.rpartition("/")[2]
    spaces = sorted(
        info.base_name
        for info in infos
        if info.type == pafs.FileType.Directory and not info.base_name.startswith(".")
    )
    if not spaces:
        raise SourceError(
            f"no namespace's folder at {root}",
            "correct source.uri: it holds one folder a namespace, each with Parquet files",
        )
    return {index if one == DEFAULT else f"{index}/{one}": f"{root}/{one}" for one in spaces}


def _files(folder: str) -> list[PinnedFile]:
    """List the Parquet files of a namespace."""
    found = [file for file in listing.listed(folder) if file.name.endswith(rowgroups.SUFFIXES)]
    if not found:
        raise SourceError(
            f"no {' or '.join(rowgroups.SUFFIXES)} file at {folder}",
            "put the namespace's files there, or take the folder away",
        )
    return found


def _width(pinned: list[PinnedFile]) -> int:
    """Find how many numbers a vector has.

    The files do not declare it, the first vector tells; 0 where there is none.
    """
    for file in pinned:
        with listing.undamaged(file), listing.opened(file) as stream:
            reader = pq.ParquetFile(stream)
            names = reader.schema_arrow.names
            if "id" not in names:
                raise SourceError(
                    f"{file.uri} has no column id",
                    "correct source.uri: these are no files for Pinecone's import",
                )
            batches = (
                reader.iter_batches(1000, columns=["values"], use_threads=False)
                if "values" in names
                else ()
            )
            for batch in batches:
                widths = pc.list_value_length(batch.column(0)).drop_null()
                if len(widths):
                    return int(widths[0].as_py())
    return 0


def read(shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
    """Read the parts of a shard, one after the other."""
    width = int(str(shard.where["width"]))
    for file, where in parts_of(shard):
        for item in rowgroups.batches(file, where, context.batch_bytes):
            if isinstance(item, Reject):
                yield item
                continue
            with listing.undamaged(file):
                found = list(_records(item, width, f"{file.name}:{_where(where)}"))
            for one in found:
                yield from [one] if isinstance(one, Reject) else pieces(one, context.batch_bytes)


def _where(where: dict[str, Json]) -> str:
    return f"row groups {where['from']} to {where['to']}"


def _records(batch: pa.RecordBatch, width: int, position: str) -> Iterator[pa.RecordBatch | Reject]:
    """Make records of rows; a row whose metadata is no JSON object is set aside."""
    given = dict(zip(batch.schema.names, batch.columns, strict=True))
    texts = given["metadata"].to_pylist() if "metadata" in given else [None] * len(batch)
    payload: list[dict[str, object]] = []
    good: list[int] = []
    bad: list[tuple[int, Reject]] = []
    for row, text in enumerate(texts):
        try:
            payload.append(_metadata(text))
        except NotExact as error:
            name = str(given["id"][row].as_py())
            bad.append(
                (
                    row,
                    Reject(f"metadata: {error}", f"{position}, id {name[:80]}", str(text).encode()),
                )
            )
        else:
            good.append(row)
    rows = batch.take(pa.array(good, pa.int64())) if bad else batch
    vectors: dict[str, pa.Array] = {}
    if width and "values" in given:
        vectors[""] = _dense(rows["values"], width)
    if "sparse_values" in given:
        vectors["sparse"] = _sparse(rows["sparse_values"])
    yield from interleaved(
        good,
        points.batch(rows["id"].cast(pa.string()), vectors, payload, inside="metadata"),
        iter(bad),
    )


def _metadata(text: str | None) -> dict[str, object]:
    value = {} if text is None else parse(text.encode())
    if not isinstance(value, dict):
        raise NotExact("JSON, but no object")
    return value


def _dense(column: pa.Array, width: int) -> pa.Array:
    """Make vectors of lists; where one has another width, all stay lists.

    That each row is judged for itself.
    """
    widths = pc.list_value_length(column)
    if not pc.all(pc.equal(widths, width)).as_py():
        return column.cast(pa.list_(pa.float32()))
    empty = pc.fill_null(pc.equal(widths, 0), False)
    return pc.if_else(empty, None, column).cast(pa.list_(pa.float32(), width))


def _sparse(column: pa.StructArray) -> pa.Array:
    indices, values = pc.struct_field(column, "indices"), pc.struct_field(column, "values")
    wraps = pa.types.is_int32(
        indices.type.value_type
    )  # Parquet's INT32 holds the upper half of uint32 as negative numbers
    parts = [
        indices.cast(SPARSE.field("indices").type, safe=not wraps),
        values.cast(SPARSE.field("values").type),
    ]
    return pa.StructArray.from_arrays(parts, fields=list(SPARSE), mask=column.is_null())


def describe(uri: str, base: Description, plan: list[Shard]) -> Description:
    """Say what the files are, and what of them is not read."""
    rows: dict[str, int] = {}
    widths: dict[str, int] = {}
    for shard in plan:
        rows[shard.collection] = rows.get(shard.collection, 0) + (shard.rows or 0)
        widths[shard.collection] = int(str(shard.where["width"]))
    collections = tuple(
        Collection(name, rows=count, dimension=widths[name] or None)
        for name, count in sorted(rows.items())
    )
    notes = [
        "Pinecone stores every number of the metadata as a float64; these files are read as they are written"
    ]
    names = {one for folder in _namespaces(uri).values() for one in _strangers(folder)}
    if names:
        notes.append(
            f"columns that Pinecone's import ignores are not read: {', '.join(sorted(names))}"
        )
    return replace(base, consistency="pinned files", notes=tuple(notes), collections=collections)


def _strangers(folder: str) -> set[str]:
    """Name the columns of a namespace's first file that are no part of a record."""
    first = _files(folder)[0]
    with listing.undamaged(first), listing.opened(first) as stream:
        return set(pq.ParquetFile(stream).schema_arrow.names) - set(_COLUMNS)
