"""The first question of a report: may the source be switched off, by what its checks have shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cfray.report.names import AGAINST_SOURCE, SOURCE_SINCE
from cfray.runtime.plurals import counted


@dataclass(frozen=True, slots=True)
class Retirement:
    """An answer, and the sentence that says why."""

    answer: Literal["yes", "no", "not decided"]
    reason: str


def judge_retirement(
    exit_code: int, verdict: str, checks: Mapping[str, tuple[str, str]], quarantined: int
) -> Retirement:
    """Say whether the source may be switched off.

    Args:
        exit_code: of the command.
        verdict: of its report.
        checks: name -> status and detail.
        quarantined: records that are not in the target.
    """
    if exit_code not in (0, 3, 6):
        return Retirement("no", verdict)
    nothing = ("not_run", "it was not made")
    compared, (since, since_detail) = (
        checks.get(AGAINST_SOURCE, nothing),
        checks.get(SOURCE_SINCE, nothing),
    )
    if compared[0] != "pass":
        return Retirement("not decided", f"its records were not compared now; {compared[1]}")
    if since != "pass":
        return Retirement(
            "not decided", f"whether the source has gone on is not known: {since_detail}"
        )
    if exit_code == 6:
        return Retirement("not decided", verdict)
    if quarantined:
        records = counted(quarantined, "record is", "records are")
        return Retirement(
            "not decided", f"{records} in quarantine and not in the target; all others are"
        )
    return Retirement("yes", f"every record was compared with the source: {compared[1]}")
