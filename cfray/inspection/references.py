"""Which fields refer to other records: what the source declares, else what the values show."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cfray.conversion.reference_ids import read_references
from cfray.inspection import fieldnames
from cfray.inspection.field_samples import FieldSample
from cfray.inspection.guess import Guess, rule
from cfray.inspection.plain_names import plain_name
from cfray.inspection.samples import Sample
from cfray.inspection.unclaimed import Unclaimed
from cfray.job.mapping import LiteralPath, as_path, dotted
from cfray.sources.base import Json

#: Names of columns that refer to records in the custom of relational databases.
_ID_NAME = re.compile(r"(?P<what>.+)_ids?", re.IGNORECASE)
_REFERENCE_KINDS = (
    "text",
    "integer",
    "number",
    "decimal",
    "uuid",
    "binary",
    "texts",
    "numbers",
    "list",
)


def guess_references(unclaimed: Unclaimed) -> list[Guess]:
    """Guess the references, those that the source declares first."""
    declared = [
        _declared_reference(unclaimed, name, collection)
        for name, collection in unclaimed.sample.description.references.items()
    ]
    return [*(declared or _shown_references(unclaimed)), *_named_references(unclaimed)]


def _named_references(unclaimed: Unclaimed) -> list[Guess]:
    """Offer the columns of tables that are called ``*_id`` and declare no foreign key."""
    description = unclaimed.sample.description
    if not unclaimed.sample.is_store or description.schema is None:
        return []
    guesses = []
    for field in unclaimed.fields(*_REFERENCE_KINDS):
        match = _ID_NAME.fullmatch(field.path[-1])
        if match is None or field.vectors:
            continue
        value: dict[str, Json] = {"type": "reference", "to": rule(field.path)}
        target = _table_called(match["what"], [item.name for item in description.collections])
        if target:
            value["collection"] = target
        why = (
            "by its name alone: no foreign key is declared; uncomment it if its values are ids "
            f"of {target or 'records'}"
        )
        guesses.append(Guess("mapping.relationships", value, why, sure=False, paths=(field.path,)))
    return guesses


def _table_called(what: str, names: Sequence[str]) -> str:
    """Find the table that a column's name speaks of: ``author_id`` of ``authors``."""
    for name in names:
        table = name.rpartition(".")[2].lower()
        if table in (what.lower(), f"{what.lower()}s", f"{what.lower()}es"):
            return name
    return ""


def _declared_reference(unclaimed: Unclaimed, name: str, collection: str) -> Guess:
    """Draft a reference as the source declares it; one that no sampled record has is offered."""
    fields = [field for field in unclaimed.sample.fields if dotted(field.path) == name]
    path = fields[0].path if fields else as_path(name)
    unclaimed.used_paths.add(path)
    value: Json = {"type": "reference", "to": rule(path), "collection": collection}
    why = "a cross-reference of the store"
    if not fields:
        why += "; no sampled record has it: uncomment it if others do"
    return Guess("mapping.relationships", value, why, sure=bool(fields), paths=(path,))


def _shown_references(unclaimed: Unclaimed) -> list[Guess]:
    known_ids = set(unclaimed.ids) - {"", "s:"}
    if not known_ids:
        return []
    tag = Counter(text[0] for text in known_ids).most_common(1)[0][0]
    # small numbers are ids of something everywhere: numbers refer only where their name says so
    numeric_ids = sum(text[2:].isdigit() for text in known_ids)
    ids_are_telling = tag != "i" and numeric_ids < len(known_ids) / 2
    guesses = []
    for field in unclaimed.fields(*_REFERENCE_KINDS):
        # extended JSON writes {"parent": {"$oid": ..}}
        is_wrapped = field.path[-1].startswith("$") and len(field.path) > 1
        name = plain_name(field.path[-2]) if is_wrapped else field.name
        is_named = bool(fieldnames.REFERS.search(name))
        is_number = field.kind in ("numbers", "number", "decimal")
        if field.vectors or not (is_named or (ids_are_telling and not is_number)):
            continue
        why = _reason(unclaimed, field, tag, is_named=is_named)
        if why:
            kind = next(
                (kind for words, kind in fieldnames.TYPES if re.search(words, name)),
                "reference",
            )
            unclaimed.used_paths.add(field.path)
            value: Json = {"type": kind, "to": rule(field.path)}
            guesses.append(Guess("mapping.relationships", value, why, paths=(field.path,)))
    return guesses


@dataclass(slots=True)
class _Hits:
    """References of a field: all, those that name another sampled record, those to themselves."""

    total: int = 0
    other_records: int = 0
    itself: int = 0


def _count_hits(sample: Sample, field: FieldSample, ids: list[str], tag: str) -> _Hits:
    hits, start, known_ids = _Hits(), 0, set(ids)
    path = LiteralPath(path=list(field.path))
    for fields in sample.records:
        rows, tagged = read_references(fields, path, tag)
        for row, text in zip(rows.tolist(), tagged.to_pylist(), strict=True):
            if text not in ("", "s:"):
                is_itself = text == ids[start + row]
                hits.total += 1
                hits.itself += is_itself
                hits.other_records += text in known_ids and not is_itself
        start += fields.rows
    return hits


def _reason(unclaimed: Unclaimed, field: FieldSample, tag: str, *, is_named: bool) -> str:
    """Say why a field refers to other records; empty where it does not."""
    sample, ids = unclaimed.sample, unclaimed.ids
    hits = _count_hits(sample, field, ids, tag)
    by_name = is_named and (hits.other_records or not sample.is_complete)
    if (
        not hits.total
        or hits.itself > hits.total / 2
        or not (hits.other_records >= hits.total / 2 or by_name)
    ):
        return ""
    if hits.other_records == hits.total:
        return "every sampled value is an id of another record"
    if hits.other_records:
        return (
            f"{hits.other_records:,} of {hits.total:,} sampled values are ids of other sampled "
            "records"
        )
    if {_shape(text) for text in field.texts} & {_shape(text[2:]) for text in ids if text}:
        return (
            "by its name, and its values look like the ids; the records they name are not in the "
            "sample"
        )
    return ""


def _shape(text: str) -> str:
    """Write a text's pattern: a number as 0, any other word as x, everything else as it is.

    A UUID has the pattern ``x-x-x-x-x``.
    """
    return "0" if text.isdigit() else re.sub(r"\w+", "x", text[:100])
