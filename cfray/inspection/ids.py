"""Which field is the id: the best named that is unique, else a field that is an id by its values.

An id is never invented.  Where no field is unique, several fields together may be, or a row number
together with its file, or a short text where the sample holds every record; else the draft leaves
the line empty, and ``plan`` refuses it.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cfray.conversion import identity
from cfray.conversion.file_columns import FILE
from cfray.inspection import fieldnames
from cfray.inspection.field_samples import FieldSample
from cfray.inspection.guess import Guess, rule
from cfray.inspection.samples import Sample
from cfray.inspection.unclaimed import Unclaimed
from cfray.job.mapping import Key, LiteralPath, Path
from cfray.sources.base import Json

#: How the reason of an empty line begins.
FILL_IN = "FILL THIS IN"
#: Share of the records in which the best named id must be unique; the others would go to
#: quarantine.
_NEARLY_UNIQUE = 0.99
#: Share of the records that must have a field for it to be their id.
_MOSTLY_PRESENT = 0.9
#: Fewest records from which uniqueness alone, without a name, makes an id.
_MIN_UNIQUE_RECORDS = 10
#: Characters on average of a text that may be an id: a question, a headline, no document.
_LONGEST_TEXT_ID = 150
#: Fields of which pairs, and of which triples are tried.
_PAIRED_FIELDS, _TRIPLED_FIELDS = 12, 6
_UUID = r"[su]:[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
#: Kinds whose values can be ids; of decimals those that are integers.
_ID_KINDS = ("text", "integer", "uuid", "binary", "decimal")


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A field that may be the id, and the records that it names alone."""

    field: FieldSample
    unique: int


def guess_id(unclaimed: Unclaimed) -> list[Guess]:
    """Guess the id, and say what was passed over."""
    sample = unclaimed.sample
    usable = [
        field
        for field in unclaimed.fields(*_ID_KINDS)
        if field.present >= _MOSTLY_PRESENT * sample.rows
    ]
    unusable = [
        field
        for field in unclaimed.fields("number", "bool", "list", "other")
        if field.name in fieldnames.IDS and fieldnames.levels(field.path) == 1
    ]
    named = [_Candidate(field, count_unique(sample, rule(field.path))) for field in _named(usable)]
    best = _best(sample, named)
    if best is None and not unusable:
        best = _index(sample, usable) or _unnamed(sample, usable)
    if best is None:
        by_file = _file_id(unclaimed, unusable)
        return [by_file] if by_file else _several(unclaimed, usable, unusable)
    field, count = best.field, best.unique
    unclaimed.ids = read_tagged(sample, rule(field.path))
    why = f"unique in {count:,} of {sample.rows:,} sampled records"
    if field.present < sample.rows:
        why += "; records without it go to quarantine"
    if count < field.present:
        why += "; of records with the same id the first stays, the rest go to quarantine"
    better_named = [
        *unusable,
        *itertools.takewhile(lambda other: other is not field, _named(usable)),
    ]
    if better_named:
        why += f"; passed over: {_passed_over(better_named, named, sample.rows)}"
    return [unclaimed.take("id", field, why), *keep_uuid(unclaimed.ids)]


def _passed_over(fields: Sequence[FieldSample], counted: Sequence[_Candidate], rows: int) -> str:
    counts = {candidate.field.path: candidate.unique for candidate in counted}
    return ", ".join(
        f"{'.'.join(field.path)} ({_why_not(field, counts, rows)})" for field in fields[:3]
    )


def _why_not(field: FieldSample, counts: dict[Path, int], rows: int) -> str:
    if field.path not in counts:
        return f"of type {field.type}, which cannot be an id"
    return f"unique in {counts[field.path]:,} of {rows:,}"


def _named(fields: Sequence[FieldSample]) -> list[FieldSample]:
    """Choose the fields that are named like ids, the best named first."""
    names = (*fieldnames.IDS, *fieldnames.ADDRESSES)

    def order(field: FieldSample) -> tuple[bool, int, int]:
        refers = bool(fieldnames.REFERS.search(field.name))
        is_address = field.name in fieldnames.ADDRESSES
        rank = fieldnames.rank(field, names)
        return refers and field.name not in names, 2 if is_address else 0, rank

    named = [
        field
        for field in fields
        if not fieldnames.ROW_NUMBERS.search(field.name)
        and (field.name in names or fieldnames.ID_LIKE.search(field.name))
    ]
    return sorted(named, key=order)


