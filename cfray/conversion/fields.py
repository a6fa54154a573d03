"""The fields of one batch of records, found by the dotted paths that rules name.

A nested column is opened only where a path leads into it.  Values that a path cannot enter stay
under the column's own path, so that nothing is lost by opening a column.  A path may also lead to
an item of a list (``data[0]``), unless a field has that very name.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion import list_items
from cfray.conversion.file_columns import file_columns
from cfray.conversion.list_items import Mask
from cfray.conversion.metadata_keys import entered_paths, metadata_key
from cfray.formats.arrow_types import source_type_name
from cfray.job.mapping import Path
from cfray.records import values
from cfray.records.record import MISSING, file_of, is_variant, parsed, variant_array


class Fields:
    """The columns of one batch by path.

    Attributes:
        blank_is_null: a rule takes an empty text for null (CSV cannot write a null).
        rows: number of records.
        columns: path -> column, for every field that is not opened.
        variants: paths of the columns that hold variants.
        entered: paths of the nested fields that rules lead into; a field that is itself named
            like ``meta.by`` must not be mixed up with those.
        structs: path -> opened struct column.  A struct that is null and a struct whose children
            are all null are two things, and only this column tells them apart.  Lists whose items
            are fields are here, too.
        copies: path of a list's item or an object's part -> rows in which the list or object stays
            whole under its own path; what stands under the part's path there is a copy of it.
        file: path of the file that the records are from; None where they are from none.
        file_paths: the paths in ``columns`` that tell of that file: they are no fields of records.
    """

    def __init__(
        self, batch: pa.RecordBatch, paths: set[Path], *, blank_is_null: bool = False
    ) -> None:
        """Open the columns that ``paths``, the paths of the rules, lead into."""
        self.blank_is_null = blank_is_null
        self.rows = batch.num_rows
        self.columns: dict[Path, pa.Array] = {}
        self.variants: set[Path] = set()
        self.entered = entered_paths(paths)
        self.structs: dict[Path, pa.Array] = {}
        self.copies: dict[Path, Mask] = {}
        self._has_items = list_items.has_steps(paths)
        #: Fields that are named like an item of a list.
        self._literal: set[Path] = set()
        self._note_names((), batch.schema.names)
        #: Names of the types that fields have at the source, where theirs are others.
        self._source_types: dict[Path, str] = {}
        for field, column in zip(batch.schema, batch.columns, strict=True):
            self._note_type((field.name,), field)
            self._add((field.name,), column, paths, variant=is_variant(field))
        self.file = file_of(batch)
        files = file_columns(batch, paths)
        self.columns |= files
        self.file_paths = files.keys()

    def rule_column(self, path: Path) -> pa.Array | None:
        """Give a field's column as a rule sees it; None if no field has this path."""
        column = self.columns.get(path)
        if column is None or not self.blank_is_null or not pa.types.is_string(column.type):
            return column
        return pc.if_else(pc.equal(column, ""), None, column)

    def metadata_key(self, path: Path) -> str:
        """Name a field in custom_metadata."""
        return metadata_key(path, self.entered)

    def type_name(self, path: Path) -> str:
        """Name the type that a field without variants has at its source."""
        return self._source_types.get(path) or values.type_name(self.columns[path].type)

    def _note_type(self, path: Path, field: pa.Field) -> None:
        """Remember the type that a field has at its source, where this one stands for it."""
        name = source_type_name(field)
        if name is not None:
            self._source_types[path] = name

    def _add(self, path: Path, column: pa.Array, paths: set[Path], *, variant: bool) -> None:
        """Add a column, or its children where a path leads into it."""
        if self._has_items and (numbers := self._item_numbers(path, paths)):
            column = self._open_list(path, column, paths, numbers, variant=variant)
            if column is None:
                return
        is_entered = any(len(other) > len(path) and other[: len(path)] == path for other in paths)
        is_struct = pa.types.is_struct(column.type)
        if is_entered and (variant or is_struct):
            (self._open_variant if variant else self._open_struct)(path, column, paths)
            if path not in paths:
                return
        self.columns[path] = column
        if variant:
            self.variants.add(path)

    def _open_struct(self, path: Path, column: pa.StructArray, paths: set[Path]) -> None:
        """Add the fields of a struct; where a rule takes it whole, they are copies."""
        if path not in paths:
            self.structs[path] = column
        self._note_names(path, [child.name for child in column.type])
        for index, child in enumerate(column.type):
            self._note_type((*path, child.name), child)
            if path in paths:
                self.copies[*path, child.name] = np.ones(self.rows, np.bool_)
            values_below = pc.struct_field(column, [index])
            self._add((*path, child.name), values_below, paths, variant=False)

    def _open_variant(self, path: Path, column: pa.StructArray, paths: set[Path]) -> None:
        """Open the objects of a variant column; other values stay under the path itself.

        An empty object stays, too: it has no child that could stand for it.  Where a rule takes the
        column whole, its children are copies.
        """
        kinds = pc.struct_field(column, [0]).to_pylist()
        texts = pc.struct_field(column, [1]).to_pylist()
        objects: list[dict[str, object] | None] = []
        for kind, text in zip(kinds, texts, strict=True):
            value = parsed(text) if kind == "struct" else None
            objects.append(value if isinstance(value, dict) else None)
        stays = [kind is not None and not value for kind, value in zip(kinds, objects, strict=True)]
        if any(stays):
            null = pa.scalar(None, column.type)
            self.columns[path] = pc.if_else(pa.array(stays), column, null)
            self.variants.add(path)
        names = dict.fromkeys(key for value in objects if value for key in value)
        self._note_names(path, names)
        for name in names:
            if path in paths:
                self.copies[*path, name] = np.ones(self.rows, np.bool_)
            child = variant_array(
                MISSING if value is None else value.get(name, MISSING) for value in objects
            )
            self._add((*path, name), child, paths, variant=True)

    def copied_rows(self, path: Path) -> Mask | None:
        """Give the rows in which a field is a copy of what another holds; None if none is."""
        masks = [rows for copy, rows in self.copies.items() if path[: len(copy)] == copy]
        return np.logical_or.reduce(masks) if masks else None

    def _note_names(self, parent: Path, names: Iterable[str]) -> None:
        """Remember the fields that are named like an item of a list."""
        if self._has_items:
            self._literal.update((*parent, name) for name in names if name.endswith("]"))

    def _item_numbers(self, path: Path, paths: set[Path]) -> set[int]:
        """List the items of a list that paths lead to, and whose name no field has."""
        numbers = list_items.numbers_below(path, paths)
        return {n for n in numbers if list_items.item_path(path, n) not in self._literal}

    def _open_list(
        self,
        path: Path,
        column: pa.Array,
        paths: set[Path],
        numbers: set[int],
        *,
        variant: bool,
    ) -> pa.Array | None:
        """Add items of a list as fields; give what stays under the list's own path, if anything."""
        items = list_items.take_items(column, numbers, variant=variant)
        if items is None:
            return column
        is_opened = items.is_opened & (path not in paths)
        for number, item_column in items.columns.items():
            item_path = list_items.item_path(path, number)
            is_copy = ~is_opened & item_column.is_valid().to_numpy(zero_copy_only=False)
            if is_copy.any():
                self.copies[item_path] = is_copy
            self._add(item_path, item_column, paths, variant=variant)
        if not variant:
            self.structs[path] = column
        unopened = pc.if_else(pa.array(is_opened), pa.scalar(None, column.type), column)
        return unopened if unopened.null_count < len(unopened) or path in paths else None
