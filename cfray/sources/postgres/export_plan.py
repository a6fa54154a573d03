"""What files are, and how they are cut into shards.

The rows of a dump and a file in text form are cut at line breaks; a CSV or binary file is one
shard.  A dump says itself what its tables are; of other files the job file says it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from cfray.errors import SourceError
from cfray.formats import lines
from cfray.runtime.models import MIB
from cfray.sources.base import Json, Shard
from cfray.sources.files.listing import PinnedFile, open_file
from cfray.sources.files.locations import list_files
from cfray.sources.files.selection import pin_codecs
from cfray.sources.postgres.copybinary import check_columns
from cfray.sources.postgres.copytext import BadRowsError, CsvEnds, TextForm, parse_rows
from cfray.sources.postgres.dump import (
    ARCHIVE,
    DUMP_MARK,
    DUMP_MARK_WITHIN,
    Dump,
    Section,
    collection_name,
    scan_dump,
)
from cfray.sources.postgres.export_tables import FileTable, text_form
from cfray.sources.postgres.pages import SIGNATURE
from cfray.sources.postgres.settings import PostgresSettings
from cfray.sources.postgres.typetext import UnknownTypeError

#: Bytes of the head in which the first line of a CSV file must end.
_HEADER_BYTES = MIB


def plan_files(settings: PostgresSettings) -> list[Shard]:
    """Cut the files of a source into shards.

    Raises:
        SourceError: there is no file, it is of no form that is read, or was cut.
    """
    files = pin_codecs(list_files(str(settings.uri)))
    if not files:
        raise SourceError(f"no file under {settings.uri}", "correct source.uri")
    shards = [shard for file in files for shard in _plan_file(settings, file)]
    found = {shard.collection for shard in shards}
    missing = sorted(set(settings.collections or ()) - found) if _has_dump(settings, files) else []
    if missing:
        raise SourceError(
            f"{settings.uri} holds no rows of {', '.join(missing)}",
            "correct source.collections in the job file",
        )
    return shards


def _has_dump(settings: PostgresSettings, files: Sequence[PinnedFile]) -> bool:
    return any(_form_of(settings, file) == "dump" for file in files)


def _form_of(settings: PostgresSettings, file: PinnedFile) -> str:
    """Tell what a file is: what the job file says, else by its first bytes and its suffix.

    Raises:
        SourceError: it is an archive of pg_dump, or cannot be told.
    """
    with open_file(file) as stream:
        head = bytes(stream.read(DUMP_MARK_WITHIN))
    if head.startswith(ARCHIVE):
        raise SourceError(
            f"{file.uri} is an archive of pg_dump in its own format",
            "make a plain dump of it: pg_restore --file=dump.sql FILE",
        )
    if settings.format != "auto":
        return settings.format
    if head.startswith(SIGNATURE):
        return "binary"
    if DUMP_MARK in head:
        return "dump"
    suffix = file.name.removesuffix(".gz").removesuffix(".zst").rpartition(".")[2].lower()
    form = {"csv": "csv", "tsv": "tsv", "txt": "text", "copy": "text"}.get(suffix)
    if form is None:
        raise SourceError(
            f"what {file.uri} is cannot be told",
            "say it with source.format: csv, tsv, text, binary or dump",
        )
    return form


def _plan_file(settings: PostgresSettings, file: PinnedFile) -> list[Shard]:
    form = _form_of(settings, file)
    if form == "dump":
        with open_file(file) as stream:
            dump = scan_dump(stream, file.uri)
        return [
            shard
            for section in dump.sections
            for shard in _plan_section(settings, file, dump, section)
        ]
    stem = os.path.basename(file.name).partition(".")[0]
    name = settings.collections[0] if settings.collections else stem
    declared = tuple(settings.columns.items())
    start = 0
    if form in ("csv", "tsv") and settings.header:
        names, start = _read_header(file, text_form(settings, form))
        unknown = sorted(set(settings.columns) - set(names))
        if unknown:
            raise SourceError(
                f"{file.uri} has no column {', '.join(unknown)}", "correct source.columns"
            )
        declared = tuple((column, settings.columns.get(column, "text")) for column in names)
    if not declared:
        raise SourceError(
            f"{file.uri} does not say what its columns are",
            "name them with source.columns: {id: bigint, body: text, embedding: vector(384)}",
        )
    if form == "text" and file.codec is None and _has_open_end(file):
        raise SourceError(
            f"the last line of {file.uri} has no line break: the file was cut",
            "write the file again with COPY, or copy it again",
        )
    table = FileTable(name, declared, tuple(settings.key or ()))
    _check_table(table, file, is_binary=form == "binary")
    ranges = [(start, file.size)]
    can_split = form == "text" and file.codec is None
    if can_split:
        with open_file(file) as stream:
            ranges = lines.split_at_newlines(stream, start, file.size, settings.shard_bytes)
    return [
        _shard(
            table,
            file,
            form,
            (first, None if file.codec else end),
            has_open_end=form in ("csv", "tsv") and _has_open_end(file),
            splittable=can_split,
        )
        for first, end in ranges
    ]


def _has_open_end(file: PinnedFile) -> bool:
    """Tell whether a file's last line has no line break; a compressed file is read for that."""
    last = b""
    with open_file(file) as stream:
        if file.codec is None:
            stream.seek(max(0, file.size - 1))
        while block := bytes(stream.read(lines.BLOCK)):
            last = block[-1:]
    return last not in (b"", b"\n")


