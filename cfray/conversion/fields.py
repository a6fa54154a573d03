"""The fields of one batch of records, found by the dotted paths that rules name.

A nested column is opened only where a path leads into it.  Values that a path cannot enter stay
under the column's own path, so that nothing is lost by opening a column.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from cfray.job.mapping import Path
from cfray.records.record import MISSING, is_variant, parsed, variant_array


class Fields:
    """The columns of one batch by path.

    Attributes:
        blank_is_null: a rule takes an empty text for null (CSV cannot write a null).
        rows: number of records.
        columns: path -> column, for every field that is not opened.
        variants: paths of the columns that hold variants.
        entered: first names of the paths that lead into a nested field; a field that is itself
            named like ``meta.by`` must not be mixed up with those.
        structs: path -> opened struct column.  A struct that is null and a struct whose children
            are all null are two things, and only this column tells them apart.
    """

    def __init__(
        self, batch: pa.RecordBatch, paths: set[Path], *, blank_is_null: bool = False
    ) -> None:
        """Open the columns that ``paths``, the paths of the rules, lead into."""
        self.blank_is_null = blank_is_null
        self.rows = batch.num_rows
        self.columns: dict[Path, pa.Array] = {}
        self.variants: set[Path] = set()
        self.entered = {path[0] for path in paths if len(path) > 1}
        self.structs: dict[Path, pa.Array] = {}
        for field, column in zip(batch.schema, batch.columns, strict=True):
            self._add((field.name,), column, paths, variant=is_variant(field))

    def rule_column(self, path: Path) -> pa.Array | None:
        """Give a field's column as a rule sees it; None if no field has this path."""
        column = self.columns.get(path)
        if column is None or not self.blank_is_null or not pa.types.is_string(column.type):
            return column
        return pc.if_else(pc.equal(column, ""), None, column)

    def _add(self, path: Path, column: pa.Array, paths: set[Path], *, variant: bool) -> None:
        """Add a column, or its children where a path leads into it."""
        is_entered = any(len(other) > len(path) and other[: len(path)] == path for other in paths)
        if is_entered and path not in paths:
            if variant:
                self._open_variant(path, column, paths)
                return
            if pa.types.is_struct(column.type):
                self.structs[path] = column
                for index, child in enumerate(column.type):
                    values = pc.struct_field(column, [index])
                    self._add((*path, child.name), values, paths, variant=False)
                return
        self.columns[path] = column
        if variant:
            self.variants.add(path)

    def _open_variant(self, path: Path, column: pa.StructArray, paths: set[Path]) -> None:
        """Open the objects of a variant column; other values stay under the path itself.

        An empty object stays, too: it has no child that could stand for it.
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
        for name in dict.fromkeys(key for value in objects if value for key in value):
            child = variant_array(
                MISSING if value is None else value.get(name, MISSING) for value in objects
            )
            self._add((*path, name), child, paths, variant=True)
