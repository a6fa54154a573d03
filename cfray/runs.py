"""One command at work on one target: take it or only look at it, and leave a report at every end.

Everything that can be refused is refused here, before anything is created:
another job's target, a target in use, a source that cannot be read, a state
folder that does not fit the dataset.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from cfray.conversion.steps import copied_schema
from cfray.embedders.recipe import RECIPE_KEY, Recipe
from cfray.embedding.pending import check_made_by_two_lines, vectors_are_pending
from cfray.embedding.vectors import target_schema
from cfray.engine import failpoint, throttle
from cfray.errors import (
    CfrayError,
    ConfigError,
    EmbeddingError,
    EmbeddingUnavailable,
    LeaseHeld,
    LedgerMismatch,
    SourceError,
)
from cfray.finishing import index
from cfray.frames.schema import TYPES_KEY
from cfray.job.agreement import FINGERPRINTED, changed_keys
from cfray.job.spec import JobSpec
from cfray.planning import plan
from cfray.records.record import canonical
from cfray.report.facts import Report
from cfray.report.page import PAGE, render_page
from cfray.report.progress import Progress
from cfray.report.run import Run
from cfray.runtime.plurals import counted
from cfray.sources.base import Context
from cfray.sources.session import SourceSession
from cfray.target import commit, lease, restart
from cfray.target.commit import Target
from cfray.target.conditional_put import check_conditional_put
from cfray.target.creation import create_target
from cfray.target.ledger import Ledger
from cfray.target.state import Plan, State

logger = logging.getLogger("cfray")

#: Sections of the job file that ``quarantine replay`` and ``embed`` alone may find changed.
MAY_CHANGE_FOR_REPLAY = ("mapping", "embedding")
MAY_CHANGE_FOR_EMBED = ("embedding",)


def new_report(command: str, job: JobSpec) -> Report:
    """Begin a report."""
    versions = {name: version(name) for name in ("cfray", "ray", "pylance", "pyarrow")}
    return Report(
        command,
        job.name,
        job.target.uri,
        job.fingerprint,
        versions=versions,
        source=job.source.address,
        mapping={
            "id": job.mapping.model_dump(mode="json")["id"],
            **job.mapping.model_dump(mode="json", exclude_defaults=True),
        },
    )


@contextmanager
def held(
    command: str,
    job: JobSpec,
    progress: Progress,
    *,
    must_exist: bool = True,
    may_change: tuple[str, ...] = (),
) -> Iterator[Run]:
    """Take the target for the block: judge the lease, plan if nobody did, create it or take over.

    The source's session in which it was planned is open when the block begins, and is left at its
    end at the latest.

    Args:
        command: what the report calls this command.
        job: the job file.
        progress: where the run is shown.
        must_exist: refuse where there is no target yet.
        may_change: sections of the job file that may differ from the target's.

    Raises:
        CfrayError: refused (exit 2, nothing created) or held by another run (exit 5).
    """
    report = new_report(command, job)
    state = State(job.target.uri)
    with (
        tempfile.TemporaryDirectory(prefix="cfray-plan-") as scratch,
        closing(SourceSession(job.source)) as source_session,
    ):
        with refused(), ExitStack() as on_error:
            # a session that cannot be left is refused, too, as long as nothing is created
            on_error.push(source_session)
            ledger, saved_plan, run_plan = _check_and_plan(
                *(job, state, lambda: _plan(job, scratch, source_session)),
                must_exist=must_exist,
                may_change=may_change,
            )
            on_error.pop_all()
        with _holding(job, state, ledger, run_plan) as target:
            if saved_plan is None:
                run_plan = replace(run_plan, epoch=target.epoch)
            report.consistency = run_plan.consistency
            run = Run(
                *(job, state, target, run_plan, report, progress, source_session),
                holds_target=True,
            )
            with concluded(run):
                # a run that was stopped here and overtaken must not save its plan over the other
                # run's
                target.check_held(target.ledger())
                if saved_plan is not None and saved_plan.recipe != run_plan.recipe:
                    state.save_plan(run_plan)
                if saved_plan is None:
                    state.save_jobs([{"fingerprint": job.fingerprint, "agreed": job.agreed}])
                    state.save_scratch_files(scratch)
                    state.save_plan(run_plan)
                restart.forget_removal(state)
                failpoint.reach("plan")
                yield run


def _plan(job: JobSpec, scratch: str, source_session: SourceSession) -> Plan:
    """Plan in the source's session; its marks are older, so that no write falls between them."""
    budget = throttle.local_budget(job.source)
    marks = job.source.marks(Context(max_record=job.limits.max_document, throttle=budget)) or {}
    return replace(plan.make_plan(job, scratch, source_session.open()), marks=marks)


