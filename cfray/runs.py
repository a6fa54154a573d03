"""One command at work on one target: take it or only look at it, and leave a report behind.

Everything that can be refused is refused here, before anything is created:
another job's target, a target in use, a source that cannot be read.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import TypeVar

from cfray.conversion.embed import target_schema
from cfray.embedders.recipe import RECIPE_KEY
from cfray.engine import failpoint
from cfray.errors import CfrayError, ConfigError, LeaseHeld, LedgerMismatch, SourceError
from cfray.finishing import index
from cfray.frames.schema import TYPES_KEY
from cfray.job.spec import FINGERPRINTED, JobSpec, changed_keys
from cfray.planning import plan
from cfray.report.facts import Report
from cfray.report.progress import Progress
from cfray.report.run import Run
from cfray.target import commit
from cfray.target.commit import Target
from cfray.target.conditional_put import check_conditional_put
from cfray.target.lease import Lease, wait_until_free
from cfray.target.ledger import Ledger
from cfray.target.state import Plan, State

T = TypeVar("T")

#: Keys that ``quarantine replay`` and ``embed`` alone may find changed.
REPLAYED = ("mapping", "embedding")
EMBEDDED = ("embedding",)


def new_report(command: str, job: JobSpec) -> Report:
    """Begin a report."""
    versions = {name: version(name) for name in ("cfray", "ray", "pylance", "pyarrow")}
    return Report(command, job.name, job.target.uri, job.fingerprint, versions=versions)


@contextmanager
def held(
    command: str,
    job: JobSpec,
    progress: Progress,
    *,
    must_exist: bool = True,
    repair: tuple[str, ...] = (),
) -> Iterator[Run]:
    """Take the target for the block.

    Judge the lease, plan if nobody did, create the target or raise its epoch.

    ``repair`` names the keys of the job file that may differ from the target's.

    Raises:
        CfrayError: refused (exit 2, nothing created) or held by another run (exit 5).
    """
    report = new_report(command, job)
    state = State(job.target.uri)
    with tempfile.TemporaryDirectory(prefix="cfray-plan-") as desk:
        ledger, saved, made = _judged(job, state, desk, must_exist=must_exist, repair=repair)
        with _taken(job, state, ledger, made) as target:
            report.consistency = made.consistency
            run = Run(job, state, target, made, report, progress)
            with concluded(run):
                if saved is None:
                    target.check_held(
                        target.ledger()
                    )  # a run that was stopped here and overtaken must not save its plan over the other's
                    state.save_jobs([{"fingerprint": job.fingerprint, "agreed": job.agreed}])
                    state.keep(desk)
                    state.save_plan(made)
                failpoint.reached("plan")
                yield run


def _judged(
    job: JobSpec, state: State, desk: str, *, must_exist: bool, repair: tuple[str, ...]
) -> tuple[Ledger | None, Plan | None, Plan]:
    """Refuse what can be refused before anything is created; plan in ``desk`` if nobody did.

    Returns:
        the target's ledger and its saved plan, None where there is none, and the plan to go by.
    """
    with refused():
        ledger = commit.find(job.target.uri)
        check_agreement(job, ledger, repair=repair)
        wait_until_free(state.folder)
        saved = state.plan() if ledger is not None else None
        if must_exist and saved is None:
            raise no_target(job)
        if ledger is not None and ledger.entries and saved is None:
            raise LedgerMismatch(
                f"{state.folder.uri}/plan.json is missing, but the target has committed shards",
                "restore the folder beside the target, or give another target.uri",
            )
        made = (
            with_current_dimension(saved, job)
            if saved is not None
            else plan.make_plan(job, desk)[0]
        )
        index.planned_indexes(
            job.index, made.metric, made.rows or 0, target_schema(job, made.layout, made.recipe)
        )  # an index that cannot be built is refused now
        if ledger is None:
            check_conditional_put(job.target.uri)
        return ledger, saved, made


@contextmanager
def _taken(job: JobSpec, state: State, ledger: Ledger | None, made: Plan) -> Iterator[Target]:
    """Create the target or raise its epoch, and hold the lease for the block."""
    lease = Lease(state.folder)
    if ledger is None:
        types = json.dumps(
            made.layout.types, sort_keys=True, ensure_ascii=False, separators=(",", ":")
        )
        described = {TYPES_KEY: types, RECIPE_KEY: made.recipe.to_json()}
        target = commit.create(
            job.target.uri, target_schema(job, made.layout, made.recipe), described, job.fingerprint
        )
    else:
        lease.announce()
        target = commit.take_over(job.target.uri)
    lease.start(lambda: target.ledger().epoch == target.epoch)
    failpoint.reached("lease")
    try:
        yield target
    finally:
        lease.release()


@contextmanager
def looked_at(command: str, job: JobSpec, progress: Progress) -> Iterator[Run]:
    """Open a target, finished or not, without taking it.

    Raises:
        ConfigError: there is no target yet.
        LedgerMismatch: it belongs to another job.
    """
    ledger = commit.find(job.target.uri)
    state = State(job.target.uri)
    saved = state.plan()
    if ledger is None or saved is None:
        raise no_target(job)
    check_agreement(job, ledger)
    run = Run(
        job,
        state,
        Target(job.target.uri, ledger.epoch),
        with_current_dimension(saved, job),
        new_report(command, job),
        progress,
    )
    run.report.consistency = saved.consistency
    yield run


def with_current_dimension(saved: Plan, job: JobSpec) -> Plan:
    """Give a saved plan the width that the target's vectors have by now.

    ``embed`` may have changed it.
    """
    return replace(
        saved, layout=replace(saved.layout, dimension=Target(job.target.uri).recipe().dimension)
    )


def no_target(job: JobSpec) -> ConfigError:
    """Say that there is no target."""
    return ConfigError(f"there is no target at {job.target.uri} yet", "run cfray migrate first")


@contextmanager
def refused() -> Iterator[None]:
    """Before anything is created, a source's error is a refusal (exit 2)."""
    try:
        yield
    except SourceError as error:
        raise ConfigError(error.what, error.remedy) from error


@contextmanager
def concluded(run: Run) -> Iterator[None]:
    """Write the report at every end, and let errors through after that."""
    try:
        yield
    except LeaseHeld:
        raise  # the report belongs to the run that has the target now
    except CfrayError as error:
        run.count()
        run.report.fail(error)
        run.report.save(run.state)
        raise
    except BaseException as error:
        run.report.fail(
            CfrayError(
                f"{type(error).__name__}: {error}",
                "this is a fault of cfray's; what is committed stays",
            )
        )
        run.report.save(run.state)
        raise
    run.report.save(run.state)


def check_agreement(job: JobSpec, ledger: Ledger | None, *, repair: tuple[str, ...] = ()) -> None:
    """Refuse a job that is not one the target was made by.

    ``repair`` names the keys that may differ.

    Raises:
        LedgerMismatch: names every key that changed.
    """
    if ledger is None or job.fingerprint in ledger.fingerprints:
        return
    known = State(job.target.uri).jobs()
    before = known[-1]["agreed"] if known else {}
    keys = [key for key in FINGERPRINTED if key not in repair]
    changed = [
        line for key in keys for line in changed_keys(before.get(key), job.agreed.get(key), key)
    ]
    if repair and not changed:
        return
    raise LedgerMismatch(
        f"{job.target.uri} was made by another job; changed: "
        + "; ".join(changed or ["(job.json beside the target is missing)"]),
        "undo the change, or give another target.uri; to retry quarantined rows with a corrected mapping, run cfray quarantine replay; to make the vectors anew, cfray embed",
    )
