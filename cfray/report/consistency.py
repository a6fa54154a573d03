"""What the reading of a target's source guarantees, as the receipts of its shards say it.

A plan can only say what one run would give.  A run that was resumed read its shards under
several sessions, and each of them may be a snapshot of another moment: then no word of the
plan holds, and the report says of how many moments the records are.
"""

from __future__ import annotations

from cfray.target.books import Books
from cfray.target.state import Plan, State

#: The words of ``Consistency``, the strongest first.
_FROM_STRONGEST = ("snapshot", "pinned files", "per-shard live", "none")
_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
_SNAPSHOTS = " snapshots ("


def consistency_of(books: Books, state: State, plan: Plan) -> str:
    """Name what the reading of the committed shards guarantees.

    ``snapshot`` stands only where all of them were read under one session that is a snapshot, or
    where the plan itself pins a version.

    Raises:
        TargetError: the file of a session is missing or damaged.
    """
    sessions = [state.session(session_id) for session_id in books.sessions if session_id]
    words = {session.consistency or plan.consistency for session in sessions}
    if not sessions or books.sessions[""]:
        words.add(plan.consistency)  # receipts of earlier versions name no session
    weakest = max(words, key=_rank)
    moments = sorted(session.began for session in sessions if session.consistency == "snapshot")
    if weakest != "snapshot" or len(moments) < 2:
        return weakest
    number = _NUMBERS.get(len(moments), f"{len(moments):,}")
    return f"{number}{_SNAPSHOTS}begun {', '.join(moments[:-1])} and {moments[-1]})"


def explain(consistency: str) -> str:
    """Say for people what a consistency means where its word does not say it."""
    if _SNAPSHOTS not in consistency:
        return consistency
    return (
        f"{consistency}: the records of one shard are of one moment, those of different shards "
        "may not be"
    )


def _rank(word: str) -> int:
    known = word in _FROM_STRONGEST
    return _FROM_STRONGEST.index(word) if known else len(_FROM_STRONGEST)
