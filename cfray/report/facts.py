"""What happened, as data; rendered as text for people and as JSON for programs.

``report.json`` is written at every end of a run, failures included.  A check
that did not run is ``not_run`` with its reason, never ``pass``.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from cfray.errors import CfrayError, Interrupted
from cfray.target.receipts import dumps
from cfray.target.state import State

Status = Literal["pass", "fail", "not_run"]
FILE = "report.json"


@dataclass(frozen=True, slots=True)
class Check:
    """One check and what came of it."""

    name: str
    status: Status
    detail: str


@dataclass(slots=True)
class StageFigures:
    """What one stage cost.

    Attributes:
        seconds: of worker time for read, convert and write (summed over workers); of wall time for
            the others.
        rows, bytes: that passed it.
    """

    seconds: float = 0.0
    rows: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Report:
    """One command's account.

    Attributes:
        verdict: one sentence.
        counts: read, staged, quarantined, frames; derived rows and findings beside them.
        stages: stage -> figures.
        checks: every check by name.
        versions: of what wrote the target.
        gate: what the gate said of a fitted map.
        pool: of the embedding actors: ``actors, loaded, busy, alive`` (the last two in seconds) and
            sums of what they were given in this run.
    """

    command: str
    job: str
    target: str
    fingerprint: str = ""
    verdict: str = "running"
    exit_code: int = 1
    consistency: str = ""
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("read", "staged", "quarantined", "frames"), 0)
    )
    stages: dict[str, StageFigures] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    quarantine_reasons: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    clock: dict[str, float] = field(default_factory=dict)
    gate: dict[str, Any] = field(default_factory=dict)
    pool: dict[str, float] = field(default_factory=dict)
    started: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))

    def stage(self, name: str) -> StageFigures:
        """Give the figures of a stage, to add to."""
        return self.stages.setdefault(name, StageFigures())

    def check(self, name: str, status: Status, detail: str) -> None:
        """Note what came of a check."""
        self.checks.append(Check(name, status, detail))

    def conclude(self) -> None:
        """Give the verdict of a run that came to its end."""
        failed = [check.name for check in self.checks if check.status == "fail"]
        if failed:
            self.exit_code, self.verdict = 4, f"FAILED: {', '.join(failed)}"
        elif self.counts["quarantined"]:
            self.exit_code, self.verdict = (
                3,
                f"done, with {self.counts['quarantined']:,} records in quarantine",
            )
        else:
            self.exit_code, self.verdict = 0, "done, everything verified that was asked for"

    def fail(self, error: CfrayError) -> None:
        """Give the verdict of a run that an error ended."""
        self.exit_code = error.signal_code if isinstance(error, Interrupted) else error.exit_code
        self.verdict = f"stopped: {error.what}"
        self.notes.append(f"remedy: {error.remedy}")

    def as_json(self) -> dict[str, Any]:
        """Give the report as parsed JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Report:
        """Read a report."""
        stages = {name: StageFigures(**figures) for name, figures in data.pop("stages").items()}
        checks = [Check(**check) for check in data.pop("checks")]
        return cls(**data, stages=stages, checks=checks)

    def save(self, state: State) -> None:
        """Write ``report.json`` beside the target."""
        state.folder.publish(FILE, dumps(self.as_json()))
