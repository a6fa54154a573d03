"""Which fields are vectors, and which of them is the document's own.

The primary vector is the best named; vectors of a title, a summary or a picture come after it
and are drafted as further vectors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cfray.inspection import fieldnames
from cfray.inspection.field_samples import FieldSample
from cfray.inspection.guess import Guess, count_of, rule
from cfray.inspection.plain_names import plain_name
from cfray.inspection.unclaimed import Unclaimed
from cfray.inspection.vector_probe import MIN_DIMENSION
from cfray.job.mapping import Path, dotted
from cfray.runtime.plurals import counted
from cfray.sources.base import Json

#: Share of the values, empty ones apart, that must be vectors.
_MOSTLY = 0.95
#: Share of the records that must have a vector in a field that is not named like one.
_SELDOM = 0.1


@dataclass(frozen=True, slots=True)
class VectorFields:
    """Fields that hold vectors.

    Attributes:
        fitting: those whose vectors have one width, in the source's order.
        mixed: those whose vectors have several, so that a dataset can hold only a part of them.
    """

    fitting: list[FieldSample]
    mixed: list[FieldSample]


def claim_vectors(unclaimed: Unclaimed) -> VectorFields:
    """Take the fields that hold vectors, so that no other guess does."""
    rows = unclaimed.sample.rows
    fields = [
        field
        for field in unclaimed.fields("numbers", "text", "list", "binary", "other")
        if (field.dimension >= MIN_DIMENSION or field.name in fieldnames.VECTORS)
        and (field.vectors >= _SELDOM * rows or fieldnames.VECTOR_LIKE.search(field.name))
        and (field.has_floats or fieldnames.VECTOR_LIKE.search(field.name))
        and not _is_sparse(field, unclaimed)
    ]
    fitting = [
        field
        for field in fields
        if _is_mostly(field, field.vectors)
        or (fieldnames.VECTOR_LIKE.search(field.name) and _is_mostly(field, _of_width(field)))
    ]
    mixed = [
        field
        for field in fields
        if field not in fitting
        and fieldnames.VECTOR_LIKE.search(field.name)
        and _is_mostly(field, sum(count for _, count in field.probe.widths))
    ]
    unclaimed.used_paths.update(field.path for field in fitting)
    return VectorFields(fitting, mixed)


def _is_sparse(field: FieldSample, unclaimed: Unclaimed) -> bool:
    """Tell the values of a sparse vector, beside which its indices stand."""
    beside = (*field.path[:-1], "indices")
    return field.path[-1] == "values" and any(
        other.path == beside for other in unclaimed.fields("numbers", "list", "other")
    )


def _is_mostly(field: FieldSample, vectors: int) -> bool:
    return vectors > 0 and vectors >= _MOSTLY * (field.present - field.probe.empty)


def _of_width(field: FieldSample) -> int:
    """Count the vectors of the field's width, those with NaN or infinite numbers included."""
    return dict(field.probe.widths).get(field.dimension, 0) if field.vectors else 0


def guess_vectors(unclaimed: Unclaimed, fields: VectorFields, text: Path) -> list[Guess]:
    """Guess the primary vector and the further ones.

    Args:
        unclaimed: the fields.
        fields: those that hold vectors.
        text: path of the document's text; empty where there is none.
    """
    text_words = set(plain_words(text))

    def order(field: FieldSample) -> tuple[bool, int, bool, bool]:
        return (
            bool(fieldnames.SECONDARY_VECTORS.search(field.name)),
            fieldnames.rank(field, fieldnames.VECTORS),
            not text_words & set(plain_words(field.path)),
            not fieldnames.VECTOR_LIKE.search(field.name),
        )

    guesses: list[Guess] = []
    names: set[str] = set()
    for field in sorted(fields.fitting, key=order):
        why = f"{field.dimension} numbers in {count_of(field.vectors, unclaimed.sample.rows)}"
        if damaged := _of_width(field) - field.vectors:
            why += f"; {counted(damaged, 'record')} with NaN or infinite numbers to quarantine"
        if field.probe.form:
            why += f", written as {field.probe.form}"
        value = _vector_rule(field)
        if not guesses:
            guesses.append(Guess("mapping.vector", value, why, paths=(field.path,)))
            continue
        name = re.sub(r"[^A-Za-z0-9_]", "_", dotted(field.path))
        name = name if name not in names else f"{name}_{len(names)}"
        names.add(name)
        why += f"; becomes x_vector_{name}"
        guesses.append(Guess("mapping.vectors", value, why, name=name, paths=(field.path,)))
    if not guesses and fields.mixed:
        guesses.append(_draft_mixed(min(fields.mixed, key=order)))
    return guesses


def _draft_mixed(field: FieldSample) -> Guess:
    """Draft vectors of several widths, of which a dataset can hold those of one."""
    listed = ", ".join(f"{width} numbers in {count:,}" for width, count in field.probe.widths[:5])
    why = (
        f"vectors of several widths ({listed} sampled records): a dataset has one width, and "
        "custom_metadata keeps the others, whose records get no vector; a job for the records of "
        "each width gives all of them one"
    )
    value: dict[str, Json] = {"path": _written_path(field), "other_widths": "keep"}
    if field.probe.form:
        value["as"] = field.probe.form
    return Guess("mapping.vector", value, why, paths=(field.path,), warns=True)


def _written_path(field: FieldSample) -> Json:
    written = rule(field.path)
    return written["path"] if isinstance(written, dict) else written


def _vector_rule(field: FieldSample) -> Json:
    if not field.probe.form:
        return rule(field.path)
    return {"path": _written_path(field), "as": field.probe.form}


def plain_words(path: Path) -> list[str]:
    """Give the words of a path's last name."""
    return plain_name(path[-1]).split("_") if path else []