def _best(sample: Sample, candidates: Sequence[_Candidate]) -> _Candidate | None:
    """Choose the best named field that is unique, then nearly so, then unique where present."""
    for least in (sample.rows, _NEARLY_UNIQUE * sample.rows):
        for candidate in candidates:
            if candidate.unique >= least:
                return candidate
    for candidate in candidates:
        field = candidate.field
        is_named = field.name in fieldnames.IDS and fieldnames.levels(field.path) == 1
        if is_named and candidate.unique == field.present:
            return candidate
    return None


def _index(sample: Sample, fields: Sequence[FieldSample]) -> _Candidate | None:
    """Choose the index of a DataFrame, where the heads of all files together have it once."""
    for field in fields:
        if fieldnames.INDEX.search(field.name) and not (field.dates or field.vectors):
            unique = count_unique(sample, rule(field.path))
            if unique == sample.rows:
                return _Candidate(field, unique)
    return None


def _unnamed(sample: Sample, fields: Sequence[FieldSample]) -> _Candidate | None:
    """Choose a unique field that is no text, no date and no measure, row numbers last."""
    if sample.rows < _MIN_UNIQUE_RECORDS:
        return None
    for field in sorted(fields, key=lambda field: bool(fieldnames.ROW_NUMBERS.search(field.name))):
        if (
            not fieldnames.REFERS.search(field.name)
            and field.name not in fieldnames.CREATED
            and _names_records(field)
            and count_unique(sample, rule(field.path)) == sample.rows
        ):
            return _Candidate(field, sample.rows)
    return None


def _names_records(field: FieldSample) -> bool:
    """Tell values that name records: UUIDs, words without spaces, numbers of rows."""
    if all(re.fullmatch(r"-?[0-9]{1,40}", text) for text in field.texts):
        if fieldnames.ROW_NUMBERS.search(field.name):
            return True
        numbers = [int(text) for text in field.texts]
        # a row number counts by one, but for the gaps between the sampled files
        steps_of_one = sum(b - a == 1 for a, b in itertools.pairwise(numbers))
        return steps_of_one >= _NEARLY_UNIQUE * (len(numbers) - 1)
    if field.kind not in ("text", "integer"):
        return field.kind == "uuid"
    words = any(re.search(r"\s", text) or len(text) > 200 for text in field.texts)
    measures = all(re.fullmatch(r"[-+0-9.,eE]+", text) for text in field.texts)
    return not words and not measures and not field.dates and not field.vectors


def _file_id(unclaimed: Unclaimed, unusable: Sequence[FieldSample]) -> Guess | None:
    """Take the file for the id where every file holds one record."""
    sample = unclaimed.sample
    if sample.files < 2 or unusable or count_unique(sample, FILE) < sample.rows:
        return None
    unclaimed.ids = read_tagged(sample, FILE)
    why = f"no field is unique, and each of the {sample.rows:,} sampled files holds one record"
    return Guess("mapping.id", FILE, why)


def _several(
    unclaimed: Unclaimed, usable: Sequence[FieldSample], unusable: Sequence[FieldSample]
) -> list[Guess]:
    """Guess an id of several fields or of a text, or say that the id must be filled in."""
    sample = unclaimed.sample
    positions = [rule(field.path) for field in usable if fieldnames.POSITIONS.search(field.name)]
    for parts in _combinations(sample, usable):
        parts.sort(key=positions.__contains__)  # the document before the place in it
        key: Json = {"key": parts}
        if count_unique(sample, key) == sample.rows:
            paths = tuple(field.path for field in usable if rule(field.path) in parts)
            unclaimed.used_paths.update(paths)
            unclaimed.ids = read_tagged(sample, key)
            why = (
                f"no field alone is unique; these {len(parts)} together are in "
                f"{sample.rows:,} of {sample.rows:,} sampled records"
            )
            return _with_copies(sample, Guess("mapping.id", key, why, paths=paths), parts)
    texts = [] if unusable else _unique_texts(sample, usable)
    if texts and sample.is_complete:
        unclaimed.ids = read_tagged(sample, rule(texts[0].path))
        why = f"no field is named like an id; this text is unique in all {sample.rows:,} records"
        return [Guess("mapping.id", rule(texts[0].path), why, paths=(texts[0].path,))]
    reason = "no field, nor several named like ids together, is unique in the sample"
    if unusable:
        reason += f" ({_passed_over(unusable, [], sample.rows)})"
    empty = Guess("mapping.id", None, f"{FILL_IN}: {reason}, and an id is never invented")
    why = (
        f"a text that is unique in {sample.rows:,} of {sample.rows:,} sampled records: a way out, "
        "where no two records of the source share it"
    )
    offers = [Guess("mapping.id", rule(field.path), why, sure=False) for field in texts[:1]]
    return [empty, *offers]


