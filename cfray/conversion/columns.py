"""The columns of one batch of frames, each made from the rules of the mapping.

Remembers which source fields the rules used up and which values a column could
not show as they were; ``metadata`` then carries everything else, so nothing is
lost by being mapped or by being forgotten.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion import dates
from cfray.frames.schema import header_uuid
from cfray.job.mapping import (
    Const,
    Fields,
    Literally,
    Path,
    SourceShape,
    Template,
    TextRule,
    as_path,
    primary_vector,
    rule_paths,
)
from cfray.job.spec import JobSpec
from cfray.records import values
from cfray.records.record import canonical, variant_numbers, variant_texts, variant_types
from cfray.records.vectors import Vectors

Mask = npt.NDArray[np.bool_]
_TITLE_LENGTH = 80


class Columns:
    """Makes columns of one batch and keeps account of what they used."""

    def __init__(self, fields: Fields, job: JobSpec, layout: SourceShape) -> None:
        """Start with nothing taken."""
        self.fields, self.job, self.layout = fields, job, layout
        #: path -> rows whose value a column shows; None for all rows.
        self.taken: dict[Path, Mask | None] = {}
        #: path -> rows in which a mapped null was replaced (a title, a zero vector): export must
        #: know.
        self.nulls: dict[Path, Mask] = {}

    def take(self, paths: Sequence[Path]) -> None:
        """Mark fields as shown by a column in every row.

        (one path) or where they came first (several).
        """
        if len(paths) == 1:
            self.taken[paths[0]] = None
            return
        seen = np.zeros(self.fields.rows, np.bool_)
        for path in paths:
            texts = self._present(path)
            if texts is not None:
                first = texts.is_valid().to_numpy(zero_copy_only=False) & ~seen
                self.taken[path] = first
                seen |= first

    def _present(self, path: Path) -> pa.StringArray | None:
        """Give a field's canonical texts, null where it is missing or null."""
        column = self.fields.given(path)
        if column is None:
            return None
        if path not in self.fields.variants:
            return plain_texts(column)
        texts, kinds = variant_texts(column), variant_types(column)
        null = pc.equal(kinds, "null")
        texts = (
            pc.if_else(pc.fill_null(null, False), None, texts) if pc.any(null).as_py() else texts
        )
        quoted = pc.fill_null(
            pc.and_(pc.not_equal(kinds, "string"), pc.starts_with(texts, '"')), False
        )  # a date, a uuid, bytes
        return (
            pc.if_else(quoted, pc.utf8_slice_codeunits(texts, 1, -1), texts)
            if pc.any(quoted).as_py()
            else texts
        )

    def text(self, rule: TextRule | None, *, default: Path | None = None) -> pa.StringArray | None:
        """Make a text column: the first path that is present, a constant, or a template.

        (null if a field of it is).

        ``default`` is the field to use where the job file has no rule; it may be absent.
        """
        if rule is None:
            if default is None or default not in self.fields.columns:
                return None
            paths = [default]
        elif isinstance(rule, Const):
            return pa.repeat(pa.scalar(rule.const, pa.string()), self.fields.rows)
        elif isinstance(rule, Template):
            return self._template(rule)
        else:
            paths = rule_paths(rule)
        self.take(paths)
        found = [texts for path in paths if (texts := self._present(path)) is not None]
        if not found:
            return pa.nulls(self.fields.rows, pa.string())
        return found[0] if len(found) == 1 else pc.coalesce(*found)

    def _template(self, rule: Template) -> pa.StringArray:
        pieces = re.split(r"\{([^{}]+)\}", rule.template)
        columns: list[pa.Array | pa.Scalar] = []
        for place, piece in enumerate(pieces):
            if place % 2 == 0:
                columns.append(pa.scalar(piece))
            else:
                texts = self._present(as_path(piece))
                columns.append(pa.nulls(self.fields.rows, pa.string()) if texts is None else texts)
        joined = pc.binary_join_element_wise(*columns, "")
        return joined if isinstance(joined, pa.Array) else pa.repeat(joined, self.fields.rows)

    def title(
        self,
        rule: TextRule | None,
        texts: pa.StringArray | None,
        ids: pa.StringArray,
        counts: Counter[str],
    ) -> pa.StringArray:
        """Make titles: the rule, else the text's first non-empty line.

        (80 characters), else the id.
        """
        mapped = self.text(rule)
        if mapped is None:
            mapped = pa.nulls(self.fields.rows, pa.string())
        missing = mapped.is_null()
        if not mapped.null_count:
            return mapped
        counts["title_fallbacks"] += mapped.null_count
        self._replace(rule, missing)
        rows = pc.indices_nonzero(missing)
        lines = pa.nulls(len(rows), pa.string())
        if texts is not None:
            begun = pc.utf8_ltrim_whitespace(
                texts.take(rows)
            )  # a regular expression's \s is ASCII only
            lines = pc.struct_field(
                pc.extract_regex(begun, rf"^(?P<line>[^\r\n]{{1,{_TITLE_LENGTH}}})"), [0]
            )
        lines = pc.coalesce(pc.utf8_rtrim_whitespace(lines), ids.take(rows))
        return pc.replace_with_mask(mapped, missing, lines)

    def vector(self, found: Vectors, counts: Counter[str]) -> pa.FixedSizeListArray:
        """Lay out the vectors; a missing one is zero or null as the job says, and counted."""
        path = primary_vector(self.job.mapping, self.layout)
        replaced = self.job.embedding.policy == "regenerate" and path in self.fields.columns
        if self.job.mapping.vector is not None or replaced or not found.missing.all():
            self.taken[path] = None
        flat, width = pa.array(found.values.reshape(-1)), self.layout.read_dimension
        if (
            self.job.embedding.policy != "keep" or not found.missing.any()
        ):  # what is missing there is embed's to decide
            return pa.FixedSizeListArray.from_arrays(flat, width)
        counts["missing_vectors"] += int(found.missing.sum())
        if self.job.embedding.missing_vector == "null":
            return pa.FixedSizeListArray.from_arrays(flat, width, mask=pa.array(found.missing))
        self.nulls[path] = found.missing
        return pa.FixedSizeListArray.from_arrays(flat, width)

    def collection(
        self, space: uuid.UUID, source_collection: str
    ) -> tuple[pa.StringArray, pa.StringArray]:
        """Make the collection's name and the uuid of its header row."""
        rule = self.job.mapping.collection
        fallback = source_collection or self.job.name
        mapped = self.text(rule)
        if mapped is None or isinstance(rule, Const):
            name = pa.repeat(pa.scalar(fallback), self.fields.rows) if mapped is None else mapped
            return name, pa.repeat(pa.scalar(header_uuid(space)), self.fields.rows)
        self._replace(rule, mapped.is_null())
        names = pc.fill_null(mapped, fallback).dictionary_encode()
        known = names.dictionary.to_pylist()
        headers = pa.array(
            [header_uuid(space, "" if name == fallback else name) for name in known], pa.string()
        )
        return names.dictionary.take(names.indices), headers.take(names.indices)

    def _replace(self, rule: TextRule | None, missing: pa.BooleanArray) -> None:
        """Remember the rows in which a column shows something else than its field.

        A template's fields all stay in custom_metadata.
        """
        for path in [] if isinstance(rule, Template) else rule_paths(rule):
            self.nulls[path] = missing.to_numpy(zero_copy_only=False)

    def fitting(
        self, name: str, texts: pa.StringArray | None, pattern: str
    ) -> pa.StringArray | None:
        """Keep the texts that fit a pattern; the others stay in custom_metadata."""
        if texts is None:
            return None
        fits = pc.fill_null(pc.match_substring_regex(texts, pattern), False)
        self._release(
            rule_paths(getattr(self.job.mapping, name)), ~fits.to_numpy(zero_copy_only=False)
        )
        return pc.if_else(fits, texts, None)

    def _release(self, paths: Sequence[Path], rows: Mask) -> None:
        """Give rows of fields back to custom_metadata: the column could not show their value."""
        if not rows.any():
            return
        for path in paths:
            before = self.taken.get(path, np.zeros(self.fields.rows, np.bool_))
            self.taken[path] = ~rows if before is None else before & ~rows

    def position(self, rule: str | Literally | None) -> pa.Int32Array | None:
        """Make int32 positions; what is no integer of 0 .. 2**31 - 1 stays in custom_metadata."""
        texts = self.text(rule)
        if texts is None or rule is None:
            return None
        digits = pc.if_else(
            pc.match_substring_regex(texts, r"^(0|[1-9][0-9]{0,9})$"), texts, None
        ).cast(pa.int64())
        fits = pc.fill_null(pc.less(digits, 2**31), False)
        self._release([as_path(rule)], ~fits.to_numpy(zero_copy_only=False))
        return pc.if_else(fits, digits, None).cast(pa.int32())

    def strings(self, rule: str | Literally | None) -> pa.ListArray | None:
        """Make lists of strings; a single string becomes a list of one.

        Items that are no strings stay in custom_metadata, too.
        """
        if rule is None:
            return None
        path = as_path(rule)
        column = self.fields.given(path)
        self.taken[path] = None
        kind = pa.list_(pa.string())
        if column is None:
            return pa.nulls(self.fields.rows, kind)
        if path in self.fields.variants:
            return self._variant_strings(path, column)
        if (
            pa.types.is_list(column.type)
            or pa.types.is_large_list(column.type)
            or pa.types.is_fixed_size_list(column.type)
        ):
            inner = column.type.value_type
            if (
                pa.types.is_string(inner) or pa.types.is_large_string(inner)
            ) and not column.flatten().null_count:
                return column.cast(kind)
            self.taken.pop(path)
            return pa.array(
                [
                    None if item is None else [one for one in texts if one is not None]
                    for item, texts in self._item_texts(column)
                ],
                kind,
            )
        texts = values.metadata_texts(column)
        return pa.array([None if text is None else [text] for text in texts.to_pylist()], kind)

    @staticmethod
    def _item_texts(column: pa.Array) -> list[tuple[object, list[str | None]]]:
        return [
            (None, []) if not one.is_valid else (one, values.metadata_texts(one.values).to_pylist())
            for one in column
        ]

    def _variant_strings(self, path: Path, column: pa.StructArray) -> pa.ListArray:
        made: list[list[str] | None] = []
        inexact = np.zeros(self.fields.rows, np.bool_)
        kinds, texts = variant_types(column).to_pylist(), variant_texts(column).to_pylist()
        for row, (kind, text) in enumerate(zip(kinds, texts, strict=True)):
            if kind is None or kind == "null":
                made.append(None)
            elif kind.startswith("list"):
                items = json.loads(text)
                inexact[row] = any(not isinstance(item, str) for item in items)
                made.append(
                    [
                        item if isinstance(item, str) else canonical(item)
                        for item in items
                        if item is not None
                    ]
                )
            else:
                made.append([text])
        self._release([path], inexact)
        return pa.array(made, pa.list_(pa.string()))

    def day(self, rule: object, counts: Counter[str]) -> pa.StringArray | None:
        """Make the day in UTC; the source's value stays in custom_metadata whatever comes of it."""
        made: pa.StringArray | None = None
        given: pa.BooleanArray | None = None
        for path in rule_paths(rule):
            column = self.fields.given(path)
            if column is None:
                continue
            present = column.is_valid()
            if (
                path in self.fields.variants
            ):  # a bare number is not read, so its text must not be either
                kinds = variant_types(column)
                present = pc.fill_null(pc.not_equal(kinds, "null"), False)
                dated = pc.and_(
                    pc.not_equal(kinds, "string"), pc.starts_with(variant_texts(column), '"')
                )  # a store's own type for instants
                column = pc.if_else(
                    pc.or_(pc.equal(kinds, "string"), dated), self._present(path), None
                )
            read = dates.days(column)
            made = read if made is None or given is None else pc.if_else(given, made, read)
            given = present if given is None else pc.or_(given, present)
        if made is not None and given is not None:
            counts["unreadable_dates"] += int(pc.sum(pc.and_(given, made.is_null())).as_py() or 0)
        return made

    def raw(self, rule: str | Literally | None) -> pa.Array | None:
        """Make blobs: binary as it is, text as its UTF-8 bytes."""
        if rule is None:
            return None
        path = as_path(rule)
        column = self.fields.columns.get(path)
        if column is None:
            return None
        self.taken[path] = None
        if path in self.fields.variants:
            binary = pc.equal(variant_types(column), "binary")
            texts = column = self._present(path)
            if texts is not None and pc.any(binary).as_py():
                pairs = zip(texts.to_pylist(), binary.to_pylist(), strict=True)
                column = pa.array(
                    [
                        base64.b64decode(text) if coded and text else text and text.encode()
                        for text, coded in pairs
                    ],
                    pa.large_binary(),
                )
        assert column is not None
        if isinstance(column, pa.ExtensionArray):
            column = column.storage
        return column.cast(pa.large_binary())

    def further_vector(self, path: Path, kind: pa.DataType) -> pa.Array:
        """Carry a vector beside the primary one in its own width.

        A batch with another type keeps it in custom_metadata.
        """
        column = self.fields.columns.get(path)
        if column is None:
            return pa.nulls(self.fields.rows, kind)
        if path in self.fields.variants:
            column = variant_numbers(column)
        if (
            pa.types.is_list(kind)
            and not pa.types.is_nested(kind.value_type)
            and not column.type.equals(kind)
        ):
            column = column.cast(kind)
        if not column.type.equals(kind) and str(column.type) != str(kind):
            return pa.nulls(self.fields.rows, kind)
        self.taken[path] = (
            None
            if path not in self.fields.variants
            else column.is_valid().to_numpy(zero_copy_only=False)
        )
        return column.cast(kind)


def plain_texts(column: pa.Array) -> pa.StringArray:
    """Write values as a text column shows them.

    Canonical texts, without the quotes of JSON around instants, decimals, uuids and bytes.
    """
    texts = values.metadata_texts(column)
    kind = column.type
    nested = pa.types.is_nested(kind) or isinstance(kind, pa.DictionaryType)
    if (
        nested
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
    ):
        return texts
    return pc.if_else(pc.starts_with(texts, '"'), pc.utf8_slice_codeunits(texts, 1, -1), texts)
