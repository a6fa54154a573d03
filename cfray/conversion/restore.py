"""Give back the records of a source from its frames: what an export writes.

The inverse of ``Conversion``.  A field stands in ``custom_metadata`` or is shown by the column of a
rule; the type of its value is the row's, where ``cfray.types`` in the row names one, else the
dataset's.  So a source with a fixed schema gets its Arrow types back, and one without gets what
JSON tells apart: null, missing and the text ``null``.

What frames do not hold is not given back: a vector is the target's (float32, or made by a model
where the job asked for that), and one that the source wrote as a text or an object is a list of
numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion import shown_values
from cfray.conversion.cases import condition_holds, first_that_holds
from cfray.conversion.list_items import item_of
from cfray.conversion.metadata_keys import entered_paths, field_of, metadata_key
from cfray.conversion.shown_values import (
    Cells,
    Kinds,
    Mask,
    MetadataRows,
    is_text_type,
    kind_of_json,
)
from cfray.frames.schema import ORIGIN, ORIGINAL_ID
from cfray.job.mapping import (
    Const,
    Key,
    Mapping,
    Path,
    SourceShape,
    Template,
    primary_vectors,
    rule_paths,
)
from cfray.records.reading import read_texts
from cfray.records.record import EXACT_INT, VARIANT, canonical, variant_field
from cfray.records.type_names import read_type
from cfray.records.values import metadata_texts, type_name
from cfray.records.vector_values import is_vector_type

#: Columns whose rule is a text rule.
_TEXT_COLUMNS = (
    *("text_content", "title", "version", "context", "uri", "local_path", "cid", "collection"),
    *("author", "status", "source_file", "raw_data_type"),
)
#: Type of a vector that a model made where the source had none.
_MADE_VECTOR = "list<double>"


@dataclass(frozen=True)
class Restoration:
    """The way back from the frames of a dataset to the records of its source.

    Attributes:
        mapping: that the frames were made with.
        shape: of the source.
        has_made_vectors: whether a model or a map made the vectors.
    """

    mapping: Mapping
    shape: SourceShape
    has_made_vectors: bool = False

    @cached_property
    def paths(self) -> set[Path]:
        """List every source path that a rule names, as ``Conversion.paths`` does."""
        return self.mapping.paths | set(self.shape.vectors.values()) | {self.shape.vector}

    @cached_property
    def entered(self) -> frozenset[Path]:
        """List the paths of the fields that rules lead into."""
        return entered_paths(self.paths)

    @cached_property
    def types(self) -> dict[Path, str]:
        """Give the type that the dataset records for each field."""
        return {field_of(key, self.entered): kind for key, kind in self.shape.types.items()}

    @cached_property
    def vector_paths(self) -> list[Path]:
        """List the fields that hold vectors of the dataset."""
        primary = [rule.path for rule in primary_vectors(self.mapping, self.shape)]
        known = [path for path in primary if path in self.types or self.has_made_vectors]
        return [*known, *self.shape.vectors.values()]

    @cached_property
    def shown_paths(self) -> frozenset[Path]:
        """List the fields whose values a column of texts, numbers or bytes may show alone."""
        lists = ("tags", "contributors")
        return frozenset(
            path for key, path in self.mapping.rules() if key.rpartition(".")[2] not in lists
        )

    @cached_property
    def id_keys(self) -> frozenset[str]:
        """List the keys of custom_metadata that stand for fields of the id."""
        rules = (shape.id for shape in self.mapping.shapes)
        return frozenset(
            metadata_key(path, self.entered) for rule in rules for path in rule_paths(rule)
        )

    def column_of_vectors(self, path: Path) -> str:
        """Name the column that holds the vectors of a field."""
        names = [name for name, further in self.shape.vectors.items() if further == path]
        return f"x_vector_{names[0]}" if names else "vector"

    def field_of(self, key: str) -> Path:
        """Give the field that a key of custom_metadata stands for."""
        return field_of(key, self.entered)

    def first_name(self, path: Path) -> str:
        """Give the name of the column that holds a field: of ``data[0].url`` it is ``data``."""
        name = path[0]
        while (item := item_of(name)) and any(rule[0] == name for rule in self.paths):
            name = item[0]
        return name

    def records(self, frames: pa.RecordBatch) -> pa.RecordBatch:
        """Give back the records of documents, in their order.

        Args:
            frames: ``n`` rows that are documents, with every column of the dataset, and with the
                bytes of ``raw_data``.

        Returns:
            ``n`` records: columns of the source's Arrow types where it has a fixed schema, else
            variants.  A field whose values are of several types is a variant, too; one that holds
            vectors alone is a column of lists, null where it has none.
        """
        metadata = MetadataRows.of(frames.column("custom_metadata"))
        if not self.mapping.cases:
            return _Batch(self, self.mapping, frames, metadata).records()
        shapes = self._shape_numbers(metadata)
        parts: list[pa.RecordBatch] = []
        order: list[npt.NDArray[np.int64]] = []
        for number in np.unique(shapes).tolist():
            rows = np.flatnonzero(shapes == number)
            of_shape = frames.take(pa.array(rows))
            entries = MetadataRows.of(of_shape.column("custom_metadata"))
            batch = _Batch(self, self.mapping.shapes[number], of_shape, entries)
            parts.append(batch.records())
            order.append(rows)
        return concat_records(parts).take(pa.array(np.argsort(np.concatenate(order))))

    def _shape_numbers(self, metadata: MetadataRows) -> npt.NDArray[np.int64]:
        """Give each row the number of its shape: custom_metadata has the fields that tell it."""
        holds = []
        for case in self.mapping.cases:
            key = metadata_key(case.when.path, self.entered)
            texts = metadata.of_key(key)
            if self.shape.blank_is_null:
                texts = pc.if_else(pc.equal(texts, ""), None, texts)
            is_there = texts.is_valid().to_numpy(zero_copy_only=False) & ~metadata.nulls(key)
            holds.append(condition_holds(case.when, texts, is_there))
        return first_that_holds(holds, metadata.count)


@dataclass
class _Batch:
    """The restoration of one batch by the rules of one shape."""

    restoration: Restoration
    mapping: Mapping
    frames: pa.RecordBatch
    metadata: MetadataRows
    cells: dict[Path, Cells] = field(default_factory=dict)

    def records(self) -> pa.RecordBatch:
        """Give back the records."""
        self._read_metadata()
        self._read_ids()
        self._read_columns()
        self._read_vectors()
        if not self.restoration.shape.fixed:
            self._read_nulls()
        names = dict.fromkeys(
            self.restoration.first_name(path) for path in [*self.restoration.types, *self.cells]
        )
        if not names:
            rows = pa.array([{}] * self.metadata.count, pa.struct([]))
            return pa.RecordBatch.from_struct_array(rows)
        columns = [self._column((name,)) for name in names]
        schema = pa.schema(
            [
                variant_field(name) if column.type == VARIANT else pa.field(name, column.type)
                for name, column in zip(names, columns, strict=True)
            ]
        )
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def _of(self, path: Path) -> Cells:
        return self.cells.setdefault(path, Cells.none(self.metadata.count))

    def _present(self, path: Path) -> Mask:
        """Tell which rows have a value of a field."""
        cells = self.cells.get(path)
        return np.zeros(self.metadata.count, np.bool_) if cells is None else cells.is_present

    def _kinds(self, path: Path) -> Kinds:
        """Give the type of each row's value of a field, if there is one."""
        return self.metadata.kinds(self._key(path), self.restoration.types.get(path))

    def _key(self, path: Path) -> str:
        return metadata_key(path, self.restoration.entered)

    def _read_metadata(self) -> None:
        for key, texts in self.metadata.texts.items():
            if key != ORIGINAL_ID:
                path = field_of(key, self.restoration.entered)
                has, kinds = self.metadata.has(key), self._kinds(path)
                # a row that another program wrote names no types
                is_untyped = has & self.metadata.untyped(key)
                is_untyped &= np.array([kind is None for kind in kinds], np.bool_)
                self._of(path).put(has, np.where(is_untyped, "string", kinds), texts)

    def _read_ids(self) -> None:
        # rows that another program wrote have none
        ids = self.metadata.of_key(ORIGINAL_ID)
        paths = rule_paths(self.mapping.id)
        if not isinstance(self.mapping.id, Key):
            self._show(paths, ids, shown_values.of_id, metadata_first=False)
            return
        parts = [None if text is None else json.loads(text) for text in ids.to_pylist()]
        for number, path in enumerate(paths):
            values = [None if part is None else part[number] for part in parts]
            self._show([path], values, shown_values.of_part)

    def _read_columns(self) -> None:
        for name in _TEXT_COLUMNS:
            rule = getattr(self.mapping, name)
            if not isinstance(rule, Const | Template):
                paths = rule_paths(rule)
                if name == "text_content" and rule is None:
                    paths = [("text",)]  # which the sample that the types are of may lack
                self._show_column(name, paths, shown_values.of_shown)
        self._show_column(
            "position",
            rule_paths(self.mapping.position),
            lambda kind, number: shown_values.of_shown(kind, str(number)),
        )
        for name in ("tags", "contributors"):
            self._show_column(name, rule_paths(getattr(self.mapping, name)), shown_values.of_list)
        self._show_column("raw_data", rule_paths(self.mapping.raw_data), shown_values.of_blob)

    def _show_column(
        self, name: str, paths: list[Path], as_text: Callable[[str, Any], str]
    ) -> None:
        if paths:
            self._show(paths, self.frames.column(name), as_text)

    def _show(
        self,
        paths: Iterable[Path],
        shown: pa.Array | list[Any],
        as_text: Callable[[str, Any], str],
        *,
        metadata_first: bool = True,
    ) -> None:
        """Take what a column shows for the value of the first field that is present.

        Args:
            paths: of the fields of the column's rule.
            shown: what the column shows in each row; None where it shows nothing.
            as_text: makes the canonical text of a value, of its type and of what is shown.
            metadata_first: a value in custom_metadata is what the column shows, too; of an id it is
                one that could not be an id.
        """
        if isinstance(shown, pa.Array):
            is_open = shown.is_valid().to_numpy(zero_copy_only=False).copy()
        else:
            is_open = np.array([value is not None for value in shown], np.bool_)
        for path in paths:
            if self._is_copy(path):
                continue
            kinds = self._kinds(path)
            has_type = np.array([kind is not None for kind in kinds], np.bool_)
            in_metadata = self.metadata.has(self._key(path))
            is_shown = is_open & has_type & ~in_metadata
            is_new = is_shown & ~self._present(path)
            if is_new.any():  # a field that no record has is none of theirs
                self._of(path).put(is_new, kinds, _as_texts(shown, is_new, kinds, as_text))
            is_open &= ~(is_shown | (in_metadata & has_type & metadata_first))

    def _is_copy(self, path: Path) -> bool:
        """Tell whether a rule takes a field whole that holds this one."""
        return any(path[:depth] in self.restoration.paths for depth in range(1, len(path)))

    def _read_vectors(self) -> None:
        vectors, shape = self.frames.column("vector"), self.restoration.shape
        is_open = vectors.is_valid().to_numpy(zero_copy_only=False)
        if ORIGIN in self.frames.schema.names:
            origins = self.frames.column(ORIGIN)
            is_open = is_open & origins.is_valid().to_numpy(zero_copy_only=False)
        for rule in primary_vectors(self.mapping, shape):
            is_open = is_open & ~self._show_vectors(rule.path, vectors, is_open)
        for name, path in shape.vectors.items():
            column = self.frames.column(f"x_vector_{name}")
            self._show_vectors(path, column, column.is_valid().to_numpy(zero_copy_only=False))

    def _show_vectors(self, path: Path, column: pa.Array, rows: Mask) -> Mask:
        """Take a column's vectors for those of a field; give the rows in which they are."""
        if self._is_copy(path):
            return np.zeros(len(column), np.bool_)
        kinds = self._kinds(path)
        if self.restoration.has_made_vectors:
            kinds = np.array([kind or _MADE_VECTOR for kind in kinds], object)
        has_type = np.array([kind is not None for kind in kinds], np.bool_)
        is_shown: Mask = rows & has_type & ~self._present(path)
        if is_shown.any():
            self._of(path).put_numbers(is_shown, kinds, column)
        return is_shown

    def _read_nulls(self) -> None:
        """Read which fields are null, which a source without a schema tells from missing ones."""
        rows = self.metadata.count
        for key in self.metadata.types:
            is_null = self.metadata.nulls(key)
            own = self._of(field_of(key, self.restoration.entered))
            kinds = np.full(rows, "null", object)
            own.put(is_null & ~own.is_present, kinds, pa.repeat(pa.scalar("null"), rows))

    def _column(self, path: Path) -> pa.Array:
        """Make a column of records."""
        cells = self._whole(path)
        if cells.numbers is not None and not self._has_texts(cells):
            return self._vectors(path, cells)
        kinds = {kind for kind in cells.kinds if kind is not None}
        if not self.restoration.shape.fixed or len(kinds) > 1:
            return _variants(cells)
        name = next(iter(kinds), self.restoration.types.get(path, "null"))
        kind = read_type(name)
        if kind is None:
            return cells.as_texts()
        return read_texts(cells.as_texts(), kind)

    @staticmethod
    def _has_texts(cells: Cells) -> bool:
        return bool(cells.texts.null_count < len(cells.texts))

    def _vectors(self, path: Path, cells: Cells) -> pa.Array:
        """Give vectors as the source's type has them, or as the target's."""
        assert cells.numbers is not None
        kind = read_type(self.restoration.types.get(path, "")) or cells.numbers.type
        vectors = _cast(cells.numbers, kind) if self.restoration.shape.fixed else None
        if vectors is not None:
            return vectors
        if self.restoration.shape.fixed and is_text_type(type_name(kind)):
            return read_texts(cells.as_texts(), kind)
        return cells.numbers

    def _whole(self, path: Path) -> Cells:
        """Give the values of a field; of one that was opened, put together again."""
        own = self._of(path)
        children = {} if path in self.restoration.paths else self._children(path)
        if not children:
            return own
        parts = {name: self._whole(child).as_json().to_pylist() for name, child in children.items()}
        is_null = self.metadata.nulls(self._key(path))
        texts: list[str | None] = [None] * self.metadata.count
        for row in np.flatnonzero(~own.is_present & ~is_null).tolist():
            texts[row] = self._joined(path, {name: part[row] for name, part in parts.items()})
        recorded = self.restoration.types.get(path) if self.restoration.shape.fixed else None
        kinds = [None if text is None else recorded or kind_of_json(text) for text in texts]
        is_joined = np.array([text is not None for text in texts], np.bool_)
        own.put(is_joined, np.array(kinds, object), pa.array(texts, pa.string()))
        return own

    def _children(self, path: Path) -> dict[str | int, Path]:
        """List the fields below a field: of an object by name, of a list by number."""
        children: dict[str | int, Path] = {}
        depth = len(path)
        for other in [*self.restoration.types, *self.cells]:
            if len(other) > depth and other[:depth] == path:
                children[self._inner_name(other, depth)] = (
                    *path,
                    self._inner_name(other, depth),
                )
            elif len(other) >= depth and other[: depth - 1] == path[:-1]:
                number = self._number_below(path, other)
                if number is not None:
                    children[number] = (*path[:-1], f"{path[-1]}[{number}]")
        return children

    def _inner_name(self, path: Path, depth: int) -> str:
        name = path[depth]
        while (item := item_of(name)) and self._is_step(path[:depth], name):
            name = item[0]
        return name

    def _is_step(self, parent: Path, name: str) -> bool:
        """Tell whether a name with a number is an item of a list, for a rule leads through it."""
        step = (*parent, name)
        return any(rule[: len(step)] == step for rule in self.restoration.paths)

    def _number_below(self, path: Path, other: Path) -> int | None:
        """Give the number of the item of the list ``path`` that ``other`` is or lies in."""
        name = other[len(path) - 1]
        while item := item_of(name):
            if item[0] == path[-1]:
                return item[1] if self._is_step(path[:-1], name) else None
            name = item[0]
        return None

    def _joined(self, path: Path, values: dict[str | int, str | None]) -> str | None:
        """Write the parts of an object, or of a list of one, as JSON; None where there is none."""
        present = {name: text for name, text in values.items() if text is not None}
        is_fixed = self.restoration.shape.fixed
        if any(isinstance(name, int) for name in values):
            items = list(present.values())
            return f"[{items[0]}]" if items else ("[null]" if is_fixed else None)
        if is_fixed:
            kind = read_type(self.restoration.types.get(path, ""))
            names = [item.name for item in kind] if kind is not None else list(values)
            present = {name: values.get(name) or "null" for name in names}
        elif not present:
            return None
        members = (f"{canonical(name)}:{present[name]}" for name in sorted(present, key=str))
        return "{" + ",".join(members) + "}"


