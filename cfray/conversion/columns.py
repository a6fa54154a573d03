"""The columns of one batch of frames, each made from the rules of the mapping.

A column that cannot show a value as it is gives it back: ``metadata`` then carries it, together
with every field that no rule names.  So no value is lost by a rule, nor by the lack of a rule.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion import dates
from cfray.conversion.primary_vector import PrimaryVectors
from cfray.conversion.rule_reader import RuleReader, plain_texts
from cfray.frames.schema import header_uuid
from cfray.job.mapping import (
    Const,
    FieldRule,
    Path,
    TextRule,
    as_path,
    primary_vectors,
    rule_paths,
)
from cfray.records import values
from cfray.records.record import canonical, variant_numbers, variant_texts, variant_types
from cfray.records.vector_forms import BYTE_FORMS, UnreadableVectorError, VectorForm
from cfray.records.vector_values import decoded, is_vector_type

#: Characters of a text's first line that a title may have.
_TITLE_LENGTH = 80
_STRINGS = pa.list_(pa.string())


class Columns(RuleReader):
    """Makes the columns of one batch, and remembers which fields they show."""

    def title(
        self,
        rule: TextRule | None,
        texts: pa.StringArray | None,
        ids: pa.StringArray,
        counts: Counter[str],
    ) -> pa.StringArray:
        """Make titles: the rule's text, else the first line of the document, else the id.

        Args:
            rule: the mapping's.
            texts: the documents.
            ids: the original ids.
            counts: counts the titles that the rule does not give.
        """
        titles = self.text(rule)
        if titles is None:
            titles = pa.nulls(self.fields.rows, pa.string())
        if not titles.null_count:
            return titles
        counts["title_fallbacks"] += titles.null_count
        missing = titles.is_null()
        self.mark_replaced(rule, missing)
        rows = pc.indices_nonzero(missing)
        lines = pa.nulls(len(rows), pa.string())
        if texts is not None:
            # trimmed by Arrow, for a regular expression's \s is ASCII's white space only
            trimmed = pc.utf8_ltrim_whitespace(texts.take(rows))
            first_line = rf"^(?P<line>[^\r\n]{{1,{_TITLE_LENGTH}}})"
            lines = pc.struct_field(pc.extract_regex(trimmed, first_line), [0])
        lines = pc.coalesce(pc.utf8_rtrim_whitespace(lines), ids.take(rows))
        return pc.replace_with_mask(titles, missing, lines)

    def vector(self, primary: PrimaryVectors, counts: Counter[str]) -> pa.FixedSizeListArray:
        """Lay out the primary vectors; a missing vector is zero or null, as the job says.

        Where vectors are made after the copy it is zero here: the embedding decides on it.
        """
        embedding, vectors = self.job.embedding, primary.vectors
        is_mapped = self.job.mapping.vector is not None
        for path in [rule.path for rule in primary_vectors(self.job.mapping, self.shape)]:
            if embedding.policy == "regenerate":
                if is_mapped or path in self.fields.columns:
                    self.shown[path] = None  # the model's vector replaces it
            elif path in primary.shown and (is_mapped or not vectors.missing.all()):
                self.shown[path] = primary.shown[path]
        numbers, width = pa.array(vectors.values.reshape(-1)), self.shape.read_dimension
        if vectors.empty is not None:
            counts["empty_vectors"] += int(vectors.empty.sum())
        if primary.other_width is not None:
            counts["other_width_vectors"] += int(primary.other_width.sum())
        if len(primary.absent) > 1:  # which of several fields gave no vector where another did
            self.replaced_nulls |= primary.absent
        if embedding.policy != "keep" or not vectors.missing.any():
            return pa.FixedSizeListArray.from_arrays(numbers, width)
        counts["missing_vectors"] += int(vectors.missing.sum())
        becomes_null = embedding.missing_vector == "null"
        if not becomes_null:
            self.replaced_nulls |= primary.absent
        is_null = pa.array(vectors.missing & becomes_null & (not embedding.makes_vectors))
        return pa.FixedSizeListArray.from_arrays(numbers, width, mask=is_null)

    def collection(
        self, space: uuid.UUID, source_collection: str
    ) -> tuple[pa.StringArray, pa.StringArray]:
        """Make the names of the collections and the uuids of their headers."""
        rule, rows = self.job.mapping.collection, self.fields.rows
        default = source_collection or self.job.name
        names = self.text(rule)
        if names is None or isinstance(rule, Const):
            if names is None:
                names = pa.repeat(pa.scalar(default), rows)
            return names, pa.repeat(pa.scalar(header_uuid(space)), rows)
        self.mark_replaced(rule, names.is_null())
        distinct = pc.fill_null(names, default).dictionary_encode()
        headers = [
            header_uuid(space, "" if name == default else name)
            for name in distinct.dictionary.to_pylist()
        ]
        return (
            distinct.dictionary.take(distinct.indices),
            pa.array(headers, pa.string()).take(distinct.indices),
        )

    def fitting(
        self, name: str, texts: pa.StringArray | None, pattern: str
    ) -> pa.StringArray | None:
        """Keep the texts that fit a pattern; the others stay in custom_metadata.

        Args:
            name: of the column, which is the key of its rule.
            texts: of the column; None where the mapping has no rule.
            pattern: a regular expression.
        """
        if texts is None:
            return None
        fits = pc.fill_null(pc.match_substring_regex(texts, pattern), fill_value=False)
        paths = rule_paths(getattr(self.job.mapping, name))
        self.mark_unshown(paths, ~fits.to_numpy(zero_copy_only=False))
        return pc.if_else(fits, texts, None)

    def position(self, rule: FieldRule | None) -> pa.Int32Array | None:
        """Make int32 positions; what is no integer of 0 .. 2**31 - 1 stays in custom_metadata."""
        texts = self.text(rule)
        if texts is None or rule is None:
            return None
        is_integer = pc.match_substring_regex(texts, r"^(0|[1-9][0-9]{0,9})$")
        integers = pc.if_else(is_integer, texts, None).cast(pa.int64())
        fits = pc.fill_null(pc.less(integers, 2**31), fill_value=False)
        self.mark_unshown([as_path(rule)], ~fits.to_numpy(zero_copy_only=False))
        return pc.if_else(fits, integers, None).cast(pa.int32())

    def strings(self, rule: FieldRule | None) -> pa.ListArray | None:
        """Make lists of strings; a single string becomes a list of it.

        A list with items that are no strings stays in custom_metadata, too.
        """
        if rule is None:
            return None
        path = as_path(rule)
        column = self.fields.rule_column(path)
        self.shown[path] = None
        if column is None:
            return pa.nulls(self.fields.rows, _STRINGS)
        if path in self.fields.variants:
            return self._variant_strings(path, column)
        kind = column.type
        if (
            pa.types.is_list(kind)
            or pa.types.is_large_list(kind)
            or pa.types.is_fixed_size_list(kind)
        ):
            item = kind.value_type
            is_text = pa.types.is_string(item) or pa.types.is_large_string(item)
            if is_text and not column.flatten().null_count:
                return column.cast(_STRINGS)
            del self.shown[path]
            return pa.array([_item_texts(scalar) for scalar in column], _STRINGS)
        texts = values.metadata_texts(column).to_pylist()
        return pa.array([None if text is None else [text] for text in texts], _STRINGS)

    def _variant_strings(self, path: Path, column: pa.StructArray) -> pa.ListArray:
        lists: list[list[str] | None] = []
        is_inexact = np.zeros(self.fields.rows, np.bool_)
        kinds, texts = variant_types(column).to_pylist(), variant_texts(column).to_pylist()
        for row, (kind, text) in enumerate(zip(kinds, texts, strict=True)):
            if kind is None or kind == "null":
                lists.append(None)
            elif kind.startswith("list"):
                items = json.loads(text)
                is_inexact[row] = any(not isinstance(item, str) for item in items)
                present = [item for item in items if item is not None]
                lists.append(
                    [item if isinstance(item, str) else canonical(item) for item in present]
                )
            else:
                lists.append([text])
        self.mark_unshown([path], is_inexact)
        return pa.array(lists, _STRINGS)

    def day(self, rule: object, counts: Counter[str]) -> pa.StringArray | None:
        """Make the days, in UTC, of the first field that is present.

        The field's value stays in custom_metadata whatever comes of it.
        """
        days: pa.StringArray | None = None
        is_filled: pa.BooleanArray | None = None
        for path in rule_paths(rule):
            column = self.fields.rule_column(path)
            if column is None:
                continue
            is_present = column.is_valid()
            if path in self.fields.variants:
                is_present = pc.fill_null(
                    pc.not_equal(variant_types(column), "null"), fill_value=False
                )
                column = self._variant_instants(path, column)
            field_days = dates.days(column)
            if days is None or is_filled is None:
                days, is_filled = field_days, is_present
            else:
                days = pc.if_else(is_filled, days, field_days)
                is_filled = pc.or_(is_filled, is_present)
        if days is not None and is_filled is not None:
            is_unreadable = pc.and_(is_filled, days.is_null())
            counts["unreadable_dates"] += int(pc.sum(is_unreadable).as_py() or 0)
        return days

    def _variant_instants(self, path: Path, column: pa.StructArray) -> pa.StringArray:
        """Read the texts of variants that may be instants: strings and a store's instants.

        A bare number is not read, for it may count seconds or milliseconds.
        """
        kinds = variant_types(column)
        is_text = pc.equal(kinds, "string")
        is_instant = pc.and_(pc.invert(is_text), pc.starts_with(variant_texts(column), '"'))
        return pc.if_else(pc.or_(is_text, is_instant), self._texts(path), None)

    def raw(self, rule: FieldRule | None) -> pa.Array | None:
        """Make blobs: binary as it is, text as its UTF-8 bytes.

        A value of any other type is written as a text column shows it, and stays in
        custom_metadata.
        """
        if rule is None:
            return None
        path = as_path(rule)
        column = self.fields.columns.get(path)
        if column is None:
            return None
        if path in self.fields.variants:
            self.shown[path] = None
            column = self._variant_blobs(path, column)
        elif _is_blob_type(column.type):
            self.shown[path] = None
        else:
            column = plain_texts(column)
        return column.cast(pa.large_binary())

    def _variant_blobs(self, path: Path, column: pa.StructArray) -> pa.Array:
        """Read the bytes of variants: those of a binary are base64 in its text."""
        texts = self._texts(path)
        assert texts is not None
        is_binary = pc.equal(variant_types(column), "binary")
        if not pc.any(is_binary).as_py():
            return texts
        blobs: list[bytes | None] = []
        for text, binary in zip(texts.to_pylist(), is_binary.to_pylist(), strict=True):
            if text is None:
                blobs.append(None)
            else:
                blobs.append(base64.b64decode(text) if binary else text.encode())
        return pa.array(blobs, pa.large_binary())

    def further_vector(self, path: Path, kind: pa.DataType, form: VectorForm) -> pa.Array:
        """Carry a vector beside the primary vector, in its width.

        Where a batch has another type than the plan's sample, the vector stays in custom_metadata.
        """
        column = self.fields.columns.get(path)
        if column is None or getattr(kind, "list_size", 1) == 0:
            return pa.nulls(self.fields.rows, kind)
        is_variant = path in self.fields.variants
        is_plain = is_vector_type(column.type) and form not in BYTE_FORMS
        if pa.types.is_fixed_size_list(kind) and not is_plain:
            return self._decoded_vectors(path, column, kind, form)
        if is_variant:
            column = variant_numbers(column)
        is_plain_list = pa.types.is_list(kind) and not pa.types.is_nested(kind.value_type)
        if is_plain_list and not column.type.equals(kind):
            try:
                column = column.cast(kind)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # no numbers, or too large ones
                return pa.nulls(self.fields.rows, kind)
        if not column.type.equals(kind) and str(column.type) != str(kind):
            return pa.nulls(self.fields.rows, kind)
        self.shown[path] = column.is_valid().to_numpy(zero_copy_only=False) if is_variant else None
        return column.cast(kind)

    def _decoded_vectors(
        self, path: Path, column: pa.Array, kind: pa.FixedSizeListType, form: VectorForm
    ) -> pa.Array:
        """Decode the vectors of texts, objects or bytes; one of another width stays where it is."""
        number_type = kind.value_type.to_pandas_dtype()
        values = np.zeros((self.fields.rows, kind.list_size), number_type)
        is_read = np.zeros(self.fields.rows, np.bool_)
        for row, numbers in enumerate(decoded(column, form)):
            if numbers is None or isinstance(numbers, UnreadableVectorError):
                continue
            if len(numbers) == kind.list_size:
                values[row], is_read[row] = numbers, True
        self.shown[path] = is_read
        flat = pa.array(values.reshape(-1), kind.value_type)
        return pa.FixedSizeListArray.from_arrays(flat, type=kind, mask=pa.array(~is_read))


def _is_blob_type(kind: pa.DataType) -> bool:
    """Tell whether a column holds bytes or texts."""
    tests = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_fixed_size_binary,
        pa.types.is_string,
        pa.types.is_large_string,
    )
    return any(test(kind) for test in tests)


def _item_texts(scalar: pa.ListScalar) -> list[str] | None:
    """Write the items of a list that are not null as texts; None for a list that is null."""
    if not scalar.is_valid:
        return None
    return [text for text in values.metadata_texts(scalar.values).to_pylist() if text is not None]
