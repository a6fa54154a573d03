"""Which fields are the short columns: title, author, status, dates, tags, collection."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa

from cfray.conversion.file_columns import FILE
from cfray.inspection import date_looks, fieldnames
from cfray.inspection.field_samples import FieldSample
from cfray.inspection.guess import Guess, rule
from cfray.inspection.unclaimed import Unclaimed
from cfray.job.mapping import dotted

#: Share of the sampled values that must support a guess; the guess says how many do.
_MOSTLY = 0.95
#: Folders that a reason names.
_LISTED = 5
#: Kinds of fields that hold numbers.
_NUMBERS = ("integer", "number", "decimal")
#: Most characters that the texts of a column have on average.
_LONGEST = {"title": 300, "author": 120, "status": 30}


def guess_title(unclaimed: Unclaimed) -> Guess:
    """Guess the title; where none is named like one, say what becomes the title."""
    fields = [
        field
        for field in unclaimed.fields("text", *_NUMBERS)
        if fieldnames.may_be_title(field.path)
    ]
    named = fieldnames.by_name(fields, fieldnames.TITLES)
    named += [
        field for field in fields if fieldnames.TITLE_LIKE.search(field.name) and field not in named
    ]
    texts = [field for field in named if field.kind == "text"]
    if title := _shortest(unclaimed, "title", texts):
        return title
    for field in named:
        # a name or a label that is a number is a code, and no title
        if fieldnames.TITLE_LIKE.search(field.name) and _are_numbers(field):
            why = "by its name; numbers, which the title shows as texts"
            return unclaimed.take("title", field, why)
    reason = "no field is named like a title"
    if named:
        passed_over = ", ".join(f"{dotted(field.path)} ({_no_title(field)})" for field in named[:3])
        reason = f"passed over: {passed_over}"
    return Guess(
        "mapping.title",
        None,
        f"{reason}; the first line of the text becomes the title",
        sure=False,
    )


def _are_numbers(field: FieldSample) -> bool:
    return field.kind in _NUMBERS or all(
        re.fullmatch(r"[-+]?[0-9]{1,20}(\.[0-9]+)?", text) for text in field.texts
    )


def _no_title(field: FieldSample) -> str:
    """Say why a field that is named like a title is none."""
    if field.kind != "text" or _are_numbers(field):
        return f"of type {field.type}, and its values are numbers"
    if field.mean_length > _LONGEST["title"]:
        return f"{field.mean_length:,.0f} characters on average"
    return "its texts are data, such as JSON or codes"


def guess_short(unclaimed: Unclaimed, key: str, names: Sequence[str]) -> Guess | None:
    """Guess a column of short texts by its name."""
    return _shortest(unclaimed, key, fieldnames.by_name(unclaimed.fields("text"), names))


def _shortest(unclaimed: Unclaimed, key: str, fields: Sequence[FieldSample]) -> Guess | None:
    for field in fields:
        if field.mean_length <= _LONGEST[key] and field.data <= field.present / 2:
            return unclaimed.take(
                key, field, f"by its name; {field.mean_length:.0f} characters on average"
            )
    return None


def guess_day(
    unclaimed: Unclaimed, key: str, names: Sequence[str], like: re.Pattern[str]
) -> Guess | None:
    """Guess a date by its name, and by its type or because its texts read as dates.

    Where values look like dates and cannot be read as such, the line is offered and says why.
    """
    candidates = [
        field
        for field in unclaimed.fields("instant", "text", *_NUMBERS)
        if field.name in names or like.search(field.name)
    ]
    candidates.sort(key=lambda field: fieldnames.rank(field, names))
    for field in candidates:
        if field.kind == "instant":
            return unclaimed.take(key, field, f"by its name and type {field.type}")
        if field.kind == "text" and field.dates >= _MOSTLY * field.present:
            why = f"by its name; {field.dates:,} of {field.present:,} sampled values read as dates"
            return unclaimed.take(key, field, why)
    for field in candidates:
        if why := date_looks.why_unread(field.texts):
            why = f"named like a date, but {why}; custom_metadata keeps it"
            return Guess(f"mapping.{key}", rule(field.path), why, sure=False)
    return None


def guess_list(unclaimed: Unclaimed, key: str, names: Sequence[str]) -> Guess | None:
    """Guess a column of lists of texts by its name; a text for tags, too."""
    for field in fieldnames.by_name(unclaimed.fields("texts"), names):
        return unclaimed.take(key, field, "by its name; lists of texts")
    if key == "tags":
        for field in fieldnames.by_name(unclaimed.fields("text"), names):
            if not any(re.search(r"[,;|<\[]", text) for text in field.texts):
                return unclaimed.take(key, field, "by its name; one text a record")
            return Guess(
                "mapping.tags",
                rule(field.path),
                "by its name, but a text that holds several would become one tag",
                sure=False,
            )
    return None


def offer_collection(unclaimed: Unclaimed) -> Guess | None:
    """Offer a field of few different texts as the collection."""
    for field in fieldnames.by_name(unclaimed.fields("text"), fieldnames.COLLECTIONS):
        different = len(set(field.texts))
        if different <= max(1, min(100, unclaimed.sample.rows // 4)):
            why = (
                f"{different:,} different values in {field.present:,} sampled records: "
                "uncomment to make a collection of each"
            )
            return Guess("mapping.collection", rule(field.path), why, sure=False)
    return _offer_folders(unclaimed)


def _offer_folders(unclaimed: Unclaimed) -> Guess | None:
    """Offer the folders of the files as collections: train and test of a DatasetDict."""
    tops = {
        top
        for fields in unclaimed.sample.records
        for top in fields.columns.get((FILE, "top"), pa.nulls(0)).unique().to_pylist()
    }
    names = sorted(top for top in tops if top and "=" not in top)
    if len(names) < 2 or len(names) < len(tops):
        return None
    listed = ", ".join(names[:_LISTED]) + (" ..." if len(names) > _LISTED else "")
    why = f"folders of the files: {listed}; uncomment to make a collection of each"
    return Guess("mapping.collection", f"{FILE}.top", why, sure=False)