def _as_texts(
    shown: pa.Array | list[Any], rows: Mask, kinds: Kinds, as_text: Callable[[str, Any], str]
) -> pa.StringArray:
    """Give the canonical texts of what a column shows in some rows."""
    if isinstance(shown, pa.StringArray) and all(map(is_text_type, set(kinds[rows]))):
        return shown
    values = shown.to_pylist() if isinstance(shown, pa.Array) else shown
    texts: list[str | None] = [None] * len(values)
    for row in np.flatnonzero(rows).tolist():
        texts[row] = as_text(kinds[row], values[row])
    return pa.array(texts, pa.string())


def concat_records(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Join batches of records; a column of vectors in one may be one of variants in another."""
    types: dict[str, set[pa.DataType]] = {}
    for batch in batches:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if column.null_count < len(column):
                types.setdefault(name, set()).add(column.type)
    tables = [pa.Table.from_batches([_alike(batch, types)]) for batch in batches]
    table = pa.concat_tables(tables, promote_options="permissive")
    return table.combine_chunks().to_batches()[0]


def _alike(batch: pa.RecordBatch, types: dict[str, set[pa.DataType]]) -> pa.RecordBatch:
    """Give the columns of a batch the types that those of the others with values have.

    Args:
        batch: of records.
        types: name of a column -> its types in the batches where it has values.
    """
    fields: list[pa.Field] = []
    columns: list[pa.Array] = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        kinds = types.get(name, set())
        kind = next(iter(kinds)) if len(kinds) == 1 else VARIANT
        if not kinds or column.type == kind:
            kind, values = column.type, column
        elif column.null_count == len(column):
            values = pa.nulls(len(column), kind)
        else:
            values = _variants_of(column)
        fields.append(variant_field(name) if kind == VARIANT else pa.field(name, kind))
        columns.append(values)
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _variants_of(column: pa.Array) -> pa.StructArray:
    """Make variants of a column of one type."""
    cells = Cells.none(len(column))
    kind = _MADE_VECTOR if is_vector_type(column.type) else type_name(column.type)
    is_there = column.is_valid().to_numpy(zero_copy_only=False)
    cells.put(is_there, np.full(len(column), kind, object), metadata_texts(column))
    return _variants(cells)


def _variants(cells: Cells) -> pa.StructArray:
    """Make a column of variants; lists of numbers stand as numbers."""
    texts = cells.as_texts()
    numbers: list[list[float] | None] = [None] * len(texts)
    kept: list[str | None] = texts.to_pylist()
    for row, kind in enumerate(cells.kinds):
        text = kept[row]
        if kind is None or text is None or not kind.startswith("list"):
            continue
        values = json.loads(text)
        if values and all(_is_exact(value) for value in values):
            numbers[row] = values
            if kind in ("list<double>", "list<int64>"):
                kept[row] = None
    is_missing = pa.array([kind is None for kind in cells.kinds], pa.bool_())
    children = [
        pa.array(list(cells.kinds), pa.string()),
        pa.array(kept, pa.string()),
        pa.array(numbers, pa.list_(pa.float64())),
    ]
    return pa.StructArray.from_arrays(children, fields=list(VARIANT), mask=is_missing)


def _is_exact(value: object) -> bool:
    """Tell whether a value of JSON is a number that is a float64."""
    return type(value) is float or (type(value) is int and abs(value) <= EXACT_INT)


def _cast(vectors: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """Give vectors as a type has them; None where that type holds no lists of numbers."""
    try:
        return vectors.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return None