def _check_and_plan(
    job: JobSpec,
    state: State,
    make_plan: Callable[[], Plan],
    *,
    must_exist: bool,
    may_change: tuple[str, ...],
) -> tuple[Ledger | None, Plan | None, Plan]:
    """Refuse what can be refused before anything is created; plan where no run has planned yet.

    Returns:
        the target's ledger and its saved plan, None where there is none, and the plan to go by.
    """
    ledger, saved_plan = _open_state(job, state)
    check_agreement(job, ledger, may_change=may_change, before_swap=not must_exist)
    lease.wait_until_free(state.folder)
    if saved_plan is None:
        if must_exist:
            raise no_target(job)
        run_plan, recipe = make_plan(), None
    else:
        assert ledger is not None
        run_plan, recipe = _plan_again(job, saved_plan, ledger, may_replan=not must_exist)
    # an index that cannot be built is refused now
    schema = target_schema(job, run_plan.shape, recipe or run_plan.recipe)
    index.plan_indexes(job.index, run_plan.metric, run_plan.rows or 0, schema)
    if ledger is None:
        check_conditional_put(job.target.uri)
    return ledger, saved_plan, run_plan


def _plan_again(
    job: JobSpec, saved_plan: Plan, ledger: Ledger, *, may_replan: bool
) -> tuple[Plan, Recipe]:
    """Give a saved plan as it holds now, and the recipe of the vectors as they will be.

    Where the section ``embedding`` was changed before the swap, ``migrate`` plans the recipe anew;
    other commands refuse such a target, and a refused command changes no state.

    Raises:
        LedgerMismatch: an earlier version began the copy, and this one cannot go on with it.
        CfrayError: the new model cannot be loaded, or its server not be reached.
    """
    target = Target(job.target.uri, ledger.epoch)
    check_made_by_two_lines(job, saved_plan, target, ledger)
    run_plan = with_current_dimension(saved_plan, job)
    if not vectors_are_pending(job, saved_plan, target, ledger):
        return run_plan, target.recipe()
    if may_replan and saved_plan.fingerprint not in ("", job.fingerprint):
        run_plan = plan.with_other_vectors(job, run_plan)
    return run_plan, run_plan.recipe


def _open_state(job: JobSpec, state: State) -> tuple[Ledger | None, Plan | None]:
    """Read the ledger and the plan of a target, and refuse them where they do not fit each other.

    Returns:
        None and None where there is no target; a ledger without a plan where a run was killed
        right after it had created the target.

    Raises:
        LedgerMismatch: the dataset or the folder beside it is gone, or a restart was interrupted.
        LeaseHeld: a restart is at work.
    """
    uri = job.target.uri
    again = "start over with `cfray migrate JOB --restart`, which says what it removes"
    if restart.is_interrupted(state):
        lease.wait_until_free(state.folder)  # the restart may be at work
        raise LedgerMismatch(
            f"a --restart of {uri} was interrupted: what it holds is incomplete",
            "run `cfray migrate JOB --restart` again",
        )
    ledger, saved_plan = restart.find_remaining(uri), state.plan()
    if ledger is None and saved_plan is not None:
        raise LedgerMismatch(
            f"{state.folder.uri} holds the state of a run, but its dataset {uri} is gone",
            f"restore the dataset, or {again}",
        )
    if ledger is not None and ledger.entries and saved_plan is None:
        raise LedgerMismatch(
            f"{state.folder.uri}/plan.json is missing, but {uri} has committed shards",
            f"restore the folder beside the target from a backup, or {again}",
        )
    return ledger, saved_plan


