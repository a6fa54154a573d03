"""Lines before a table that are no records: comments, the title of a report, blank lines.

A guess for a draft: it never decides how a file is read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise

_LINE_END = re.compile(rb"\r\n|\r|\n")
#: Lines that are looked at, and lines that may stand before a table.
_LOOKED_AT, _MOST = 200, 50


def list_ends(text: bytes, delimiters: Sequence[str]) -> Iterator[tuple[int, int]]:
    """List where a table may begin behind the first lines of a text, the likeliest first.

    Args:
        text: the head of a file.
        delimiters: that may stand between its fields.

    Yields:
        the offset of the table, and how many lines stand before it.
    """
    ends = [0, *(match.end() for match in islice(_LINE_END.finditer(text), _LOOKED_AT))]
    lines = [text[start:end].rstrip(b"\r\n") for start, end in pairwise(ends)]
    comments = 0
    while comments < min(len(lines), _MOST) and (
        lines[comments].startswith(b"#") or not lines[comments].strip()
    ):
        comments += 1
    # a comment may hold the names of the columns
    counts = dict.fromkeys((comments - 1, comments, *_narrow_lines(lines, delimiters)))
    for count in counts:
        if 0 < count <= _MOST:
            yield ends[count], count


def _narrow_lines(lines: list[bytes], delimiters: Sequence[str]) -> Iterator[int]:
    """Count the first lines without a delimiter, and those with fewer than most lines have."""
    for delimiter in delimiters:
        counts = [line.count(delimiter.encode()) for line in lines]
        if not any(counts):
            continue
        usual, _ = Counter(filter(None, counts)).most_common(1)[0]
        yield next(number for number, count in enumerate(counts) if count)
        first = counts.index(usual)
        if all(count < usual for count in counts[:first]):
            yield first
