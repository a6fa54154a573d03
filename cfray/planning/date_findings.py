"""Dates of the sample that the rules of the mapping cannot read.

A value that reads as no date leaves the date column empty and stays whole in custom_metadata: a
column of nothing is hardly what anyone wants.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from cfray.conversion.cases import shape_numbers
from cfray.conversion.columns import Columns
from cfray.conversion.fields import Fields
from cfray.conversion.identity import is_present
from cfray.conversion.rule_reader import plain_texts
from cfray.job.mapping import (
    FieldRule,
    Path,
    SourceShape,
    dotted,
    rule_paths,
    rules_by_shape,
)
from cfray.job.spec import JobSpec
from cfray.records.record import variant_texts

#: Begin of a sentence.
NOT_READ = "DATES NOT READ"
#: Characters of an example.
_SHOWN = 40


def unread_dates(
    job: JobSpec, shape: SourceShape, sample: list[Fields], *, has_example: bool
) -> list[str]:
    """Say of each date rule how many values of the sample read as no date.

    ``has_example``: with a value of a record, which no saved plan and no report may hold.
    """
    return [
        sentence
        for key in ("created_at", "updated_at")
        for rule, shapes in rules_by_shape(job.mapping, key)
        if (
            sentence := _unread_by(
                job, shape, sample, _DateRule(key, rule, shapes), has_example=has_example
            )
        )
    ]


@dataclass(frozen=True, slots=True)
class _DateRule:
    """A rule for a date.

    Attributes:
        key: of the mapping.
        rule: its value.
        shapes: numbers of the shapes whose records it is for.
    """

    key: str
    rule: FieldRule | list[FieldRule]
    shapes: list[int]


def _unread_by(
    job: JobSpec,
    shape: SourceShape,
    sample: list[Fields],
    dates: _DateRule,
    *,
    has_example: bool,
) -> str:
    """Say how many values read as no date by one rule; empty where all do."""
    paths = rule_paths(dates.rule)
    present = unread = 0
    example = ""
    for fields in sample:
        days = Columns(fields, job, shape).day(dates.rule, Counter())
        if days is None:
            continue
        is_filled = np.logical_or.reduce([is_present(fields, path) for path in paths])
        is_filled &= np.isin(shape_numbers(fields, job.mapping.cases), dates.shapes)
        is_unread = is_filled & days.is_null().to_numpy(zero_copy_only=False)
        present += int(is_filled.sum())
        unread += int(is_unread.sum())
        if has_example and is_unread.any() and not example:
            value = _example(fields, paths, int(np.flatnonzero(is_unread)[0]))
            example = f" (for example {value})"
    if not unread:
        return ""
    names = " or ".join(map(dotted, paths))
    return (
        f"{NOT_READ}: {unread:,} of {present:,} sampled values of {names} read as no "
        f"date{example}, so {dates.key} stays empty there and custom_metadata "
        "keeps the value; write dates as 2024-03-01 in the source, or take "
        f"mapping.{dates.key} out"
    )


def _example(fields: Fields, paths: list[Path], row: int) -> str:
    """Show the first value of a row that a date rule reads."""
    for path in paths:
        if path in fields.columns and is_present(fields, path)[row]:
            column = fields.columns[path].slice(row, 1)
            texts = variant_texts(column) if path in fields.variants else plain_texts(column)
            return str(texts[0].as_py())[:_SHOWN]
    return ""