def _plan_section(
    settings: PostgresSettings, file: PinnedFile, dump: Dump, section: Section
) -> list[Shard]:
    """Cut the rows of a table in a dump at line breaks."""
    root = dump.root(section.table)
    name = collection_name(root)
    if section.start == section.end or (settings.collections and name not in settings.collections):
        return []
    columns = []
    for column in section.columns:
        words = dump.type_of(section.table, column)
        if words is None:
            raise SourceError(
                f"{file.uri} does not say what the column {column} of {section.table} is",
                "make the dump with its definitions, without --data-only",
            )
        columns.append((column, words))
    key = dump.keys.get(section.table) or dump.keys.get(root) or ()
    table = FileTable(name, tuple(columns), key)
    _check_table(table, file)
    references: dict[str, Json] = {
        columns[0]: collection_name(target)
        for owner in {section.table, root}
        for columns, target, target_columns in dump.references.get(owner, [])
        if len(columns) == 1 and dump.keys.get(target) == target_columns
    }
    ranges = [(section.start, section.end)]
    if file.codec is None:
        with open_file(file) as stream:
            ranges = lines.split_at_newlines(
                stream, section.start, section.end, settings.shard_bytes
            )
    return [
        _shard(
            table,
            file,
            "text",
            bounds,
            dump={
                "references": references,
                "generated": list[Json](dump.generated_of(section.table)),
            },
            splittable=file.codec is None,
        )
        for bounds in ranges
    ]


def _check_table(table: FileTable, file: PinnedFile, *, is_binary: bool = False) -> None:
    """Check that every column can be read.

    Raises:
        SourceError: names a column whose type is none, or is not read in this form.
    """
    try:
        columns = table.placed()
    except UnknownTypeError as error:
        raise SourceError(
            f"{file.uri}: {error} is no type of PostgreSQL", "correct source.columns"
        ) from None
    missing = sorted(set(table.key) - {column.name for column in columns})
    if missing:
        raise SourceError(f"{file.uri} has no column {', '.join(missing)}", "correct source.key")
    if is_binary:
        check_columns(columns, file.uri)


def _shard(
    table: FileTable,
    file: PinnedFile,
    form: str,
    bounds: tuple[int, int | None],
    *,
    dump: dict[str, Json] | None = None,
    has_open_end: bool = False,
    splittable: bool,
) -> Shard:
    start, end = bounds
    return Shard(
        f"{table.name}#{file.name}:{start:015d}",
        {
            "file": file.to_json(),
            "form": form,
            "start": start,
            "end": end,
            "columns": [list[Json](column) for column in table.columns],
            "key": list[Json](table.key),
            "references": {},
            "dump": dump is not None,
            "open_end": has_open_end,
            **(dump or {}),
        },
        size=file.size - start if end is None else end - start,
        collection=table.name,
        splittable=splittable,
    )


def _read_header(file: PinnedFile, form: TextForm) -> tuple[list[str], int]:
    """Read the names of the columns in a file's first line, and give where the rows begin."""
    with open_file(file) as stream:
        head = bytes(stream.read(_HEADER_BYTES))
    ends = CsvEnds()(head)
    if not ends:
        raise SourceError(
            f"{file.uri} has no first line that names its columns",
            "set source.header: false, and name them with source.columns",
        )
    n_columns = head[: ends[0]].count(form.delimiter.encode()) + 1
    columns = None
    while columns is None and n_columns:
        try:
            columns = parse_rows(head[: ends[0]], form, n_columns)
        except BadRowsError:
            # a delimiter stands within a quoted name
            n_columns -= 1
    names = [(column[0].as_py() or b"").decode("utf-8", "replace") for column in columns or []]
    if len(set(names)) < len(names) or not all(names):
        raise SourceError(
            f"{file.uri}: its first line does not give each column a name of its own",
            "set source.header: false, and name the columns with source.columns",
        )
    return names, ends[0]
