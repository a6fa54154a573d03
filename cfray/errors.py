"""Every error cfray raises on purpose.

    CfrayError
    ├── ConfigError            the job file or the command line is wrong; nothing has started
    exit 2 ├── LedgerMismatch         the target belongs to another job, or is not a cfray target
    exit 2 ├── LimitReached           a limit of the job file was crossed; the same command resumes
    exit 1 ├── LeaseHeld              another run holds the target
    exit 5 ├── SourceError            the store said no and will say no again
    exit 1 (2 before the run) │   └── SourceUnavailable  the store may say yes later, so we retry
    ├── TargetError            the target's storage said no and will say no again
    exit 1 │   └── TargetUnavailable  the target's storage may say yes later, so we retry ├──
    ProofFailed            a check or a gate failed                                            exit
    4 └── Interrupted            Ctrl-C or SIGTERM; resumable
    exit 130 / 143

Ray carries errors from worker to driver, so each comes back from pickle with
its type and its fields intact.  The exit codes are the contract of the README.
"""

from __future__ import annotations

from typing import ClassVar


class CfrayError(Exception):
    """What happened, and what the operator can do about it."""

    exit_code: ClassVar[int] = 1
    transient: ClassVar[bool] = False

    def __init__(self, what: str, remedy: str) -> None:
        """Keep both sentences in ``args``: that is what makes the error pickle."""
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        """Show what happened and, on a second line, the remedy."""
        return f"{self.what}\n  remedy: {self.remedy}"


class ConfigError(CfrayError):
    """The job file or the command line is wrong; nothing has started."""

    exit_code = 2


class LedgerMismatch(CfrayError):
    """The target belongs to another job, or was not made by cfray."""

    exit_code = 2


class LimitReached(CfrayError):
    """A limit of the job file was crossed; what is committed stays."""


class LeaseHeld(CfrayError):
    """Another run holds the target."""

    exit_code = 5


class SourceError(CfrayError):
    """The source said no and will say no again."""


class SourceUnavailable(SourceError):
    """The source may say yes later.

    ``retry_after`` is the seconds it asked to be left alone, if it said so.
    """

    transient = True

    def __init__(self, what: str, remedy: str, retry_after: float | None = None) -> None:
        """Keep the pause in ``args``: a worker's error reaches the driver by pickle."""
        super().__init__(what, remedy)
        self.args = (what, remedy, retry_after)
        self.retry_after = retry_after


class TargetError(CfrayError):
    """The target's storage said no and will say no again."""


class TargetUnavailable(TargetError):
    """The target's storage may say yes later."""

    transient = True


class ProofFailed(CfrayError):
    """A check or a gate failed: the dataset is not what the ledger says."""

    exit_code = 4


class Interrupted(CfrayError):
    """Ctrl-C (130) or SIGTERM (143): stopped cleanly, resumable."""

    exit_code = 130

    def __init__(self, what: str, remedy: str, signal_code: int = 130) -> None:
        """Remember which signal it was: it decides the exit code."""
        super().__init__(what, remedy)
        self.args = (what, remedy, signal_code)
        self.signal_code = signal_code
