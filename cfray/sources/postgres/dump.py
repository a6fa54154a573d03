"""A plain dump of pg_dump: its tables, and where in the file the rows of each are.

The file is read once from its begin to its end: outside of the rows statement by statement, inside
of them only for their end.  A COPY that is not understood is refused, for its rows would be lost.
A dump that was cut lacks the end of its rows or its last sentence, and is refused.  Nothing of it
is run.

Source: https://www.postgresql.org/docs/current/app-pgdump.html; PostgreSQL, src/bin/pg_dump
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from cfray.errors import SourceError
from cfray.sources.postgres.names import source_collection
from cfray.sources.postgres.statements import Statement, Statements, list_items

#: First bytes of an archive that only pg_restore reads.
ARCHIVE = b"PGDMP"
#: What the first bytes of a plain dump of one database hold, and within how many.
DUMP_MARK, DUMP_MARK_WITHIN = b"PostgreSQL database dump", 256
_BLOCK = 1 << 20
_QUOTED = r'"(?:[^"]|"")*"'
_NAME = rf"(?:{_QUOTED}|[\w$]+)"
_LIST = rf"{_NAME}(?:, {_NAME})*"
_RELATION = rf"{_NAME}(?:\.{_NAME})?"
_TABLE = rf"(?P<table>{_RELATION})"
#: A type, and what may follow it in the definition of a column or a domain.
_TYPE = (
    rf"(?P<type>(?:{_QUOTED}|[^\"])*?)"
    r"(?:\s(?:COLLATE|DEFAULT|NOT NULL|NULL|GENERATED|STORAGE|COMPRESSION|CONSTRAINT|OPTIONS"
    r"|CHECK)\b.*)?"
)
#: A table without columns, or with generated ones only, has no list of columns.
_COPY = re.compile(rf"COPY {_TABLE} (?:\((?P<columns>{_LIST})\))? FROM stdin;")
#: Any statement behind which rows stand, in a statement's code.
_ANY_COPY = re.compile(r"COPY\b.*\bFROM\s+STDIN\b", re.IGNORECASE | re.DOTALL)
_CREATE = re.compile(rf"CREATE (?:UNLOGGED |FOREIGN )?TABLE {_TABLE} \(")
_COLUMN = re.compile(rf"(?P<name>{_NAME}) {_TYPE}", re.DOTALL)
_GENERATED = re.compile(r"GENERATED ALWAYS AS \(")
_INHERITS = re.compile(rf"\s*INHERITS \((?P<tables>{_RELATION}(?:, {_RELATION})*)\)")
_ENUM = re.compile(rf"CREATE TYPE {_TABLE} AS ENUM \(")
_DOMAIN = re.compile(rf"CREATE DOMAIN {_TABLE} AS {_TYPE};", re.DOTALL)
_KEY = re.compile(
    rf"ALTER TABLE (?:ONLY )?{_TABLE}\s+ADD CONSTRAINT {_NAME} PRIMARY KEY \((?P<columns>{_LIST})\)"
)
_REFERENCE = re.compile(
    rf"ALTER TABLE (?:ONLY )?{_TABLE}\s+ADD CONSTRAINT {_NAME} "
    rf"FOREIGN KEY \((?P<columns>{_LIST})\) "
    rf"REFERENCES (?P<target>{_RELATION})\((?P<target_columns>{_LIST})\)"
)
_ATTACH = re.compile(rf"ALTER TABLE (?:ONLY )?{_TABLE} ATTACH PARTITION (?P<leaf>{_RELATION}) ")
_ENCODING = re.compile(r"SET client_encoding = '(?P<encoding>.*)';")
_NAMES = re.compile(_NAME)
#: First words of the statements that are read.
_READ = (
    *("COPY ", "ALTER TABLE ", "SET ", "CREATE TYPE ", "CREATE DOMAIN "),
    *("CREATE TABLE ", "CREATE UNLOGGED ", "CREATE FOREIGN "),
)
#: How many characters of a statement an error names.
_SHOWN = 200
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
        generated: table -> columns that the server computes; a dump holds no values of them.
        inherits: table -> tables whose columns it has, too.
        keys: table -> columns of its primary key.
        references: table -> foreign keys: columns, the other table, its columns.
        parents: partition -> the table that it is a part of.
        enums: types of labels.
        domains: type -> the type that it is of.
        sections: where rows are.
    """

    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    generated: dict[str, list[str]] = field(default_factory=dict)
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

    def generated_of(self, table: str) -> list[str]:
        """List the generated columns of a table, also of the tables whose columns it has."""
        parents = self.inherits.get(table, [])
        names = [name for parent in parents for name in self.generated_of(parent)]
        return list(dict.fromkeys([*names, *self.generated.get(table, [])]))

    def type_of(self, table: str, column: str) -> str | None:
        """Give the words for a column's type: a domain's base, ``text`` for an enum."""
        words = self.columns.get(table, {}).get(column)
        for parent in self.inherits.get(table, []) if words is None else []:
            words = words or self.type_of(parent, column)
        if words is None:
            return None
        bare, brackets = words.rstrip("[]"), words[len(words.rstrip("[]")) :]
        while bare in self.domains:
            # a domain may be one of arrays
            words = self.domains[bare] + brackets
            bare, brackets = words.rstrip("[]"), words[len(words.rstrip("[]")) :]
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
    reader, dump, statements = _Reader(stream), Dump(), Statements(_READ)
    is_complete = False
    for raw in reader.lines():
        line = raw.decode("utf-8", "replace")
        if statements.is_between:
            if _is_command(line, name):
                continue
            _refuse_insert(line, name)
            is_complete = is_complete or line.startswith(_COMPLETE)
        ended = statements.add(line)
        for statement in ended:
            if _ANY_COPY.match(statement.code):
                # rows stand behind the line, so COPY ends it
                is_alone = statement is ended[-1] and line.rstrip("\n").endswith(";")
                dump.sections.append(_find_rows(reader, statement, name, is_alone=is_alone))
            elif encoding := _ENCODING.fullmatch(statement.text):
                _check_encoding(encoding["encoding"], name)
            elif statement.text == "SET standard_conforming_strings = off;":
                statements.has_escapes = True
            else:
                _note(dump, statement)
    if not is_complete:
        raise SourceError(f"{name} does not end as a dump of pg_dump does: it was cut", _REMEDY)
    return dump


