"""Every error that cfray raises on purpose, and the exit code that each one ends a command with.

    CfrayError
    ├── ConfigError               exit 2: the job file or the command line is wrong
    ├── LedgerMismatch            exit 2: the target belongs to another job, or is no cfray target
    ├── LimitReached              exit 1: a limit of the job file was crossed
    ├── LeaseHeld                 exit 5: another run holds the target
    ├── SourceError               exit 1: the source refused, and will refuse again
    │   ├── SourceUnavailable     exit 1: the source may answer later, so cfray retries
    │   └── CannotFilter          exit 1: the store cannot search by this condition
    ├── EmbeddingError            exit 1: the embedding server or model refused, and will again
    │   └── EmbeddingUnavailable  exit 1: the embedding server may answer later, so cfray retries
    ├── TargetError               exit 1: the target's storage refused, and will refuse again
    │   └── TargetUnavailable     exit 1: the target's storage may answer later, so cfray retries
    ├── EngineError               exit 1: Ray did not start, or no cluster answers
    ├── ProofFailed               exit 4: a check or a gate failed
    └── Interrupted               exit 130 or 143: Ctrl-C or SIGTERM stopped the run

While a run is planned, nothing exists yet.  Then a SourceError and a terminal
EmbeddingError become a ConfigError (exit 2); an EmbeddingUnavailable stays what it is
(exit 1), for the same command may succeed later.

Ray carries errors from worker to driver, so each error comes back from pickle with
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
    """The source refused and will refuse again."""


class SourceUnavailable(SourceError):
    """The source may answer later.

    ``retry_after`` is the pause in seconds that the source asked for; None if it named none.
    """

    transient = True

    def __init__(self, what: str, remedy: str, retry_after: float | None = None) -> None:
        """Keep the pause in ``args``: a worker's error reaches the driver by pickle."""
        super().__init__(what, remedy)
        self.args = (what, remedy, retry_after)
        self.retry_after = retry_after


class CannotFilter(SourceError):
    """The store cannot search by this condition: it does not compare the field as it stands."""


class CannotSearchWords(SourceError):
    """The store cannot search this field by words, or cfray does not know how."""


class EmbeddingError(CfrayError):
    """The embedding server or the model refused and will refuse again."""


class EmbeddingUnavailable(EmbeddingError):
    """The embedding server may answer later.

    ``retry_after`` is the pause in seconds that the server asked for; None if it named none.
    """

    transient = True

    def __init__(self, what: str, remedy: str, retry_after: float | None = None) -> None:
        """Keep the pause in ``args``: a worker's error reaches the driver by pickle."""
        super().__init__(what, remedy)
        self.args = (what, remedy, retry_after)
        self.retry_after = retry_after


class TargetError(CfrayError):
    """The target's storage refused and will refuse again."""


class TargetUnavailable(TargetError):
    """The target's storage may answer later."""

    transient = True


class EngineError(CfrayError):
    """Ray did not start, or no cluster answers where ``RAY_ADDRESS`` says."""


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
