"""How the vectors of replayed records are made: from their text, whatever the policy.

A replay does not map a record's old vector: since the record was quarantined, the map may
have been learned anew, from another space than the old vector's.
"""

from __future__ import annotations

from dataclasses import replace

from cfray.conversion.embed import Embed
from cfray.engine.embedder_pool import EmbedderPool
from cfray.report.run import Run


def embed_from_text(run: Run, pool: EmbedderPool | None) -> Embed:
    """Give the step that embeds replayed records, with ``remap`` turned into ``regenerate``."""
    recipe, job = run.target.recipe(), run.job
    if recipe.policy == "remap":
        recipe = replace(recipe, policy="regenerate")
        embedding = job.embedding.model_copy(update={"policy": "regenerate", "remap": None})
        job = job.with_embedding(embedding)
    return Embed(job, run.plan.shape, recipe, pool)
