"""Files in the layout of Pinecone's import: a folder a namespace, with Parquet files in each.

Pinecone itself exports nothing; this is the layout that it imports, so other tools write it.
Columns are ``id``, ``values``, ``sparse_values`` (indices, values) and ``metadata`` (a JSON
object as text); Pinecone ignores all others.  The folder's name stands for the index, so
that records have the same identity as in the live index.

Source: docs.pinecone.io, "Import records" and "Import vectors into a legacy vector index".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from cfray.errors import SourceError
from cfray.formats import points
from cfray.formats.columns import interleave, split_by_bytes
from cfray.formats.jsontext import InexactJson, parse_json
from cfray.records.record import Reject
from cfray.records.types import SPARSE
from cfray.runtime import filesystems
from cfray.sources.base import Collection, Context, Description, Json, Shard
from cfray.sources.files import listing, locations, rowgroups
from cfray.sources.files.base import pack_parts, parts_of
from cfray.sources.files.listing import PinnedFile
from cfray.sources.pinecone.types import DEFAULT_NAMESPACE

#: Names that a note lists at most.
_LISTED_NAMES = 20
_RECORD_COLUMNS = ("id", "values", "sparse_values", "metadata")


def plan_shards(
    uri: str, shard_bytes: int, choose_collections: Callable[[Iterable[str]], list[str]]
) -> list[Shard]:
    """Cut the files of each chosen namespace into shards.

    Raises:
        SourceError: no namespace, or a namespace without a Parquet file, or a file without ids.
    """
    folders = _namespace_folders(uri)
    shards: list[Shard] = []
    for collection in choose_collections(folders):
        files = [
            replace(file, name=f"{collection}/{file.name}")
            for file in _list_files(folders[collection])
        ]
        parts = [part for file in files for part in rowgroups.split_file(file, shard_bytes)]
        dimension = _find_dimension(files)
        shards += [
            replace(
                shard,
                id=f"{collection}#{shard.id}",
                where={**shard.where, "width": dimension},
                collection=collection,
            )
            for shard in pack_parts(parts, shard_bytes)
        ]
    return shards


def _namespace_folders(uri: str) -> dict[str, str]:
    """Map the name of each collection to its folder."""
    root = uri.rstrip("/")
    files_in_root = [
        name for name in _list_root(root, pafs.FileType.File) if name.endswith(rowgroups.SUFFIXES)
    ]
    if files_in_root:
        raise SourceError(
            f"{root}/{files_in_root[0]} is in no namespace's folder",
            f"move it into {root}/{DEFAULT_NAMESPACE}, or correct source.uri",
        )
    index = root.rpartition("/")[2]
    namespaces = [
        name for name in _list_root(root, pafs.FileType.Directory) if not name.startswith(".")
    ]
    if not namespaces:
        raise SourceError(
            f"no namespace's folder at {root}",
            "correct source.uri: it names a folder with a folder for each namespace, "
            "and Parquet files in those",
        )
    return {
        index if namespace == DEFAULT_NAMESPACE else f"{index}/{namespace}": f"{root}/{namespace}"
        for namespace in namespaces
    }


def _list_root(root: str, kind: pafs.FileType) -> list[str]:
    """Name the files or the folders beside the namespaces' folders, sorted."""
    system, path = filesystems.open_filesystem(root)
    infos = system.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in infos if info.type == kind)


def _list_files(folder: str) -> list[PinnedFile]:
    """List the Parquet files of a namespace."""
    listed = locations.list_files(folder)
    files = [file for file in listed if file.name.endswith(rowgroups.SUFFIXES)]
    if not files:
        raise SourceError(
            f"no {' or '.join(rowgroups.SUFFIXES)} file at {folder}",
            "put the namespace's files into it, or remove the folder",
        )
    return files


def _find_dimension(files: list[PinnedFile]) -> int:
    """Find the dimension of the vectors; 0 where the files have no vector.

    The files do not declare it, so the first vector decides.
    """
    for file in files:
        with listing.explain_read_errors(file), listing.open_file(file) as stream:
            reader = pq.ParquetFile(stream)
            columns = reader.schema_arrow.names
            if "id" not in columns:
                raise SourceError(
                    f"{file.uri} has no column id",
                    "correct source.uri: these are no files for Pinecone's import",
                )
            if "values" not in columns:
                continue
            for batch in reader.iter_batches(1000, columns=["values"], use_threads=False):
                lengths = pc.list_value_length(batch.column(0))
                # an empty list, like a null, is a record without a dense vector
                widths = lengths.filter(pc.greater(lengths, 0)).drop_null()
                if len(widths):
                    return int(widths[0].as_py())
    return 0


