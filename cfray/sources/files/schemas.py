"""The fields of a source whose files do not all have the same ones.

A field that only a later file has is a field.  Schemas that were read while the files were cut are
remembered, so that no footer is read twice in a plan.
"""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from cfray.formats.arrow_types import loss_of
from cfray.runtime.plurals import counted
from cfray.sources.files.listing import PinnedFile

#: Files whose schema is remembered; a schema that many files share is kept once.
_MAX_REMEMBERED = 1_000_000
_remembered: dict[tuple[str, int, int], pa.Schema] = {}


def remember_schema(file: PinnedFile, schema: pa.Schema) -> None:
    """Keep the schema of a file that was read, until the plan asks for it."""
    if len(_remembered) >= _MAX_REMEMBERED:
        _remembered.clear()
    last = next(reversed(_remembered.values()), None)
    is_same = last is not None and last.equals(schema, check_metadata=True)
    _remembered[file.uri, file.size, file.modified] = last if is_same else schema


def recall_schema(file: PinnedFile) -> pa.Schema | None:
    """Give the schema of a file that was read by this process; None where it was not."""
    return _remembered.get((file.uri, file.size, file.modified))


class SchemaUnion:
    """The fields of all files, each with the type that the first file gives it.

    A type that says nothing (null) gives way to a later one.
    """

    def __init__(self) -> None:
        """Begin without a field."""
        self._types: dict[str, Counter[pa.DataType]] = {}
        self._first_files: dict[tuple[str, pa.DataType], str] = {}
        # with what a field says of its type at the source
        self._fields: dict[tuple[str, pa.DataType], pa.Field] = {}
        self._last: pa.Schema | None = None
        self._repetitions = 0

    def add(self, name: str, schema: pa.Schema) -> None:
        """Add the fields of a file.

        Args:
            name: of the file.
            schema: of its records.
        """
        if self._last is not None and self._last.equals(schema, check_metadata=True):
            self._repetitions += 1
            return
        self._count_repetitions()
        self._last, self._repetitions = schema, 1
        for field in schema:
            self._types.setdefault(field.name, Counter())
            self._first_files.setdefault((field.name, field.type), name)
            known = self._fields.setdefault((field.name, field.type), field)
            chosen = field if loss_of(known) is None and loss_of(field) is not None else known
            is_nullable = known.nullable or field.nullable
            self._fields[field.name, field.type] = chosen.with_nullable(is_nullable)

    def _count_repetitions(self) -> None:
        for field in self._last or []:
            self._types[field.name][field.type] += self._repetitions
        self._repetitions = 0

    def schema(self) -> pa.Schema:
        """Give all fields, in the order in which the files bring them."""
        self._count_repetitions()
        fields = []
        for name, kinds in self._types.items():
            chosen = next((kind for kind in kinds if not pa.types.is_null(kind)), pa.null())
            fields.append(self._fields[name, chosen])
        return pa.schema(fields)

    def conflicts(self) -> list[str]:
        """Say of each field whose type differs between files which files have which."""
        self._count_repetitions()
        notes = []
        for name, kinds in self._types.items():
            counts = [(kind, count) for kind, count in kinds.items() if not pa.types.is_null(kind)]
            if len(counts) > 1:
                listed = "; ".join(
                    f"{kind} in {counted(count, 'file')} ({self._first_files[name, kind]})"
                    for kind, count in counts[:5]
                )
                notes.append(
                    f"{name} is not of one type: {listed}; its type is recorded as {counts[0][0]}, "
                    "and each record of another type keeps its own"
                )
        return notes