@contextmanager
def _holding(job: JobSpec, state: State, ledger: Ledger | None, run_plan: Plan) -> Iterator[Target]:
    """Create the target or raise its epoch, and hold the lease for the block."""
    if ledger is None:
        types = canonical(run_plan.shape.metadata_types)
        # what stands in the column until the vectors are made: the source's, or zeros
        copied = Recipe("keep", run_plan.shape.dimension)
        metadata = {TYPES_KEY: types, RECIPE_KEY: copied.to_json()}
        schema = copied_schema(job, run_plan.shape)
        target = create_target(job.target.uri, schema, metadata, job.fingerprint)
    else:
        target = commit.take_over(job.target.uri)
    target_lease = lease.Lease(state.folder)
    target_lease.start(lambda: target.ledger().epoch == target.epoch)
    failpoint.reach("lease")
    try:
        yield target
    finally:
        target_lease.release()


@contextmanager
def looked_at(
    command: str, job: JobSpec, progress: Progress, *, may_change: tuple[str, ...] = ()
) -> Iterator[Run]:
    """Open a target, finished or not, without taking it.

    Args:
        command: what the report calls this command.
        job: the job file.
        progress: where the run is shown.
        may_change: sections of the job file that may differ from the target's.

    Raises:
        ConfigError: there is no target yet.
        LedgerMismatch: it belongs to another job, or its state does not fit its dataset.
    """
    state = State(job.target.uri)
    ledger, saved_plan = _open_state(job, state)
    if ledger is None or saved_plan is None:
        raise no_target(job)
    check_agreement(job, ledger, may_change=may_change, before_swap=True)
    target, report = Target(job.target.uri, ledger.epoch), new_report(command, job)
    report.consistency = saved_plan.consistency
    run_plan = with_current_dimension(saved_plan, job)
    with closing(SourceSession(job.source)) as source_session:
        yield Run(
            *(job, state, target, run_plan, report, progress, source_session),
            holds_target=False,
        )


def restart_target(job: JobSpec, say: Callable[[str], None], confirm: Callable[[], bool]) -> None:
    """Remove a target and the folder beside it, after saying what that is.

    Args:
        job: the job file.
        say: shows a sentence to the operator.
        confirm: asked before committed rows are removed.

    Raises:
        LeaseHeld: a live run holds the target.
        LedgerMismatch: something that cfray did not make stands at ``target.uri``.
        ConfigError: the operator did not confirm; nothing was removed.
    """
    lease.wait_until_free(State(job.target.uri).folder)
    inventory = restart.take_inventory(job.target.uri)
    if inventory.is_empty:
        say(f"--restart: there is nothing at {job.target.uri} to remove")
        return
    say(inventory.sentence(job.target.uri))
    if inventory.rows and not confirm():
        raise ConfigError(
            f"--restart would remove {counted(inventory.rows, 'row')}; nothing was removed",
            "add --yes to remove them, or give another target.uri",
        )
    # the operator may have thought for long: no run may have taken the target meanwhile
    lease.wait_until_free(State(job.target.uri).folder)
    restart.remove(job.target.uri, has_ledger=inventory.rows is not None)


def with_current_dimension(saved_plan: Plan, job: JobSpec) -> Plan:
    """Give a saved plan the width that the target's vectors have now: ``embed`` may change it."""
    dimension = Target(job.target.uri).recipe().dimension
    return replace(saved_plan, shape=replace(saved_plan.shape, dimension=dimension))


def no_target(job: JobSpec) -> ConfigError:
    """Say that the target does not exist yet."""
    return ConfigError(f"there is no target at {job.target.uri} yet", "run cfray migrate first")


@contextmanager
def refused() -> Iterator[None]:
    """Turn errors that come before anything is created into refusals (exit 2).

    A source that does not answer is refused, too; an embedding server that may answer later is
    not (exit 1): the same command tries it again.

    Raises:
        ConfigError: a source, or an embedding server or model, refused.
        EmbeddingUnavailable: the embedding server does not answer now.
    """
    try:
        yield
    except SourceError as error:
        raise ConfigError(error.what, error.remedy) from error
    except EmbeddingError as error:
        if isinstance(error, EmbeddingUnavailable):
            raise EmbeddingUnavailable(
                f"{error.what}; nothing was created or changed", error.remedy, error.retry_after
            ) from error
        raise ConfigError(error.what, error.remedy) from error