def read_shard(shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
    """Read the parts of a shard, one after the other."""
    dimension = int(str(shard.where["width"]))
    for file, where in parts_of(shard):
        position = f"{file.name}:{_describe_row_groups(where)}"
        for item in rowgroups.read_part(file, where, context.batch_bytes):
            if isinstance(item, Reject):
                yield item
                continue
            with listing.explain_read_errors(file):
                converted = list(_convert(item, dimension, position))
            for record_item in converted:
                if isinstance(record_item, Reject):
                    yield record_item
                else:
                    yield from split_by_bytes(record_item, context.batch_bytes)


def _describe_row_groups(where: dict[str, Json]) -> str:
    return f"row groups {where['from']} to {where['to']}"


def _convert(
    batch: pa.RecordBatch, dimension: int, position: str
) -> Iterator[pa.RecordBatch | Reject]:
    """Make records of rows, and a reject of each row whose metadata is no JSON object."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    texts = columns["metadata"].to_pylist() if "metadata" in columns else [None] * len(batch)
    payload: list[dict[str, object]] = []
    record_rows: list[int] = []
    rejects: list[tuple[int, Reject]] = []
    for row, text in enumerate(texts):
        try:
            payload.append(_parse_metadata(text))
        except InexactJson as error:
            row_position = f"{position}, id {str(columns['id'][row].as_py())[:80]}"
            reject = Reject(f"metadata: {error}", row_position, str(text).encode())
            rejects.append((row, reject))
        else:
            record_rows.append(row)
    rows = batch.take(pa.array(record_rows, pa.int64())) if rejects else batch
    vectors: dict[str, pa.Array] = {}
    if dimension and "values" in columns:
        vectors[""] = _dense_vectors(rows["values"], dimension)
    if "sparse_values" in columns:
        vectors["sparse"] = _sparse_vectors(rows["sparse_values"])
    records = points.build_batch(
        rows["id"].cast(pa.string()), vectors, payload, payload_name="metadata"
    )
    yield from interleave(record_rows, records, iter(rejects))


def _parse_metadata(text: str | None) -> dict[str, object]:
    value = {} if text is None else parse_json(text.encode())
    if not isinstance(value, dict):
        raise InexactJson("JSON, but no object")
    return value


def _dense_vectors(column: pa.Array, dimension: int) -> pa.Array:
    """Make a vector column of lists.

    If a vector has another dimension, all stay lists, and each row is judged by itself later.
    """
    lengths = pc.list_value_length(column)
    is_empty = pc.fill_null(pc.equal(lengths, 0), False)
    if pc.any(is_empty).as_py():
        column = pc.if_else(is_empty, None, column)
        lengths = pc.list_value_length(column)
    if not pc.all(pc.equal(lengths, dimension)).as_py():
        return column.cast(pa.list_(pa.float32()))
    return column.cast(pa.list_(pa.float32(), dimension))


def _sparse_vectors(column: pa.StructArray) -> pa.Array:
    indices, values = pc.struct_field(column, "indices"), pc.struct_field(column, "values")
    # Parquet's INT32 holds the upper half of uint32 as negative numbers
    wraps_around = pa.types.is_int32(indices.type.value_type)
    children = [
        indices.cast(SPARSE.field("indices").type, safe=not wraps_around),
        values.cast(SPARSE.field("values").type),
    ]
    return pa.StructArray.from_arrays(children, fields=list(SPARSE), mask=column.is_null())


def describe_files(uri: str, base: Description, shards: list[Shard]) -> Description:
    """Say what the files are, and what in the folder is not read."""
    rows: dict[str, int] = {}
    dimensions: dict[str, int] = {}
    for shard in shards:
        rows[shard.collection] = rows.get(shard.collection, 0) + (shard.rows or 0)
        dimensions[shard.collection] = int(str(shard.where["width"]))
    collections = tuple(
        Collection(name, rows=count, dimension=dimensions[name] or None)
        for name, count in sorted(rows.items())
    )
    notes = (
        (
            "Pinecone stores every number of the metadata as a float64; "
            "these files are read as they are written"
        ),
        *_notes_on_unread(uri, rows.keys()),
    )
    return replace(base, consistency="pinned files", notes=notes, collections=collections)


def _notes_on_unread(uri: str, read: AbstractSet[str]) -> Iterator[str]:
    """Name the columns, files and folders that are not read."""
    folders = _namespace_folders(uri)
    ignored_columns: set[str] = set()
    other_files: list[str] = []
    for folder in (folders[name] for name in read):
        files = _list_files(folder)
        ignored_columns |= {column for file in files for column in _columns_not_read(file)}
        parquet = {file.uri for file in files}
        other_files += [
            file.uri.removeprefix(f"{uri.rstrip('/')}/")
            for file in locations.list_files(folder)
            if file.uri not in parquet
        ]
    top_folders = _list_root(uri.rstrip("/"), pafs.FileType.Directory)
    hidden = [name for name in top_folders if name.startswith(".")]
    for what, names in (
        ("columns that Pinecone's import ignores are not read", ignored_columns),
        (f"files without {' or '.join(rowgroups.SUFFIXES)} are not read", other_files),
        ("hidden folders are no namespaces and are not read", hidden),
        ("not read, because source.collections does not name them", folders.keys() - read),
    ):
        if names:
            more = len(names) - _LISTED_NAMES
            listed = ", ".join(sorted(names)[:_LISTED_NAMES])
            yield f"{what}: {listed}" + (f" and {more} more" if more > 0 else "")


def _columns_not_read(file: PinnedFile) -> set[str]:
    """Name the columns of a file that belong to no record."""
    with listing.explain_read_errors(file), listing.open_file(file) as stream:
        return set(pq.ParquetFile(stream).schema_arrow.names) - set(_RECORD_COLUMNS)
