"""Dates of the sample that the rules of the mapping cannot read.

A value that reads as no date leaves the date column empty and stays whole in custom_metadata: a
column of nothing is hardly what anyone wants.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from cfray.conversion.columns import Columns
from cfray.conversion.fields import Fields
from cfray.conversion.identity import is_present
from cfray.conversion.rule_reader import plain_texts
from cfray.job.mapping import Path, SourceShape, dotted, rule_paths
from cfray.job.spec import JobSpec
from cfray.records.record import variant_texts

#: Characters of an example.
_SHOWN = 40


def unread_dates(job: JobSpec, shape: SourceShape, sample: list[Fields]) -> list[str]:
    """Say of each date rule how many values of the sample read as no date, with an example."""
    sentences = []
    for key in ("created_at", "updated_at"):
        rule = getattr(job.mapping, key)
        paths = rule_paths(rule) if rule is not None else []
        present = unread = 0
        example = ""
        for fields in sample:
            days = Columns(fields, job, shape).day(rule, Counter())
            if days is None:
                continue
            filled = [is_present(fields, path) for path in paths]
            is_filled = np.logical_or.reduce(filled)
            is_unread = is_filled & days.is_null().to_numpy(zero_copy_only=False)
            present += int(is_filled.sum())
            unread += int(is_unread.sum())
            if is_unread.any() and not example:
                example = _example(fields, paths, int(np.flatnonzero(is_unread)[0]))
        if unread:
            names = " or ".join(map(dotted, paths))
            sentences.append(
                f"DATES NOT READ: {unread:,} of {present:,} sampled values of {names} read as no "
                f"date (for example {example}), so {key} stays empty there and custom_metadata "
                "keeps the value; write dates as 2024-03-01 in the source, or take "
                f"mapping.{key} out"
            )
    return sentences


def _example(fields: Fields, paths: list[Path], row: int) -> str:
    """Show the first value of a row that a date rule reads."""
    for path in paths:
        if path in fields.columns and is_present(fields, path)[row]:
            column = fields.columns[path].slice(row, 1)
            texts = variant_texts(column) if path in fields.variants else plain_texts(column)
            return str(texts[0].as_py())[:_SHOWN]
    return ""
