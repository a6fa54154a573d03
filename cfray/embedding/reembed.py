"""``cfray embed``: make the vectors of a finished target anew, in five steps.

1. Plan: load the new model, and see whether there is anything to do.
2. Learn: a map or a projection, where the job asks for one.
3. Compute: the vectors of each piece; a piece's file is kept until the swap.
4. Join: a new data file for each fragment, and one receipt for all of them.
5. Swap: one commit puts all new files in place.

A kill at any moment costs the pieces in flight: the same command goes on where it stopped.
Readers of the old version are not disturbed, and the old version stays readable.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

from cfray.conversion.embed import Embed
from cfray.copying.write import Tally, new_nonce, publish
from cfray.embedders.recipe import Recipe
from cfray.embedding.join import JoinedFragment, JoinFragment
from cfray.embedding.learn import learn_missing, needs_learning
from cfray.embedding.learn_map import Learning
from cfray.embedding.line import EmbeddingLine
from cfray.embedding.pieces import Piece, Reembedding, divide, group_by_fragment
from cfray.embedding.sample import TargetSampling, draw_from_target
from cfray.embedding.swap import drop_vector_index, swap_vectors
from cfray.engine import failpoint
from cfray.engine.tasks import run_tasks
from cfray.errors import ConfigError
from cfray.frames.digests import add_sums
from cfray.job.mapping import rule_paths
from cfray.planning.model_forecast import ModelForecast
from cfray.report.run import Run
from cfray.target.ledger import EntryKind
from cfray.target.origins import RowOrigins
from cfray.target.receipts import EmbedReceipt


def check_reembeddable(run: Run) -> None:
    """Refuse what ``cfray embed`` cannot do, before anything is started.

    Raises:
        ConfigError: the target is not finished, or the job asks for more than its vectors.
    """
    spec, ledger = run.job.embedding, run.target.ledger()
    missing_shards = len(run.plan.shards) - len(ledger.names(EntryKind.SHARD))
    if missing_shards or EntryKind.HEADERS not in ledger.entries:
        raise ConfigError(
            f"{run.job.target.uri} is not finished ({missing_shards} shards are missing)",
            "run cfray migrate with the target's own job file first",
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


def plan_reembedding(run: Run) -> Recipe | None:
    """Load the new model and give the recipe of the new vectors; None if they are as the job says.

    Raises:
        ConfigError: the model cannot be loaded.
        EmbeddingError: the embedding server refuses.
        EmbeddingUnavailable: the embedding server does not answer.
    """
    old, ledger = run.target.recipe(), run.target.ledger()
    recipe = ModelForecast(run.job).plan_recipe(old.dimension)
    makes_the_same = (recipe.policy, recipe.model, recipe.dimension) == (
        old.policy,
        old.model,
        old.dimension,
    )
    if makes_the_same and ledger.fingerprints[-1] == run.job.fingerprint:
        run.report.notes.append("the vectors are already what the job file says")
        return None
    return recipe


def reembed_target(run: Run, recipe: Recipe, *, force: bool) -> None:
    """Learn, compute, join and swap; go on with what an earlier command left.

    Raises:
        ProofFailed: the gate refuses the map.
        CfrayError: what is computed is kept, and the same command goes on.
    """
    # The target's frames were cut into chunks when they were copied.
    embedding = run.job.embedding.model_copy(update={"chunk": None})
    job = run.job.with_embedding(embedding)
    old = run.target.recipe()
    shape = replace(run.plan.shape, dimension=recipe.dimension, source_dimension=old.dimension)
    name = run.target.ledger().next_name(EntryKind.EMBED)
    version = run.target.open().version
    line = EmbeddingLine.of(run, recipe)
    reembedding = Reembedding(Embed(job, shape, recipe), version, name, old)
    reembedding = _learn(run, reembedding, line, force=force)
    receipt = run.timed("embed", lambda: _embed_all(run, reembedding, line))
    line.report(run)
    run.report.counts |= {count: receipt.counts[count] for count in ("pieces", "pieces_adopted")}
    run.state.scratch.remove(_recipe_file(reembedding))


def _learn(run: Run, reembedding: Reembedding, line: EmbeddingLine, *, force: bool) -> Reembedding:
    """Learn a map or a projection where the job asks for one, or read what was learned before."""
    embed, scratch, file = reembedding.embed, run.state.scratch, _recipe_file(reembedding)
    saved_recipe = scratch.read(file)
    recipe = embed.recipe if saved_recipe is None else Recipe.from_json(json.loads(saved_recipe))
    if needs_learning(embed.job, recipe):
        recipe = _learn_from_target(run, reembedding, recipe, line, force=force)
        scratch.publish(file, recipe.to_json().encode())
    return replace(reembedding, embed=replace(embed, recipe=recipe))


def _learn_from_target(
    run: Run, reembedding: Reembedding, recipe: Recipe, line: EmbeddingLine, *, force: bool
) -> Recipe:
    """Learn from a sample of the target's own documents."""
    job = reembedding.embed.job
    has_titles = bool(rule_paths(job.mapping.title))
    uri, version = reembedding.uri, reembedding.version
    learning = Learning(
        job,
        run.target,
        run.report,
        draw=lambda max_rows: draw_from_target(TargetSampling(uri, version, max_rows, has_titles)),
        rows=run.report.counts["frames"],
        force=force,
    )
    return run.timed("learn", lambda: learn_missing(learning, recipe, line))


