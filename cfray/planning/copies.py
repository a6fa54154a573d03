"""Records that stand in two files: a copy of an export beside it is read twice in silence.

Records are compared by content, so that a key which holds the file hides no copy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations

import pyarrow as pa
import pyarrow.compute as pc

from cfray.records import values
from cfray.records.record import VARIANT, file_of

#: Numbers of a list that are compared: vectors that begin alike are the same vector.
_COMPARED_NUMBERS = 8
#: Share of a file's sampled records that must stand in another file, and how many at least.
_MOSTLY, _LEAST = 0.5, 2
#: Pairs of files that have a sentence each.
_LISTED = 5
_BETWEEN_FIELDS, _BEHIND_NAME = "\x1f", "\x1e"


def copy_warnings(
    batches: Sequence[pa.RecordBatch], alike: Iterable[tuple[str, ...]] = ()
) -> list[str]:
    """Warn of files whose sampled records stand in another file, too, with the same content.

    Args:
        batches: the sample.
        alike: files with the same bytes where they were compared; the sample may hold too little
            of them.
    """
    contents = _contents(batches)
    files_of: dict[str, list[str]] = {}
    for file, counts in contents.items():
        for content in counts:
            files_of.setdefault(content, []).append(file)
    equal: Counter[tuple[str, str]] = Counter()
    for content, files in files_of.items():
        for pair in combinations(sorted(files), 2):
            equal[pair] += min(contents[file][content] for file in pair)
    sentences: dict[tuple[str, ...], str] = {}
    for (first, second), count in equal.most_common():
        sampled = min(contents[first].total(), contents[second].total())
        if count >= _LEAST and count >= _MOSTLY * sampled:
            sentences[first, second] = (
                f"{count:,} of {sampled:,} sampled records stand in {first} and in {second}, with "
                "the same content"
            )
    for names in alike:
        sentences.setdefault(names, f"{' and '.join(names)} seem to hold the same content")
    hidden = len(sentences) - _LISTED
    more = [f"and so it is with {hidden:,} more pairs of files"] if hidden > 0 else []
    remedy = "both are read. If one is a copy, name the other alone in source.uri"
    return [
        f"THE SAME RECORDS TWICE: {sentence}; {remedy}"
        for sentence in [*list(sentences.values())[:_LISTED], *more]
    ]


def _contents(batches: Sequence[pa.RecordBatch]) -> dict[str, Counter[str]]:
    """Count the contents of each file's records; none where all are of one file."""
    files = {file_of(batch) for batch in batches}
    if len(files) < 2:
        return {}
    contents: dict[str, Counter[str]] = {}
    for batch in batches:
        file = file_of(batch)
        if file is not None and batch.num_columns:
            contents.setdefault(file, Counter()).update(_record_texts(batch).to_pylist())
    return contents


def _record_texts(batch: pa.RecordBatch) -> pa.StringArray:
    """Write each record as one text, whatever the order of its columns."""
    texts = [
        pc.binary_join_element_wise(name, _texts(batch.column(name)), _BEHIND_NAME)
        for name in sorted(set(batch.schema.names))
        if batch.schema.names.count(name) == 1
    ]
    if not texts:
        return pa.array([""] * batch.num_rows, pa.string())
    # a field that a record lacks, and one that its file lacks, are the same
    filled = [pc.fill_null(text, "") for text in texts]
    joined = pc.binary_join_element_wise(*filled, _BETWEEN_FIELDS)
    return pc.replace_substring_regex(joined, f"{_BETWEEN_FIELDS}+", _BETWEEN_FIELDS)


def _texts(column: pa.Array) -> pa.StringArray:
    if not column.type.equals(VARIANT):
        return values.json_texts(_heads(column))
    kinds, texts, numbers = column.flatten()
    heads = values.json_texts(_heads(numbers))
    parts = [pc.fill_null(part, "") for part in (texts, heads)]
    return pc.binary_join_element_wise(kinds, *parts, _BEHIND_NAME)


def _heads(column: pa.Array) -> pa.Array:
    """Cut lists behind their first numbers."""
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not (is_list or pa.types.is_fixed_size_list(kind)) or pa.types.is_nested(kind.value_type):
        return column
    return pc.list_slice(column, 0, _COMPARED_NUMBERS, return_fixed_size_list=False)
