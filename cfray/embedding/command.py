"""The part of a run that has to do with models.

The pool of actors up, what must be learned learned, what they did told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from cfray.conversion.embed import Embed
from cfray.embedders.recipe import Recipe
from cfray.embedding import learn
from cfray.embedding.learn import Learning, needed, note
from cfray.embedding.pieces import Rewriting
from cfray.embedding.sample import Drawing, from_source
from cfray.embedding.swap import draw_from, name_of, rewrite
from cfray.engine.embedder_pool import EmbedderPool, running
from cfray.errors import ConfigError
from cfray.job.mapping import rule_paths
from cfray.job.spec import JobSpec
from cfray.planning.model_forecast import ModelForecast
from cfray.report.run import Run
from cfray.sources.base import Context
from cfray.target.books import RowOrigins
from cfray.target.ledger import HEADERS


@contextmanager
def running_pool(job: JobSpec, recipe: Recipe) -> Iterator[EmbedderPool | None]:
    """Have the embedding actors up for the block; None where no model is needed."""
    if recipe.model is None:
        yield None
        return
    dtype = recipe.model.dtype if job.embedding.endpoint is None else job.embedding.dtype
    with running(job.embedding.model_copy(update={"dtype": dtype}), recipe.model) as handle:
        yield handle


@contextmanager
def pool_for(run: Run) -> Iterator[EmbedderPool | None]:
    """Have the actors up that the target's own recipe needs.

    Raises:
        ConfigError: the job's policy is not the one the target's vectors were made by.
    """
    recipe = run.target.recipe()
    if recipe.policy != run.job.embedding.policy:
        raise ConfigError(
            f"the vectors of {run.job.target.uri} were made by policy {recipe.policy}, the job file says {run.job.embedding.policy}",
            "use the job file of the last cfray embed (or migrate)",
        )
    with running_pool(run.job, recipe) as handle:
        yield handle


def learned(run: Run, context: Context, handle: EmbedderPool | None, *, force: bool) -> Recipe:
    """Learn the map and the projection that the job needs and no earlier run has.

    Note them in the dataset.
    """
    recipe = run.target.recipe()
    if not needed(run.job, recipe):
        return recipe
    job, shards = run.job, run.plan.shards
    learning = Learning(
        job,
        run.target,
        run.report,
        lambda most: from_source(Drawing(job, run.plan.layout, context, most), shards),
        run.plan.rows or 0,
        force,
    )
    found = run.timed("learn", lambda: learn.fit(learning, recipe, handle))
    note(run.target, found)
    return found


def embed_from_text(run: Run, handle: EmbedderPool | None) -> Embed:
    """Give what finishes a replayed record.

    Its text embedded exactly, never its old vector mapped (the map may be from another space by
    now).
    """
    recipe, job = run.target.recipe(), run.job
    if recipe.policy == "remap":
        recipe = replace(recipe, policy="regenerate")
        job = job.model_copy(
            update={
                "embedding": job.embedding.model_copy(
                    update={"policy": "regenerate", "remap": None}
                )
            }
        )
        job._agreed = run.job.agreed  # noqa: SLF001  # it is the same job
    return Embed(job, run.plan.layout, recipe, handle)


def report_pool(run: Run, handle: EmbedderPool | None) -> None:
    """Note what the actors did in this run."""
    if handle is None:
        return
    figures = handle.figures()
    counts = {name: float(count) for name, count in sorted(figures.counts.items())}
    run.report.pool = {
        "actors": figures.actors,
        "loaded": figures.loaded,
        "busy": round(figures.busy, 2),
        "alive": round(figures.alive, 2),
        **counts,
    }
    share = figures.busy / figures.alive if figures.alive else 0.0
    run.report.notes.append(
        f"embedding: {figures.actors} actors, models loaded {figures.loaded} times, {share:.0%} busy, "
        f"{figures.counts['texts_embedded']:,} texts through the model, {figures.counts['texts_repeated']:,} repeated, {figures.counts['cache_hits']:,} from the cache"
    )


def report_gate(run: Run) -> None:
    """Note what the gate said of the map in use.

    Whether the stored vectors are the expected model's.
    """
    gate = run.target.recipe().gate
    if gate.get("forced"):
        run.report.notes.append(
            f"--force: the map is used although the gate refuses it ({gate['lower']:.3f}, {gate['min_quality']} was asked for)"
        )
    elif gate:
        detail = f"{gate['lower']:.3f} at least of what the new model finds is found among {gate['rows']:,} records; {gate['min_quality']} was asked for"
        run.report.check("gate of the map", "pass", detail)
    found = run.plan.expected
    if found:
        run.report.check(
            "vectors by the expected model",
            "pass" if found["median"] >= found["needed"] else "fail",
            f"cosine {found['median']:.4f} (median), {found['least']:.4f} (least) of {found['sample']:.0f} records; {found['needed']} is needed",
        )


def reembed_target(run: Run, *, force: bool) -> None:
    """Make every vector of the target anew that is not yet what the job file says.

    Resumes what an earlier command left.

    Raises:
        ProofFailed: the gate refuses the map.
    """
    old, ledger = run.target.recipe(), run.target.ledger()
    layout = run.plan.layout
    recipe = ModelForecast(run.job).recipe(replace(layout, dimension=old.dimension))
    if (recipe.policy, recipe.model, recipe.dimension) == (
        old.policy,
        old.model,
        old.dimension,
    ) and ledger.fingerprints[-1] == run.job.fingerprint:
        run.report.notes.append("the vectors are what the job file says already")
        return
    job = run.job.model_copy(
        update={"embedding": run.job.embedding.model_copy(update={"chunk": None})}
    )  # chunks are frames already
    job._agreed = run.job.agreed  # noqa: SLF001  # it is the same job
    name = name_of(ledger)
    desk = run.state.scratch
    wanted = replace(layout, dimension=recipe.dimension, source_dimension=old.dimension)
    with running_pool(job, recipe) as handle:
        kept = desk.read(f"{name}-{job.fingerprint[:16]}.json")
        if kept is not None:
            recipe = Recipe.from_json(json.loads(kept))
        rewriting = Rewriting(
            Embed(job, wanted, recipe, handle), run.target.open().version, name, old
        )
        if needed(job, recipe):
            titled = bool(rule_paths(job.mapping.title))
            learning = Learning(
                job,
                run.target,
                run.report,
                lambda most: draw_from(rewriting, most, titled=titled),
                run.report.counts["frames"],
                force,
            )
            recipe = run.timed("learn", lambda: learn.fit(learning, recipe, handle))
            desk.publish(f"{name}-{job.fingerprint[:16]}.json", recipe.to_json().encode())
        rewriting = replace(rewriting, embed=replace(rewriting.embed, recipe=recipe))
        receipt = run.timed(
            "embed", lambda: rewrite(rewriting, run.target, RowOrigins(run.plan, ledger))
        )
        report_pool(run, handle)
    run.report.counts |= {item: receipt.counts[item] for item in ("pieces", "pieces_adopted")}
    desk.remove(f"{name}-{job.fingerprint[:16]}.json")


def check_reembeddable(run: Run) -> None:
    """Refuse what ``renew`` cannot do, before anything is started.

    Raises:
        ConfigError: the target is not finished, or the job asks for more than its vectors.
    """
    spec, ledger = run.job.embedding, run.target.ledger()
    unfinished = len(run.plan.shards) - sum(name.isdigit() for name in ledger.entries)
    if unfinished or HEADERS not in ledger.entries:
        raise ConfigError(
            f"{run.job.target.uri} is not finished ({unfinished} shards are missing)",
            "run cfray migrate with its own job file first",
        )
    if spec.policy == "keep":
        raise ConfigError(
            "embedding.policy is keep: there is nothing for cfray embed to do",
            "say regenerate or remap, and with which model",
        )
    if spec.columns:
        raise ConfigError(
            "embedding.columns: cfray embed rewrites the column vector alone",
            "leave columns out, or migrate into a new target.uri",
        )
    if spec.on_long_text == "error":
        raise ConfigError(
            "embedding.on_long_text: error would put rows of a finished dataset into quarantine",
            "use truncate or chunk_mean",
        )