def _embed_all(run: Run, reembedding: Reembedding, line: EmbeddingLine) -> EmbedReceipt:
    """Compute, join and swap."""
    pieces = divide(reembedding)
    adopted = _compute(line, reembedding, pieces)
    joined = _join(run, reembedding, pieces)
    receipt = _receipt(reembedding, joined, adopted=adopted, pieces=len(pieces))
    publish(run.state, receipt, [])
    failpoint.reach("joined")
    run.target.check_held(run.target.ledger())
    drop_vector_index(run.target)
    failpoint.reach("unindexed")
    run.state.remember_job(reembedding.embed.job.fingerprint, reembedding.embed.job.agreed)
    swap_vectors(reembedding, run.target, receipt, joined)
    failpoint.reach("embedded")
    for file in reembedding.scratch.list_names():
        reembedding.scratch.remove(file)
    return receipt


def _compute(line: EmbeddingLine, reembedding: Reembedding, pieces: Sequence[Piece]) -> int:
    """Compute the pieces that no earlier command computed; give the number of the others."""
    computed_files = set(reembedding.scratch.list_names())
    missing_pieces = [piece for piece in pieces if piece.file not in computed_files]
    with closing(line.compute(reembedding, missing_pieces)) as computed_pieces:
        for _ in computed_pieces:
            failpoint.reach("piece")
    return len(pieces) - len(missing_pieces)


def _join(run: Run, reembedding: Reembedding, pieces: Sequence[Piece]) -> list[JoinedFragment]:
    """Write the new data file of every fragment."""
    join = JoinFragment(reembedding, RowOrigins(run.plan, run.target.ledger()))
    return list(run_tasks(join, group_by_fragment(pieces)))


def _receipt(
    reembedding: Reembedding, joined: Sequence[JoinedFragment], *, adopted: int, pieces: int
) -> EmbedReceipt:
    """Add up the fragments to a single receipt."""
    tally = Tally()
    sums: dict[str, int] = {}
    counts: Counter[str] = Counter({"pieces": pieces, "pieces_adopted": adopted})
    for fragment in joined:
        counts.update(fragment.counts)
        sums = add_sums(sums, fragment.sums)
        tally.merge(fragment.collections)
    return EmbedReceipt(
        name=reembedding.name,
        nonce=new_nonce(),
        files=[file for fragment in joined for file in fragment.files],
        centroids=tally.centroids(),
        counts=dict(counts),
        vector_sums={entry: {"vector": total} for entry, total in sums.items()},
        size=sum(fragment.size for fragment in joined),
    )


def _recipe_file(reembedding: Reembedding) -> str:
    """Name the file that keeps what was learned until the swap commits it."""
    return f"{reembedding.name}-{reembedding.embed.job.fingerprint[:16]}.json"
