"""``cfray embed``: what can be made anew on a finished target, and what is to be done there.

``embed`` then does it, as it does for a migration.
"""

from __future__ import annotations

from typing import Any

from cfray.embedders.recipe import Recipe
from cfray.embedding.vectors import made_fields
from cfray.errors import ConfigError
from cfray.planning.model_forecast import ModelForecast
from cfray.planning.vector_columns import check_column_names
from cfray.report.run import Run
from cfray.runtime.plurals import counted
from cfray.target.ledger import EntryKind

_NOTHING_TO_DO = "the vectors are already what the job file says"


def check_reembeddable(run: Run) -> None:
    """Refuse what ``cfray embed`` cannot do, before anything is started.

    Raises:
        ConfigError: the target is not finished, or the job asks for what it does not hold.
    """
    spec, ledger, uri = run.job.embedding, run.target.ledger(), run.job.target.uri
    missing_shards = len(run.plan.shards) - len(ledger.names(EntryKind.SHARD))
    if missing_shards or EntryKind.HEADERS not in ledger.entries:
        missing = counted(missing_shards, "shard is", "shards are")
        raise ConfigError(
            f"{uri} is not finished ({missing} missing)"
            if missing_shards
            else f"{uri} is not finished (its vectors or headers are missing)",
            "run cfray migrate with the target's own job file first",
        )
    if not spec.makes_vectors:
        raise ConfigError(
            "embedding.policy is keep: there is nothing for cfray embed to do",
            "say regenerate or remap, and with which model; or reduce; or columns",
        )
    if spec.policy == "keep" and run.target.recipe().policy != "keep":
        raise ConfigError(
            f"embedding.policy is keep, and a model made the vectors of {uri}",
            "say regenerate or remap with that model, and add reduce or columns to it",
        )
    accepted = _accepted_embedding(run)
    if spec.policy == "keep" and run.target.recipe().reduction and not _is_same_job(run):
        raise ConfigError(
            f"embedding.policy is keep, and the vectors of {uri} are reduced already: the source's "
            "are gone from it",
            "migrate into a new target.uri with this job file",
        )
    check_column_names(spec.columns, run.plan.shape.vectors)
    _check_chunks(run, accepted)
    _check_columns(run, accepted)


def _check_chunks(run: Run, accepted: dict[str, Any]) -> None:
    """Refuse other chunks than those that the copy cut: an embedding cuts no text."""
    chunk = run.job.embedding.chunk
    if accepted.get("chunk") != (None if chunk is None else chunk.model_dump(mode="json")):
        raise ConfigError(
            "embedding.chunk: cfray embed keeps the chunks as they were cut",
            "leave it as the target has it, or migrate into a new target.uri",
        )


def _check_columns(run: Run, accepted: dict[str, Any]) -> None:
    """Refuse to leave a column behind that another model made."""
    left_out = accepted.get("columns", {}).keys() - run.job.embedding.columns.keys()
    if left_out:
        raise ConfigError(
            f"embedding.columns leaves out {', '.join(sorted(left_out))}, which the target has: "
            "its vectors would be those of another model",
            "name these columns, too, or migrate into a new target.uri",
        )


def _is_same_job(run: Run) -> bool:
    """Tell whether the target accepted this job last."""
    return run.target.ledger().fingerprints[-1] == run.job.fingerprint


def _accepted_embedding(run: Run) -> dict[str, Any]:
    """Give the section ``embedding`` of the job that made the vectors, as it was agreed."""
    agreed = {job["fingerprint"]: job["agreed"] for job in run.state.jobs()}
    embedding: dict[str, Any] = agreed.get(run.target.ledger().fingerprints[-1], {}).get(
        "embedding", {}
    )
    return embedding


def plan_reembedding(run: Run, model: ModelForecast | None = None) -> Recipe | None:
    """Load the new model and give the recipe of the new vectors; None if they are as the job says.

    Args:
        run: a command and its target.
        model: of the job, for a caller that goes on to use it.

    Raises:
        ConfigError: the model cannot be loaded.
        EmbeddingError: the embedding server refuses.
        EmbeddingUnavailable: the embedding server does not answer.
    """
    old, is_same_job = run.target.recipe(), _is_same_job(run)
    if is_same_job and run.job.embedding.policy == "keep":
        run.report.notes.append(_NOTHING_TO_DO)
        return None
    recipe = (model or ModelForecast(run.job)).plan_recipe(old.dimension)
    makes_the_same = (recipe.policy, recipe.model, recipe.dimension) == (
        old.policy,
        old.model,
        old.dimension,
    )
    names = {field.name for field in made_fields(run.job.embedding, recipe)}
    has_columns = names <= set(run.target.open().schema.names)
    if makes_the_same and has_columns and is_same_job:
        run.report.notes.append(_NOTHING_TO_DO)
        return None
    return recipe
