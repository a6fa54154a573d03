"""A plain dump of pg_dump: its tables, and where in the file the rows of each are.

The file is read once from its begin to its end: outside of the rows line by line, inside of them
only for their end.  A dump that was cut lacks the end of its rows or its last sentence, and is
refused.  Nothing of it is run.

Source: https://www.postgresql.org/docs/current/app-pgdump.html; PostgreSQL, src/bin/pg_dump
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from cfray.errors import SourceError
from cfray.sources.postgres.names import source_collection

#: First bytes of an archive that only pg_restore reads.
ARCHIVE = b"PGDMP"
_BLOCK = 1 << 20
_NAME = r'(?:"(?:[^"]|"")*"|[\w$]+)'
_TABLE = rf"(?P<table>{_NAME}(?:\.{_NAME})?)"
_COPY = re.compile(rf"COPY {_TABLE} \((?P<columns>.*)\) FROM stdin;\n")
_CREATE = re.compile(rf"CREATE (?:UNLOGGED |FOREIGN )?TABLE {_TABLE} \(\n")
_COLUMN = re.compile(rf"    (?P<name>{_NAME}) (?P<type>.*?),?\n")
#: What follows the type of a column.
_BEHIND_TYPE = re.compile(
    r" (?:COLLATE|DEFAULT|NOT NULL|NULL|GENERATED|STORAGE|COMPRESSION|CONSTRAINT|OPTIONS)\b"
)
_INHERITS = re.compile(rf"INHERITS \((?P<tables>{_NAME}.*?)\)")
_ENUM = re.compile(rf"CREATE TYPE {_TABLE} AS ENUM \(\n")
_DOMAIN = re.compile(rf"CREATE DOMAIN {_TABLE} AS (?P<type>.*)\n")
_KEY = re.compile(
    rf"ALTER TABLE (?:ONLY )?{_TABLE}\s+ADD CONSTRAINT {_NAME} PRIMARY KEY \((?P<columns>.*?)\)"
)
_REFERENCE = re.compile(
    rf"ALTER TABLE (?:ONLY )?{_TABLE}\s+ADD CONSTRAINT {_NAME} FOREIGN KEY \((?P<columns>.*?)\) "
    rf"REFERENCES (?P<target>{_NAME}(?:\.{_NAME})?)\((?P<target_columns>.*?)\)"
)
_ATTACH = re.compile(
    rf"ALTER TABLE (?:ONLY )?{_TABLE} ATTACH PARTITION (?P<leaf>{_NAME}(?:\.{_NAME})?) "
)
_ENCODING = re.compile(r"SET client_encoding = '(?P<encoding>.*)';\n")
_NAMES = re.compile(_NAME)
_COMPLETE = "-- PostgreSQL database dump complete"
_REMEDY = "make the dump again, and check that pg_dump ended with exit code 0"


@dataclass(frozen=True, slots=True)
class Section:
    """The rows of a table in a dump.

    Attributes:
        table: its name as the dump writes it.
        columns: names of the columns, in order.
        start: offset of the first row in the file.
        end: offset behind the last row.
    """

    table: str
    columns: tuple[str, ...]
    start: int
    end: int


@dataclass(slots=True)
class Dump:
    """What a dump says.

    Attributes:
        columns: table -> column -> type, in the words of the dump.
        inherits: table -> tables whose columns it has, too.
        keys: table -> columns of its primary key.
        references: table -> foreign keys: columns, the other table, its columns.
        parents: partition -> the table that it is a part of.
        enums: types of labels.
        domains: type -> the type that it is of.
        sections: where rows are.
    """

    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    inherits: dict[str, list[str]] = field(default_factory=dict)
    keys: dict[str, tuple[str, ...]] = field(default_factory=dict)
    references: dict[str, list[tuple[tuple[str, ...], str, tuple[str, ...]]]] = field(
        default_factory=dict
    )
    parents: dict[str, str] = field(default_factory=dict)
    enums: set[str] = field(default_factory=set)
    domains: dict[str, str] = field(default_factory=dict)
    sections: list[Section] = field(default_factory=list)

    def root(self, table: str) -> str:
        """Give the table that a partition belongs to, else the table itself."""
        while table in self.parents:
            table = self.parents[table]
        return table

    def type_of(self, table: str, column: str) -> str | None:
        """Give the words for a column's type: a domain's base, ``text`` for an enum."""
        words = self.columns.get(table, {}).get(column)
        for parent in self.inherits.get(table, []) if words is None else []:
            words = words or self.type_of(parent, column)
        if words is None:
            return None
        bare, brackets = words.rstrip("[]"), words[len(words.rstrip("[]")) :]
        while bare in self.domains:
            bare = self.domains[bare]
        return ("text" if bare in self.enums else bare) + brackets


def collection_name(table: str) -> str:
    """Give the source collection of a table that a dump names."""
    parts = _split_names(table)
    return source_collection(*(["public", *parts] if len(parts) == 1 else parts))


def scan_dump(stream: pa.NativeFile, name: str) -> Dump:
    """Read a dump once.

    Args:
        stream: the file, decompressed.
        name: of the file, for errors.

    Raises:
        SourceError: it is no plain dump with COPY, was cut, or is not in UTF-8.
    """
    reader, dump, statement = _Reader(stream), Dump(), ""
    is_complete = has_inserts = False
    for raw in reader.lines():
        line = raw.decode("utf-8", "replace")
        if copy := _COPY.fullmatch(line):
            start = reader.offset
            end = reader.skip_rows()
            if end is None:
                raise SourceError(
                    f"{name} ends within the rows of {copy['table']}: it was cut", _REMEDY
                )
            columns = tuple(_split_names(copy["columns"]))
            dump.sections.append(Section(copy["table"], columns, start, end))
            continue
        if encoding := _ENCODING.fullmatch(line):
            _check_encoding(encoding["encoding"], name)
        if line.startswith("\\connect"):
            raise SourceError(
                f"{name} holds several databases", "dump one database (pg_dump), not a cluster"
            )
        has_inserts = has_inserts or line.startswith("INSERT INTO ")
        is_complete = is_complete or line.startswith(_COMPLETE)
        if statement or line.startswith(("CREATE ", "ALTER TABLE ")):
            statement += line
            if line.endswith(";\n"):
                _note(dump, statement)
                statement = ""
    if not dump.sections and has_inserts:
        raise SourceError(
            f"{name} holds INSERT statements, and no rows of COPY",
            "make the dump without --inserts, --column-inserts and --rows-per-insert",
        )
    if not is_complete:
        raise SourceError(f"{name} does not end as a dump of pg_dump does: it was cut", _REMEDY)
    return dump


def _check_encoding(encoding: str, name: str) -> None:
    if encoding.upper() not in ("UTF8", "SQL_ASCII"):
        raise SourceError(
            f"{name} is in the encoding {encoding}", "make the dump with --encoding=UTF8"
        )


def _note(dump: Dump, statement: str) -> None:
    """Keep what a statement says of tables and types."""
    if match := _CREATE.match(statement):
        columns: dict[str, str] = {}
        for line in statement[match.end() :].splitlines(keepends=True):
            column = _COLUMN.fullmatch(line)
            if column and column["name"] != "CONSTRAINT":
                words = _BEHIND_TYPE.split(column["type"], maxsplit=1)[0]
                columns[_split_names(column["name"])[0]] = words
        dump.columns.setdefault(match["table"], columns)
        if parents := _INHERITS.search(statement, match.end()):
            dump.inherits[match["table"]] = parents["tables"].split(", ")
    elif match := _ENUM.match(statement):
        dump.enums.add(match["table"])
    elif match := _DOMAIN.match(statement.replace(";\n", "\n")):
        dump.domains[match["table"]] = _BEHIND_TYPE.split(match["type"], maxsplit=1)[0]
    elif match := _KEY.match(statement):
        dump.keys[match["table"]] = tuple(_split_names(match["columns"]))
    elif match := _REFERENCE.match(statement):
        dump.references.setdefault(match["table"], []).append(
            (
                tuple(_split_names(match["columns"])),
                match["target"],
                tuple(_split_names(match["target_columns"])),
            )
        )
    elif match := _ATTACH.match(statement):
        dump.parents[match["leaf"]] = match["table"]


def _split_names(text: str) -> list[str]:
    """Read names, of which some stand in quotes."""
    return [
        name[1:-1].replace('""', '"') if name.startswith('"') else name
        for name in _NAMES.findall(text)
    ]


class _Reader:
    """Lines of a stream, and their offsets; or rows up to their end, unread.

    Attributes:
        offset: of the next byte in the stream.
    """

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream, self._held, self._position, self.offset = stream, b"", 0, 0

    def _read_more(self) -> bool:
        """Take in a block behind what is not used yet; tell whether there was one."""
        block = self._stream.read(_BLOCK)
        self._held, self._position = self._held[self._position :] + block, 0
        return bool(block)

    def _use(self, end: int) -> bytes:
        used = self._held[self._position : end]
        self._position, self.offset = end, self.offset + len(used)
        return used

    def lines(self) -> Iterator[bytes]:
        """Give the lines, each with its line break; a last line may lack it."""
        while True:
            end = self._held.find(b"\n", self._position)
            if end >= 0:
                yield self._use(end + 1)
            elif not self._read_more():
                if self._held:
                    yield self._use(len(self._held))
                return

    def skip_rows(self) -> int | None:
        """Go behind the line that ends the rows; give the offset of that line, None at the end."""
        if self._held.startswith(b"\\.\n", self._position) or (
            len(self._held) - self._position < 3
            and self._read_more()
            and self._held.startswith(b"\\.\n")
        ):
            rows_end = self.offset
            self._use(self._position + 3)
            return rows_end
        while (end := self._held.find(b"\n\\.\n", self._position)) < 0:
            # the mark may begin in the last bytes
            self._use(max(self._position, len(self._held) - 3))
            if not self._read_more():
                return None
        self._use(end + 1)
        rows_end = self.offset
        self._use(end + 4)
        return rows_end
