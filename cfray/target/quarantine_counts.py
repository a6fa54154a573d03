"""How many rows are in quarantine now, by reason.

The receipt of a shard counts the rows that it refused, and the receipt of a replay counts
the rows that it brought in with a minus.  Replays of earlier versions counted nothing by
reason; then the quarantine files themselves are counted, without the rows that came in.
"""

from __future__ import annotations

import json
import re
from collections import Counter

from cfray.target.books import Books
from cfray.target.documents import parse_document
from cfray.target.state import State

PREFIX = "quarantined: "
#: Count of the records that leave because an earlier record has their identity.
SAME_IDENTITY = f"{PREFIX}same identity as another record"
#: Stage of these records in the quarantine's files.
_COMMIT_STAGE = "commit"


def count_name(reason: str, stage: str = "") -> str:
    """Name the report's count of a reason, without the numbers and values of the single row.

    Args:
        reason: as the quarantine holds it.
        stage: that refused the row.
    """
    if stage == _COMMIT_STAGE:
        return SAME_IDENTITY
    kind = re.sub(r"[0-9][0-9,.]*", "#", re.split(r"[:(]", reason)[0]).strip()[:80]
    return f"{PREFIX}{kind}"


def reasons_now(books: Books, state: State) -> dict[str, int]:
    """Count the rows that are in quarantine now: reason -> rows.

    Raises:
        TargetError: a quarantine file of a replayed row is damaged.
    """
    counts = {name: count for name, count in books.counts.items() if name.startswith(PREFIX)}
    if books.replayed and sum(counts.values()) != books.quarantined:
        counts = dict(_counted_in_files(books, state))
    return {name.removeprefix(PREFIX): count for name, count in counts.items() if count > 0}


def _counted_in_files(books: Books, state: State) -> Counter[str]:
    counts: Counter[str] = Counter()
    for file in books.quarantine_files:
        replayed_lines = books.replayed.get(file, set())
        lines = (state.quarantine.read(file) or b"").splitlines()
        for number, line in enumerate(lines):
            if number not in replayed_lines:
                location = f"{state.quarantine.uri}/{file}, line {number + 1},"
                counts[parse_document(line, location, _name_of_line)] += 1
    return counts


def _name_of_line(line: bytes) -> str:
    body = json.loads(line)
    return count_name(body["reason"], body["stage"])