def _with_copies(sample: Sample, guess: Guess, parts: Sequence[Json]) -> list[Guess]:
    """Say where a key that holds the file makes copies unique, and offer the key without it."""
    without_file = [part for part in parts if not str(part).startswith(FILE)]
    if not sample.copies or len(without_file) == len(parts):
        return [guess]
    why = f"{guess.why}; BUT FILES HOLD THE SAME RECORDS (see the top): each copy becomes a row"
    value: Json = without_file[0] if len(without_file) == 1 else {"key": without_file}
    offer = "of records with the same id the first stays, and the copies go to quarantine"
    return [replace(guess, why=why), Guess("mapping.id", value, offer, sure=False)]


def _unique_texts(sample: Sample, fields: Sequence[FieldSample]) -> list[FieldSample]:
    """List the short texts that no two records share, titles first; no dates and no numbers."""
    if sample.rows < _MIN_UNIQUE_RECORDS:
        return []
    texts = [
        field
        for field in fields
        if field.kind == "text"
        and field.mean_length <= _LONGEST_TEXT_ID
        and field.name not in fieldnames.TEXTS
        and not fieldnames.REFERS.search(field.name)
        and not (field.dates or field.vectors or field.data > field.present / 2)
        and count_unique(sample, rule(field.path)) == sample.rows
    ]
    return sorted(texts, key=lambda field: fieldnames.rank(field, fieldnames.TITLES))


def _combinations(sample: Sample, fields: Sequence[FieldSample]) -> Iterator[list[Json]]:
    """List the rules that are tried together, the likeliest first.

    Two fields come before a field with its file, and three fields come last.
    """
    names = (*fieldnames.IDS, *fieldnames.ADDRESSES)
    parts = [
        field
        for field in fields
        if field.name in names
        or fieldnames.ID_LIKE.search(field.name)
        or fieldnames.SCOPES.search(field.name)
    ]
    parts.sort(key=lambda field: not fieldnames.SCOPES.search(field.name))
    rules = [rule(field.path) for field in parts[:_PAIRED_FIELDS]]
    yield from map(list, itertools.combinations(rules, 2))
    if sample.files > 1:
        numbers = [
            field
            for field in fields
            if fieldnames.ROW_NUMBERS.search(field.name) or field.kind == "integer"
        ]
        numbered = dict.fromkeys(field.path for field in (*_named(parts), *parts, *numbers))
        for file in (f"{FILE}.top", FILE):
            yield from ([file, rule(path)] for path in list(numbered)[:_PAIRED_FIELDS])
    yield from map(list, itertools.combinations(rules[:_TRIPLED_FIELDS], 3))


def keep_uuid(ids: Sequence[str]) -> list[Guess]:
    """Offer to keep the ids as the frames' uuids, where all are UUIDs and none repeats."""
    if not ids or len(set(ids)) < len(ids) or not all(re.fullmatch(_UUID, text) for text in ids):
        return []
    why = "every sampled id is a UUID: uncomment to keep it as the frame's uuid"
    return [Guess("mapping.keep_uuid", True, why, sure=False)]


def read_tagged(sample: Sample, id_rule: Json) -> list[str]:
    """Read the ids that a rule names, tagged, in the order of the sample; empty where none is."""
    rule_read: Key | LiteralPath | Json = id_rule
    if isinstance(id_rule, dict):
        model = Key if "key" in id_rule else LiteralPath
        rule_read = model.model_validate(id_rule)
    return [
        text or ""
        for fields in sample.records
        for text in identity.read_ids(fields, rule_read).tagged.to_pylist()
    ]


def count_unique(sample: Sample, id_rule: Json) -> int:
    """Count the records that an id names alone; an empty text is no id."""
    counts = Counter(read_tagged(sample, id_rule))
    return sum(count == 1 for text, count in counts.items() if text not in ("", "s:"))