@contextmanager
def concluded(run: Run) -> Iterator[None]:
    """Save the report at every end of the block, and let errors through after that."""
    try:
        yield
    except LeaseHeld:
        raise  # the report belongs to the run that has the target now
    except CfrayError as error:
        with suppress(CfrayError):  # what cannot be counted now stays as it was counted last
            run.count()
        run.report.fail(error)
        _try_to_save_report(run)
        raise
    except BaseException as error:
        remedy = "this is a fault of cfray's; what is committed stays"
        run.report.fail(CfrayError(f"{type(error).__name__}: {error}", remedy))
        _try_to_save_report(run)
        raise
    _save_report(run)


def _try_to_save_report(run: Run) -> None:
    """Save the report of a command that failed; a full disk must not hide why it failed."""
    try:
        _save_report(run)
    except CfrayError as error:
        logger.warning("the report of this command could not be saved: %s", error.what)


def _save_report(run: Run) -> None:
    """Keep the report; it is the latest one unless another command is writing to the target."""
    report = run.report
    report.name_missing_checks(
        "the command stopped before it"
        if report.verdict.startswith("stopped")
        else f"cfray {report.command} makes no checks"
    )
    holder = None if run.holds_target else lease.read(run.state.folder)
    is_latest = holder is None or holder.has_ended
    run.report.save(run.state, as_latest=is_latest)
    if is_latest:
        run.state.folder.publish(PAGE, render_page(report).encode())


def check_target(job: JobSpec) -> None:
    """Refuse a target that a migration with this job could not write to.

    Raises:
        LedgerMismatch: it was made by another job, or its state does not fit its dataset.
    """
    ledger, _ = _open_state(job, State(job.target.uri))
    check_agreement(job, ledger, before_swap=True)


def check_agreement(
    job: JobSpec,
    ledger: Ledger | None,
    *,
    may_change: tuple[str, ...] = (),
    before_swap: bool = False,
) -> None:
    """Refuse a job that did not make the target.

    Args:
        job: of the command.
        ledger: of the target; None where there is none.
        may_change: sections of the job file that may differ.
        before_swap: whether ``embedding`` may differ as long as no vector was made.

    Raises:
        LedgerMismatch: names every key that changed.
    """
    if ledger is None or job.fingerprint in ledger.fingerprints:
        return
    # job.json may also hold a job that was refused later: the ledger says which were accepted
    agreements = {entry["fingerprint"]: entry["agreed"] for entry in State(job.target.uri).jobs()}
    accepted = agreements.get(ledger.fingerprints[-1], {})
    if before_swap and accepted and _awaits_vectors(job, ledger):
        _check_other_vectors(job, accepted["embedding"])
        may_change = (*may_change, "embedding")
    changed = [
        line
        for key in FINGERPRINTED
        if key not in may_change
        for line in changed_keys(accepted.get(key), job.agreed.get(key), key)
    ]
    if may_change and accepted and not changed:
        return
    if not accepted:
        changed = [f"unknown, for {job.target.uri}.cfray/job.json is missing or damaged"]
    raise LedgerMismatch(
        f"{job.target.uri} was made by another job; changed: " + "; ".join(changed),
        "undo the change, or give another target.uri; to retry quarantined rows with a corrected "
        "mapping, run cfray quarantine replay; to make the vectors anew, cfray embed",
    )


def _awaits_vectors(job: JobSpec, ledger: Ledger) -> bool:
    """Tell whether vectors are to be made that no swap has brought yet.

    Without a plan the target has the width that another section ``embedding`` gave it.
    """
    saved_plan = State(job.target.uri).plan()
    return saved_plan is not None and vectors_are_pending(
        job, saved_plan, Target(job.target.uri), ledger
    )


def _check_other_vectors(job: JobSpec, accepted: dict[str, Any]) -> None:
    """Refuse another section ``embedding`` that needs another copy.

    Raises:
        LedgerMismatch: the copy cut other chunks, or did not take the source's vectors along.
    """
    chunk = job.embedding.chunk
    if accepted.get("chunk") != (None if chunk is None else chunk.model_dump(mode="json")):
        raise LedgerMismatch(
            f"embedding.chunk was changed, and the records in {job.target.uri} are cut already",
            "undo the change, or give another target.uri",
        )
    if accepted["policy"] == "regenerate" and job.embedding.policy != "regenerate":
        raise LedgerMismatch(
            f"embedding.policy is {job.embedding.policy}, and {job.target.uri} was copied without "
            "the source's vectors (policy regenerate)",
            "use policy regenerate, or give another target.uri",
        )
