"""Files that PostgreSQL wrote: COPY in text, CSV and binary form, and plain dumps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from cfray.errors import SourceError
from cfray.formats import lines
from cfray.records.record import Reject
from cfray.runtime.models import MIB
from cfray.sources.base import Collection, Context, Description, Shard
from cfray.sources.files.listing import PinnedFile, open_file
from cfray.sources.postgres.cells import BadCopyError
from cfray.sources.postgres.copybinary import read_binary
from cfray.sources.postgres.copytext import BadRowsError
from cfray.sources.postgres.export_rows import RowReader
from cfray.sources.postgres.export_tables import table_of, text_form
from cfray.sources.postgres.records import common_references, merge_schemas
from cfray.sources.postgres.settings import PostgresSettings
from cfray.sources.postgres.texts import BadTextError

#: Bytes of text that are parsed at once.
_BLOCK_BYTES = 4 * MIB


def read_files(
    settings: PostgresSettings, shard: Shard, context: Context
) -> Iterator[pa.RecordBatch | Reject]:
    """Read a shard of a file.

    Raises:
        SourceError: the file changed, was cut, or a value is not of its column's type.
    """
    where = dict(shard.where)
    pin = where["file"]
    assert isinstance(pin, dict)
    file = PinnedFile.from_json(pin)
    columns = table_of(shard).placed()
    try:
        with open_file(file) as stream:
            if where["form"] == "binary":
                yield from read_binary(stream, columns, file.uri, context)
                return
            start, end = int(str(where["start"])), where["end"]
            _skip(stream, start, seekable=file.codec is None)
            size = None if end is None else int(str(end)) - start
            form = text_form(settings, str(where["form"]))
            blocks = lines.read_blocks(stream, size, min(_BLOCK_BYTES, 4 * context.batch_bytes))
            yield from RowReader(form, columns, file.name, context).read(blocks, start)
    except (BadRowsError, BadTextError, BadCopyError) as error:
        raise SourceError(
            f"{file.uri}: {error}",
            "the file was cut, or source.format, source.columns or source.null do not fit it",
        ) from None


def _skip(stream: pa.NativeFile, count: int, *, seekable: bool) -> None:
    if seekable:
        stream.seek(count)
        return
    while count > 0 and (block := stream.read(min(count, _BLOCK_BYTES))):
        count -= len(block)


def describe_files(shards: Sequence[Shard]) -> Description:
    """Say what the files hold; their rows are not counted."""
    tables = {shard.collection: table_of(shard) for shard in shards}
    references: dict[str, dict[str, str]] = {}
    for shard in shards:
        declared = shard.where["references"]
        assert isinstance(declared, dict)
        paths = {column.name: ".".join(column.path) for column in tables[shard.collection].placed()}
        references[shard.collection] = {
            paths[column]: str(target) for column, target in declared.items()
        }
    collections = []
    for name, table in tables.items():
        placed = table.placed()
        main = next((column for column in placed if column.path == ("vector",)), None)
        collections.append(
            Collection(
                name,
                dimension=main.dimension if main else None,
                vectors={
                    column.name: (column.dimension, None)
                    for column in placed
                    if column.is_dense and column is not main
                },
                facts={"columns": ", ".join(f"{name} {words}" for name, words in table.columns)},
                references=references[name],
            )
        )
    schema, notes = merge_schemas([(name, table.placed()) for name, table in tables.items()])
    notes += _generated_notes(shards)
    return Description(
        schema=schema,
        rows=None,
        exact=False,
        size=sum(shard.size for shard in shards),
        # pg_dump reads all tables of one snapshot
        consistency="snapshot" if all(shard.where["dump"] for shard in shards) else "pinned files",
        notes=tuple(notes),
        collections=tuple(collections),
        references=common_references(collections),
        unread=_open_ends(shards),
    )


def _generated_notes(shards: Sequence[Shard]) -> list[str]:
    """Name the columns that a live read has and a dump has not."""
    generated = {shard.collection: shard.where.get("generated") for shard in shards}
    return [
        f"{name}: the dump holds no values of {', '.join(map(str, columns))}, which PostgreSQL "
        "computes (GENERATED); a live read has them"
        for name, columns in generated.items()
        if isinstance(columns, list) and columns
    ]


def _open_ends(shards: Sequence[Shard]) -> tuple[str, ...]:
    """Name the CSV files that may be cut: PostgreSQL ends every row with a line break."""
    pins = [shard.where["file"] for shard in shards if shard.where.get("open_end")]
    names = [PinnedFile.from_json(pin).name for pin in pins if isinstance(pin, dict)]
    return tuple(
        f"the last line of {name} has no line break, and PostgreSQL writes one behind every row: "
        "the file may be cut there"
        for name in names
    )
