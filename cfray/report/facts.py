"""What happened, as data; rendered as text for people and as JSON for programs.

``report.json`` is written at every end of a run, failures included.  A check
that did not run is ``not_run`` with its reason, never ``pass``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from cfray.errors import CfrayError, ConfigError, Interrupted, TargetError
from cfray.report.consistency import explain
from cfray.report.names import CHECKS, SOURCE_SINCE
from cfray.report.reasons import readable_reason
from cfray.report.retirement import Retirement, judge_retirement
from cfray.report.sheet import Sheet, Table
from cfray.runtime.clock import utc_now
from cfray.runtime.plurals import counted, counted_name
from cfray.target.documents import dumps
from cfray.target.ledger import Ledger
from cfray.target.receipts import Status
from cfray.target.state import State

FILE = "report.json"
#: Folder in which the report of every command is kept.
HISTORY = "reports"


def _age(name: str) -> tuple[str, int]:
    """Order reports: by the second they began in, then by the number they got in that second.

    The first report of a second has no number: ``2026-11-28T19-36-01Z-verify.json``, then
    ``2026-11-28T19-36-01Z-migrate-2.json``.
    """
    matched = re.fullmatch(r"(\S{20})-.*?(?:-(\d+))?\.json", name)
    return (matched[1], int(matched[2] or 1)) if matched else ("", 0)


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
        consistency: what the reading of the source guarantees: a word of the plan until the first
            shard is committed, then what the receipts say, such as ``two snapshots (begun ..)``.
        counts: read, staged, quarantined, frames; derived rows and findings beside them.
        stages: stage -> figures.
        checks: every check by name.
        versions: of what wrote the target.
        gate: what the gate said of a fitted map.
        search: how the vector index must be searched: ``index, metric, k, queries,
            recall_by_default, recall, wanted``, and the settings for Lance.
        parity: how searches in the target agree with the source's own: ``searches, found_nothing,
            origins, k, agreement, low, high, same_at, other_vectors, is_plausible,
            not_in_target, metric, source_metric, source_recall,
            target_recall, source_seconds, target_seconds, target_searches_a_second,
            farthest_hits, source_asked, baseline, threshold, no_filters, causes, words`` (``none``,
            or ``searches, k, source_found, target_found, kept, low, high, same, source_seconds,
            target_seconds``).
        vectors: of a sample of the documents: ``sampled, dimension, zero, null, not_finite``,
            ``norm_smallest, norm_median, norm_largest`` (null where no vector has one) and
            ``repeated`` of the other vectors (those that repeat an earlier one of the sample), and
            ``projection``: the first two principal components of at most 500 of them, each with
            ``collection, x, y`` (-1 to 1).  Empty where they were not looked at.
        pool: of the embedding actors: ``actors, loaded, busy, alive`` (the last two in seconds) and
            sums of the texts and tokens that they embedded in this run.
        operators: line (``copy``, ``embed``) -> its operators in this run, from Ray Data's own
            statistics: ``name``, ``rows`` that came out (receipts), ``seconds`` of the workers.
        started, ended: UTC, to the second; ``ended`` is empty while the command runs.
        ledger_digest: of the ledger whose rows the command verified; empty where it did not come to
            that, and in reports that were written before 2026-11-28.
        dataset_version: the version of the dataset that the command verified; 0 where
            ``ledger_digest`` is empty, and in reports of earlier versions of cfray.
        source: address of the source, without credentials.
        mapping: the job's section, without what has its default.
        collections: source collection -> ``read, staged, quarantined, frames`` of its shards as
            they were copied; empty where the source has none.
        certificate: of the dataset, as it was issued or found; empty where it has none.
        undecided: names of the checks that were asked for and could not be decided.
        differences: the first rows that are not the same in source and target, a sentence each.
        differences_file: where all of them are; empty where there are none.
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
    search: dict[str, Any] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)
    vectors: dict[str, Any] = field(default_factory=dict)
    pool: dict[str, float] = field(default_factory=dict)
    operators: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    started: str = field(default_factory=utc_now)
    ended: str = ""
    ledger_digest: str = ""
    dataset_version: int = 0
    source: str = ""
    mapping: dict[str, Any] = field(default_factory=dict)
    collections: dict[str, dict[str, int]] = field(default_factory=dict)
    certificate: dict[str, Any] = field(default_factory=dict)
    undecided: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    differences_file: str = ""

    def stage(self, name: str) -> StageFigures:
        """Give the figures of a stage, to add to."""
        return self.stages.setdefault(name, StageFigures())

    def check(self, name: str, status: Status, detail: str) -> None:
        """Note what came of a check."""
        self.checks.append(Check(name, status, detail))

    def begin_checks_anew(self) -> None:
        """Forget the checks of a target that was repaired since; what they named stays a file."""
        self.checks.clear()
        self.undecided.clear()
        self.differences.clear()

    def leave_undecided(self, name: str, detail: str) -> None:
        """Note a check that was asked for and could not be decided (exit code 6)."""
        self.undecided.append(name)
        self.check(name, "not_run", f"not decided: {detail}")

    def conclude(self, ledger: Ledger) -> None:
        """Give the verdict of a command that came to its end.

        Args:
            ledger: of the target, as the checks found it.
        """
        self.ledger_digest = ledger.digest
        self.give_verdict()

    def give_verdict(self) -> None:
        """Give verdict and exit code from the checks and the counts."""
        failed = [check for check in self.checks if check.status == "fail"]
        damage = [check.name for check in failed if check.name != SOURCE_SINCE]
        quarantined = self.counts["quarantined"]
        if damage:
            self.exit_code, self.verdict = 4, f"FAILED: {', '.join(damage)}"
        elif failed:
            self.exit_code = 7
            self.verdict = (
                "the target is whole, but its source has gone on since it was planned: "
                f"{failed[0].detail}"
            )
        elif self.undecided:
            self.exit_code = 6
            self.verdict = f"not decided: {', '.join(self.undecided)}"
        elif quarantined:
            self.exit_code = 3
            self.verdict = f"done, with {counted(quarantined, 'record')} in quarantine"
        else:
            self.exit_code, self.verdict = 0, "done, everything verified that was asked for"

    def fail(self, error: CfrayError) -> None:
        """Give the verdict of a command that an error ended."""
        self.exit_code = error.signal_code if isinstance(error, Interrupted) else error.exit_code
        self.verdict = f"stopped: {error.what}"
        self.notes.append(f"remedy: {error.remedy}")

    def name_missing_checks(self, reason: str) -> None:
        """Give each check that was not made its line, with the reason."""
        known_names = {check.name for check in self.checks}
        for name in CHECKS:
            if name not in known_names:
                self.check(name, "not_run", reason)

    @property
    def retirement(self) -> Retirement:
        """Say whether the source may be switched off."""
        checks = {check.name: (check.status, check.detail) for check in self.checks}
        quarantined = self.counts["quarantined"]
        return judge_retirement(self.exit_code, self.verdict, checks, quarantined)

    def as_json(self) -> dict[str, Any]:
        """Give the report as parsed JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        """Show the report as text, verdict first."""
        return self._sheet().as_text()

    def _repr_html_(self) -> str:
        """Show the report in a notebook."""
        return self._sheet().as_html()

    def _sheet(self) -> Sheet:
        counts = ", ".join(
            counted_name(value, name)
            for name, value in self.counts.items()
            if value or name in ("read", "quarantined")
        )
        stages = [
            (name, f"{stage.seconds:,.1f}", f"{stage.rows:,}")
            for name, stage in self.stages.items()
        ]
        checks = [(check.name, check.status, check.detail) for check in self.checks]
        return Sheet(
            f"{self.verdict} (cfray {self.command}: {self.job} → {self.target})",
            [
                *self.retirement_lines(),
                counts,
                *self._consistency_lines(),
                *([Table(("stage", "seconds", "rows"), stages)] if stages else []),
                *([Table(("check", "status", "detail"), checks)] if checks else []),
                *(
                    f"quarantine: {n:,} x {readable_reason(reason)}"
                    for reason, n in self.quarantine_reasons.items()
                ),
                *self.differences,
                *self.notes,
            ],
        )

    def retirement_lines(self) -> list[str]:
        """Say whether the source may be switched off; nothing of a command that checks nothing."""
        if all(check.status == "not_run" for check in self.checks):
            return []
        retirement = self.retirement
        return [f"may the source be switched off? {retirement.answer}: {retirement.reason}"]

    def _consistency_lines(self) -> list[str]:
        if not self.consistency:
            return []
        return [f"consistency of the source: {explain(self.consistency)}"]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Report:
        """Read a report."""
        stages = {name: StageFigures(**figures) for name, figures in data.pop("stages").items()}
        checks = [Check(**check) for check in data.pop("checks")]
        return cls(**data, stages=stages, checks=checks)

    def save(self, state: State, *, as_latest: bool) -> None:
        """Keep the report beside the target.

        Args:
            state: of the target.
            as_latest: write ``report.json``, too; a command that only looks at a target must not
                while another command is writing to it.
        """
        self.ended = utc_now()
        # the order of counts and stages is that of the run
        data = dumps(self.as_json(), sort_keys=False)
        history = state.folder.child(HISTORY)
        second = self.started.replace(":", "-")
        stem = f"{second}-{self.command.replace(' ', '-')}"
        number = 1 + max(
            (_age(name)[1] for name in history.list_names() if name.startswith(second)), default=0
        )
        history.publish(f"{stem}{f'-{number}' if number > 1 else ''}.json", data)
        if as_latest:
            state.folder.publish(FILE, data)

    @classmethod
    def load(cls, state: State) -> Report:
        """Read the latest report of a target.

        Raises:
            ConfigError: there is none.
            TargetError: the file is damaged, or another program's.
        """
        data = state.folder.read(FILE)
        if data is None:
            for report in cls.newest_first(state):
                return report
            remedy = "run cfray migrate or cfray verify"
            raise ConfigError(f"{state.target} has no report yet", remedy)
        return cls._parse(data, f"{state.folder.uri}/{FILE}")

    @classmethod
    def last_verification(cls, state: State, ledger: Ledger) -> Report | None:
        """Read the latest report whose command verified the rows that are in the ledger now.

        Raises:
            TargetError: a report is damaged, or another program's.
        """
        reports = cls.newest_first(state)
        return next((report for report in reports if report.ledger_digest == ledger.digest), None)

    @classmethod
    def newest_first(cls, state: State) -> Iterator[Report]:
        """Read the kept report of each command.

        Raises:
            TargetError: a report is damaged, or another program's.
        """
        for name in cls.names_newest_first(state):
            yield cls.named(state, name)

    @staticmethod
    def names_newest_first(state: State) -> list[str]:
        """List the files of the kept reports."""
        history = state.folder.child(HISTORY)
        return sorted(history.list_names(), key=_age, reverse=True)

    @classmethod
    def named(cls, state: State, name: str) -> Report:
        """Read a kept report.

        Raises:
            TargetError: it is damaged, or another program's.
        """
        history = state.folder.child(HISTORY)
        return cls._parse(history.read(name) or b"", f"{history.uri}/{name}")

    @classmethod
    def _parse(cls, data: bytes, location: str) -> Report:
        try:
            return cls.from_json(json.loads(data))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise TargetError(
                f"{location} is damaged, or was not written by cfray",
                "remove it, then run cfray verify, which writes a new report",
            ) from error