def _is_command(line: str, name: str) -> bool:
    """Tell a command of psql, which is no SQL.

    Raises:
        SourceError: it goes to another database.
    """
    if line.startswith("\\connect"):
        raise SourceError(
            f"{name} holds several databases", "dump one database (pg_dump), not a cluster"
        )
    return line.startswith("\\")


def _refuse_insert(line: str, name: str) -> None:
    """Refuse a statement that inserts rows: they would be lost."""
    if line.startswith("INSERT INTO "):
        raise SourceError(
            f"{name} holds INSERT statements, whose rows are not read",
            "make the dump without --inserts, --column-inserts and --rows-per-insert",
        )


def _find_rows(reader: _Reader, statement: Statement, name: str, *, is_alone: bool) -> Section:
    """Pass over the rows that stand behind a COPY.

    Raises:
        SourceError: the statement is not understood, or its rows do not end.
    """
    copy = _COPY.fullmatch(statement.text)
    if copy is None or not is_alone:
        raise SourceError(
            f"{name}, before its byte {reader.offset}: this COPY is not understood, so the rows "
            f"behind it cannot be read: {statement.text[:_SHOWN]!r}",
            "give the file as pg_dump wrote it; if it is so, report it with the version of pg_dump",
        )
    start = reader.offset
    end = reader.skip_rows()
    if end is None:
        raise SourceError(f"{name} ends within the rows of {copy['table']}: it was cut", _REMEDY)
    return Section(copy["table"], tuple(_split_names(copy["columns"] or "")), start, end)


def _check_encoding(encoding: str, name: str) -> None:
    if encoding.upper() not in ("UTF8", "SQL_ASCII"):
        raise SourceError(
            f"{name} is in the encoding {encoding}", "make the dump with --encoding=UTF8"
        )


def _note(dump: Dump, statement: Statement) -> None:
    """Keep what a statement says of tables and types."""
    text = statement.text
    if match := _CREATE.match(text):
        _note_table(dump, statement, match["table"], match.end())
    elif match := _ENUM.match(text):
        dump.enums.add(match["table"])
    elif match := _DOMAIN.fullmatch(text):
        dump.domains[match["table"]] = match["type"]
    elif match := _KEY.match(text):
        dump.keys[match["table"]] = tuple(_split_names(match["columns"]))
    elif match := _REFERENCE.match(text):
        dump.references.setdefault(match["table"], []).append(
            (
                tuple(_split_names(match["columns"])),
                match["target"],
                tuple(_split_names(match["target_columns"])),
            )
        )
    elif match := _ATTACH.match(text):
        dump.parents[match["leaf"]] = match["table"]


def _note_table(dump: Dump, statement: Statement, table: str, start: int) -> None:
    """Keep the columns of a table; their list begins at ``start`` in its CREATE TABLE."""
    columns: dict[str, str] = {}
    items, end = list_items(statement, start)
    for item in items:
        column = _COLUMN.fullmatch(item.text)
        if column and column["name"] != "CONSTRAINT":
            (name,) = _split_names(column["name"])
            columns[name] = column["type"]
            if _GENERATED.search(item.code):
                dump.generated.setdefault(table, []).append(name)
    dump.columns.setdefault(table, columns)
    if parents := _INHERITS.match(statement.text, end):
        dump.inherits[table] = re.findall(_RELATION, parents["tables"])


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
