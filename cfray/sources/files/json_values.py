"""Read JSON values that are not one a line: arrays, objects, and what stands under a key of them.

Shared by the kinds json and jsonl.  Where the records stand under a key the file is read once when
the plan is made, to find where they begin and end; what else the file holds is said in the plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from cfray.errors import SourceError
from cfray.formats import json_rows, json_structure, jsonarray, lines
from cfray.formats.json_layouts import rank_layouts
from cfray.formats.json_rows import Orient
from cfray.formats.json_structure import Container, Containers
from cfray.formats.jsonl import BatchBuilder
from cfray.formats.jsontext import InexactJson, parse_json
from cfray.records.record import Reject
from cfray.runtime.models import MIB
from cfray.sources.base import Context, Json
from cfray.sources.files.base import FilePart
from cfray.sources.files.json_text import open_text, read_head, slice_blocks
from cfray.sources.files.listing import PinnedFile
from cfray.sources.files.unread_arrays import Unread, count_unread

#: Bytes of an object of columns that are turned into rows in memory; its Python objects take about
#: ten times as much.
_LARGEST_COLUMNS = 64 * MIB
#: Members beside the records that a note names.
_NAMED_MEMBERS = 10


@dataclass(frozen=True, slots=True)
class ValueReader:
    """Where the records of JSON files stand, and how they are written there.

    Attributes:
        path: keys under which they stand.
        orient: how they are written.
        keeps_going: whether an element that is no JSON is a reject; else it ends the file.
    """

    path: tuple[str, ...] = ()
    orient: Orient = "records"
    keeps_going: bool = False

    def split(self, file: PinnedFile) -> list[FilePart]:
        """Give the parts of a file: the whole, or what stands under the path.

        Raises:
            SourceError: nothing stands there, or it is not what ``orient`` says.
        """
        if not self.path and self.orient in ("records", "header"):
            return [FilePart(file, "0", {}, file.size, splittable=False)]
        path = (*self.path, "data") if self.orient == "split" else self.path
        containers = _find(file, path)
        for container in containers.under_key:
            self._check(container, file)
        where: dict[str, Json] = {}
        beside = containers.beside
        if self.orient == "list":
            return [self._split_lists(file, container) for container in containers.under_key]
        if self.orient == "split":
            where["columns"] = list(_read_columns(file, (*self.path, "columns")))
            beside = {
                name: value for name, value in beside.items() if name.split(".")[-1] != "columns"
            }
        if beside:
            members: list[Json] = [
                f"{name}: {value}" if value else name for name, value in beside.items()
            ]
            where["beside"] = members[:_NAMED_MEMBERS]
        if "" in beside.values():
            with open_text(file) as blocks:
                unread = count_unread(blocks, path, has_names=self.orient == "split")
            where |= unread.as_where()
        return [
            FilePart(
                file,
                f"{container.start:015d}",
                {"from": container.start, "to": container.end, **where},
                (container.end or file.size) - container.start,
                splittable=False,
            )
            for container in containers.under_key
        ]

    def _split_lists(self, file: PinnedFile, container: Container) -> FilePart:
        """Make a part of an object of columns; name what is no column."""
        with open_text(file) as blocks:
            text = b"".join(slice_blocks(blocks, container.start, container.end))
        try:
            columns = json_rows.find_list_columns(parse_json(text))
        except InexactJson as error:
            raise _no_columns(file, self.orient, error) from error
        where: dict[str, Json] = {"from": container.start, "to": container.end}
        where["columns"] = [*columns.names]
        beside: list[Json] = [*columns.other_members]
        if beside:
            where["beside"] = beside[:_NAMED_MEMBERS]
        objects = {
            name: sum(isinstance(element, dict) for element in item)
            for name, item in columns.other_members.items()
            if isinstance(item, list)
        }
        counts = {name: count for name, count in objects.items() if count}
        torn = columns.torn()
        where |= Unread(counts | torn, torn=set(torn)).as_where()
        size = (container.end or file.size) - container.start
        return FilePart(
            file, f"{container.start:015d}", where, size, columns.rows, splittable=False
        )

    def _check(self, container: Container, file: PinnedFile) -> None:
        needs_array = self.orient in ("split", "header")
        needs_object = self.orient in ("index", "columns", "list")
        if (needs_array and not container.is_array) or (needs_object and container.is_array):
            raise SourceError(
                f"source.orient is {self.orient}, but what stands at byte {container.start} of "
                f"{file.name} is an {'array' if container.is_array else 'object'}",
                "correct source.orient or source.records",
            )
        size = (container.end or 0) - container.start
        if self.orient in ("columns", "list") and size > _LARGEST_COLUMNS:
            raise SourceError(
                f"{file.name} holds an object of columns of {size:,} bytes, whose rows are known "
                f"only at its end; at most {_LARGEST_COLUMNS:,} bytes are turned into rows",
                "export it again row by row, with pandas: to_json(orient='records', lines=True)",
            )

    def read(
        self, file: PinnedFile, where: dict[str, Json], context: Context
    ) -> Iterator[pa.RecordBatch | Reject]:
        """Stream one part."""
        start, end = where.get("from"), where.get("to")
        columns = where.get("columns")
        with open_text(file) as blocks:
            part = slice_blocks(
                blocks,
                start if isinstance(start, int) else 0,
                end if isinstance(end, int) else None,
            )
            if self.orient in ("columns", "list"):
                names = list(map(str, columns)) if isinstance(columns, list) else None
                yield from _read_transposed(b"".join(part), names, file, context)
                return
            elements = jsonarray.Elements(
                file.name,
                context.batch_bytes,
                self.orient,
                tuple(map(str, columns)) if isinstance(columns, list) else (),
                has_offsets=self.keeps_going or isinstance(start, int),
                keeps_going=self.keeps_going,
            )
            runs = lines.gather_records(
                part,
                json_structure.ElementEnds(members=self.orient == "index"),
                lines.record_limit(context.max_record),
                start if isinstance(start, int) else 0,
            )
            yield from jsonarray.decode(runs, elements)


def parse_path(records: str | None) -> tuple[str, ...]:
    """Split ``source.records`` into its keys.

    Raises:
        ValueError: a key is empty.
    """
    path = tuple(records.split(".")) if records is not None else ()
    if not all(path):
        raise ValueError(
            f"records {records!r} must be the key under which the records stand, or several with "
            "dots between them: data, or response.hits"
        )
    return path


def single_object_note(file: PinnedFile, kind: str) -> Iterator[str]:
    """Say which keys would read the records of an object that is read as one record."""
    layouts = rank_layouts(read_head(file))
    if len(layouts) < 2 or layouts[-1].source != {"kind": "json"} or layouts[-1].records != 1:
        return
    best = layouts[0]
    keys = {key: value for key, value in best.source.items() if key != "kind"}
    if not keys:
        return
    if kind == "jsonl" and "orient" in keys:
        keys = {"kind": "json", **keys}
    written = ", ".join(f"source.{key}: {value}" for key, value in keys.items())
    yield (
        f"{file.name} is one object and is read as one record; with {written} its {best.records:,} "
        f"or more records would be read ({best.why})"
    )


def _find(file: PinnedFile, path: tuple[str, ...]) -> Containers:
    """Find what stands under a path.

    Raises:
        SourceError: nothing does, twice something does, or the file is cut.
    """
    with open_text(file) as blocks:
        containers = json_structure.find_containers(blocks, path)
    dotted = ".".join(path) or "the top"
    if not containers.is_whole:
        raise SourceError(
            f"{file.name} ends before all of its arrays and objects do: it is cut or corrupt",
            "export it again, or leave it out of source.uri",
        )
    if containers.repeats_key:
        raise SourceError(
            f"an object in {file.name} has the key {dotted} twice",
            "rename one of them; cfray reads neither in the place of the other",
        )
    if not containers.under_key:
        if containers.arrays:
            present = f"arrays and objects stand under: {', '.join(list(containers.arrays)[:10])}"
        elif containers.is_object:
            present = "there is no array or object below its top-level object"
        else:
            present = "it begins with no object; its records need no source.records"
        raise SourceError(
            f"no array or object stands under {dotted} in {file.name}; {present}",
            "correct source.records, leave it out, or name only the files that have it in "
            "source.uri",
        )
    return containers


def _read_columns(file: PinnedFile, path: tuple[str, ...]) -> tuple[str, ...]:
    """Read the names that stand beside the rows."""
    container = _find(file, path).under_key[0]
    with open_text(file) as blocks:
        text = b"".join(slice_blocks(blocks, container.start, container.end))
    try:
        return json_rows.read_names(parse_json(text))
    except InexactJson as error:
        raise SourceError(
            f"the names under {'.'.join(path)} in {file.name} cannot be read: {error}",
            "correct the file or source.orient",
        ) from error


def _read_transposed(
    text: bytes, names: list[str] | None, file: PinnedFile, context: Context
) -> Iterator[pa.RecordBatch]:
    """Read an object of columns; they are arrays where their names are given, else objects."""
    try:
        rows = json_rows.transpose(text) if names is None else json_rows.zip_columns(text, names)
    except InexactJson as error:
        raise _no_columns(file, "columns" if names is None else "list", error) from error
    batches = BatchBuilder(context.batch_bytes)
    for row in rows:
        yield from batches.add(row, len(text) // len(rows))
    yield from batches.flush()


def _no_columns(file: PinnedFile, orient: Orient, error: InexactJson) -> SourceError:
    return SourceError(
        f"{file.name} cannot be read with source.orient: {orient}: {error}",
        "correct source.orient or the file",
    )
