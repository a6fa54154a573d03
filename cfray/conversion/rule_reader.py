"""Read the fields that the rules of a mapping name, and remember which fields the columns show.

What a column shows need not go to custom_metadata; what no column shows must.  So a field is
marked as shown only in the rows in which a column holds its whole value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.fields import Fields
from cfray.conversion.identity import is_present
from cfray.conversion.shown_values import is_bare, of_shown
from cfray.job.mapping import Const, Path, SourceShape, Template, TextRule, as_path, rule_paths
from cfray.job.spec import JobSpec
from cfray.records import values
from cfray.records.record import parsed, variant_texts, variant_types
from cfray.records.type_names import read_type

Mask = npt.NDArray[np.bool_]
#: Types of JSON's own values, whose texts a column shows so that they can be read back.
_JSON_TYPES: tuple[str, ...] = (
    "null",
    "string",
    "bool",
    "int64",
    "uint64",
    "integer",
    "double",
    "list",
    "struct",
)

#: What a text has that JSON writes otherwise, or that is read as a list or an object.
_SPECIAL = r'^[\[{]|["\\\x00-\x1f]'


class RuleReader:
    """The rules of a job's mapping, read for one batch of records.

    Attributes:
        shown: path -> rows whose value a column shows; None for all rows.
        replaced_nulls: path -> rows in which a column shows something although the field is null
            (a title, a zero vector); an export must know that they were null.
    """

    def __init__(self, fields: Fields, job: JobSpec, shape: SourceShape) -> None:
        """Begin with no field shown."""
        self.fields, self.job, self.shape = fields, job, shape
        self.shown: dict[Path, Mask | None] = {}
        self.replaced_nulls: dict[Path, Mask] = {}

    def mark_shown(self, paths: Sequence[Path]) -> None:
        """Mark fields as shown by a column.

        A single field is shown in every row; of several fields, each is shown where it is the
        first that is present.
        """
        if len(paths) == 1:
            self.shown[paths[0]] = None
            return
        columns = {path: self._texts(path) for path in paths}
        self.mark_first_shown(
            {
                path: np.zeros(self.fields.rows, np.bool_)
                if texts is None
                else texts.is_valid().to_numpy(zero_copy_only=False)
                for path, texts in columns.items()
            }
        )

    def mark_first_shown(self, showable: Mapping[Path, Mask], *, notes_absent: bool = True) -> None:
        """Mark fields as shown where each is the first that can be.

        Args:
            showable: path -> rows in which the field can be shown, in the order of the rule.
            notes_absent: remember the fields before the one that is shown, which have no value: an
                export must know which field the column shows.
        """
        if len(showable) == 1:
            self.shown |= dict.fromkeys(showable, None)
            return
        is_filled = np.zeros(self.fields.rows, np.bool_)
        for path, rows in showable.items():
            self.shown[path] = rows & ~is_filled
            is_filled |= rows
        if not notes_absent:
            return
        is_later = np.zeros(self.fields.rows, np.bool_)
        for path, rows in list(showable.items())[::-1]:
            self._note_replaced(path, is_later & ~is_present(self.fields, path))
            is_later = rows | is_later

    def mark_unshown(self, paths: Sequence[Path], rows: Mask) -> None:
        """Give rows of fields back to custom_metadata: the column could not show their value."""
        if not rows.any():
            return
        for path in paths:
            shown = self.shown.get(path, np.zeros(self.fields.rows, np.bool_))
            self.shown[path] = ~rows if shown is None else shown & ~rows

    def mark_copies(self) -> None:
        """Keep items out of custom_metadata whose list stands there as a whole."""
        for path in self.fields.columns if self.fields.copies else ():
            copied = self.fields.copied_rows(path)
            shown = self.shown.get(path, np.zeros(self.fields.rows, np.bool_))
            if copied is not None and shown is not None:
                self.shown[path] = shown | copied

    def mark_replaced(self, rule: TextRule | None, rows: pa.BooleanArray) -> None:
        """Remember the rows in which a column shows something else than the fields of its rule.

        All fields of a template stay in custom_metadata, so nothing of them is replaced.
        """
        if not isinstance(rule, Template):
            for path in rule_paths(rule):
                self._note_replaced(path, rows.to_numpy(zero_copy_only=False))

    def _note_replaced(self, path: Path, rows: Mask) -> None:
        known = self.replaced_nulls.get(path)
        self.replaced_nulls[path] = rows if known is None else rows | known

    def text(self, rule: TextRule | None) -> pa.StringArray | None:
        """Make a text column, and mark its fields as shown; None where the mapping has no rule."""
        self.mark_text_shown(rule)
        return self.read_text(rule)

    def mark_text_shown(self, rule: TextRule | None, *, default: Path | None = None) -> None:
        """Mark the fields of a text rule as shown; a template shows none of its fields whole."""
        if not isinstance(rule, Const | Template):
            paths = self._text_paths(rule, default)
            if paths:
                self.mark_shown(paths)

    def read_text(
        self, rule: TextRule | None, *, default: Path | None = None
    ) -> pa.StringArray | None:
        """Read the texts of a rule.

        Args:
            rule: a constant, a template (null where a field of it is null) or paths, of which the
                first that is present counts.
            default: the field to read where the mapping has no rule; it may be absent.

        Returns:
            a text a row; None where neither a rule nor the default field exists.
        """
        if isinstance(rule, Const):
            return pa.repeat(pa.scalar(rule.const, pa.string()), self.fields.rows)
        if isinstance(rule, Template):
            return self._template(rule)
        paths = self._text_paths(rule, default)
        if not paths:
            return None
        columns = [texts for path in paths if (texts := self._texts(path)) is not None]
        if not columns:
            return pa.nulls(self.fields.rows, pa.string())
        return columns[0] if len(columns) == 1 else pc.coalesce(*columns)

    def _text_paths(self, rule: TextRule | None, default: Path | None) -> list[Path]:
        """List the paths of a rule, or the default where the mapping has no rule."""
        if rule is not None:
            return rule_paths(rule)
        return [default] if default is not None and default in self.fields.columns else []

    def _template(self, rule: Template) -> pa.StringArray:
        """Fill a template; every other item of the split is the name of a field."""
        texts_and_names = re.split(r"\{([^{}]+)\}", rule.template)
        columns: list[pa.Array | pa.Scalar] = []
        for index, text in enumerate(texts_and_names):
            if index % 2 == 0:
                columns.append(pa.scalar(text))
            else:
                field_texts = self._texts(as_path(text))
                null = pa.nulls(self.fields.rows, pa.string())
                columns.append(null if field_texts is None else field_texts)
        filled = pc.binary_join_element_wise(*columns, "")
        return filled if isinstance(filled, pa.Array) else pa.repeat(filled, self.fields.rows)

    def _texts(self, path: Path) -> pa.StringArray | None:
        """Read a field as a text column shows it, null where it is missing or null."""
        column = self.fields.rule_column(path)
        if column is None:
            return None
        if path not in self.fields.variants:
            return plain_texts(column)
        texts, kinds = variant_texts(column), variant_types(column)
        is_null = pc.fill_null(pc.equal(kinds, "null"), fill_value=False)
        if pc.any(is_null).as_py():
            texts = pc.if_else(is_null, None, texts)
        # a date, a uuid or bytes: JSON texts of types that a store declares
        is_quoted = pc.fill_null(
            pc.and_(pc.not_equal(kinds, "string"), pc.starts_with(texts, '"')), fill_value=False
        )
        if pc.any(is_quoted).as_py():
            texts = pc.if_else(is_quoted, _unquoted(texts, is_quoted), texts)
        return texts

    def mark_ambiguous(self) -> None:
        """Give back to custom_metadata the values of a store's own types that no text tells."""
        for path in list(self.shown):
            column = self.fields.rule_column(path) if path in self.fields.variants else None
            if column is None:
                continue
            kinds = variant_types(column)
            names = kinds.unique().drop_null().to_pylist()
            names = [name for name in names if name not in _JSON_TYPES and not read_type(name)]
            if not names:
                continue
            rows = np.zeros(self.fields.rows, np.bool_)
            texts, shown = variant_texts(column), self._texts(path)
            assert shown is not None
            may_differ = pc.is_in(kinds, pa.array(names))
            if not any(map(is_bare, names)):
                # most are plain words in quotes, such as the hex digits of an id
                is_special = pc.match_substring_regex(shown, _SPECIAL)
                is_odd = pc.or_(is_special, pc.invert(pc.starts_with(texts, '"')))
                may_differ = pc.and_(may_differ, is_odd)
            for row in pc.indices_nonzero(pc.fill_null(may_differ, True)).to_pylist():
                if shown[row].as_py() is None:
                    continue
                text = of_shown(kinds[row].as_py(), shown[row].as_py())
                rows[row] = text != texts[row].as_py()
            self.mark_unshown([path], rows)


def _unquoted(texts: pa.StringArray, rows: pa.BooleanArray) -> pa.StringArray:
    """Read the texts of some rows, which are JSON strings."""
    if not pc.any(pc.and_(rows, pc.match_substring(texts, "\\"))).as_py():
        return pc.utf8_slice_codeunits(texts, 1, -1)
    pairs = zip(texts.to_pylist(), rows.to_pylist(), strict=True)
    return pa.array([parsed(text) if quoted else text for text, quoted in pairs], pa.string())


def plain_texts(column: pa.Array) -> pa.StringArray:
    """Write the values of a column that holds no variants as a text column shows them.

    These are the canonical texts, without the quotes that JSON has around instants, decimals,
    UUIDs and bytes.
    """
    texts = values.metadata_texts(column)
    kind = column.type
    if (
        pa.types.is_nested(kind)
        or isinstance(kind, pa.DictionaryType)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
    ):
        return texts
    return pc.if_else(pc.starts_with(texts, '"'), pc.utf8_slice_codeunits(texts, 1, -1), texts)
