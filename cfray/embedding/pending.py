"""Whether the vectors that a job asks for are still to be made.

A target whose shards are all there is *copied* until the swap has put its vectors in place, and
*complete* after it.  The swap is an entry of the ledger.  Earlier versions made the vectors while
they copied: then the recipe in the dataset is the plan's.
"""

from __future__ import annotations

from typing import Any

from cfray.errors import ConfigError, LedgerMismatch
from cfray.job.agreement import agreed_to_make_vectors
from cfray.job.spec import JobSpec
from cfray.report.run import Run
from cfray.runtime.plurals import counted
from cfray.target.commit import Target
from cfray.target.ledger import EntryKind, Ledger
from cfray.target.state import Plan, State

#: Name of the check in the report.
CHECK = "vectors as the job asks"


def vectors_are_pending(job: JobSpec, plan: Plan, target: Target, ledger: Ledger) -> bool:
    """Tell whether the second line of a migration is still to run, or to run to its end.

    Asked is the job that the target accepted last.  A job that changes the section ``embedding``
    before the swap is accepted by the swap; one that a replay tries changes no vector.

    Args:
        job: of the command.
        plan: of the migration.
        target: of the command.
        ledger: of the target.
    """
    if _has_embed(ledger):
        return False
    embedding = _accepted_embedding(job, target, ledger)
    return agreed_to_make_vectors(embedding) and not _are_made(embedding, plan, target)


def _has_embed(ledger: Ledger) -> bool:
    return EntryKind.EMBED in {entry.kind for entry in ledger.entries.values()}


def _accepted_embedding(job: JobSpec, target: Target, ledger: Ledger) -> dict[str, Any]:
    """Give the section ``embedding`` of the job that the target accepted last, as it was agreed.

    Where ``job.json`` does not know that job, the command's own stands for it.
    """
    agreed: dict[str, Any] = job.agreed
    if job.fingerprint not in ledger.fingerprints:
        jobs = {entry["fingerprint"]: entry["agreed"] for entry in State(target.uri).jobs()}
        agreed = jobs.get(ledger.fingerprints[-1], agreed)
    embedding: dict[str, Any] = agreed["embedding"]
    return embedding


def _are_made(embedding: dict[str, Any], plan: Plan, target: Target) -> bool:
    """Tell whether an earlier version made the vectors while it copied.

    A copied target has vectors as wide as the source's, and no column that the embedding brings.
    """
    recipe = target.recipe()
    is_as_copied = (recipe.policy, recipe.dimension, recipe.reduction) == (
        "keep",
        plan.shape.read_dimension,
        "",
    )
    columns = {f"x_vector_{name}" for name in embedding.get("columns", {})}
    has_columns = bool(columns) and columns <= set(target.open().schema.names)
    return has_columns or not is_as_copied


def check_made_by_two_lines(job: JobSpec, plan: Plan, target: Target, ledger: Ledger) -> None:
    """Refuse to go on with a copy that an earlier version began, which embedded while it copied.

    Raises:
        LedgerMismatch: shards are missing, and those that are there have their vectors already.
    """
    missing = len(plan.shards) - len(ledger.names(EntryKind.SHARD))
    embedding = _accepted_embedding(job, target, ledger)
    is_made = agreed_to_make_vectors(embedding) and _are_made(embedding, plan, target)
    if missing and is_made and not _has_embed(ledger):
        raise LedgerMismatch(
            f"an earlier version of cfray began {target.uri} and made its vectors while it copied; "
            f"{missing} of {len(plan.shards)} shards are missing",
            "finish it with that version, or start over with `cfray migrate JOB --restart`",
        )


def check_complete(run: Run) -> None:
    """Refuse a command that needs a finished target.

    Raises:
        ConfigError: shards or vectors are missing.
    """
    ledger, uri = run.target.ledger(), run.job.target.uri
    missing = len(run.plan.shards) - len(ledger.names(EntryKind.SHARD))
    if missing:
        raise ConfigError(
            f"{uri} is not finished ({missing} of {len(run.plan.shards)} shards are missing)",
            "run cfray migrate with the target's own job file first",
        )
    if vectors_are_pending(run.job, run.plan, run.target, ledger):
        raise ConfigError(
            f"{uri} is copied, and its vectors are still to be made",
            "run cfray migrate with the target's own job file first",
        )


def report_vectors(run: Run) -> None:
    """Check that the vectors are those that the job asks for."""
    ledger = run.target.ledger()
    if vectors_are_pending(run.job, run.plan, run.target, ledger):
        run.report.check(
            CHECK,
            "fail",
            "the records are copied, their vectors are still to be made: cfray migrate goes on, "
            "without the source",
        )
        return
    detail = vectors_now(run)
    if _last_embedding(run, ledger) != run.job.agreed["embedding"]:
        run.report.check(
            CHECK, "not_run", f"{detail}: as another job file asked later; verify with that one"
        )
        return
    run.report.check(CHECK, "pass", detail)


def vectors_now(run: Run) -> str:
    """Say how the vectors that the target has were made."""
    recipe = run.target.recipe()
    model = f" by {recipe.model.name}" if recipe.model else ""
    return f"policy {recipe.policy}{model}, {counted(recipe.dimension, 'number')}"


def _last_embedding(run: Run, ledger: Ledger) -> dict[str, Any]:
    """Give the section ``embedding`` of the job that the target accepted last, as it was agreed."""
    jobs = {entry["fingerprint"]: entry["agreed"] for entry in run.state.jobs()}
    embedding: dict[str, Any] = jobs.get(ledger.fingerprints[-1], run.job.agreed)["embedding"]
    return embedding
