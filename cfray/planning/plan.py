"""Plan: divide the source, look at a sample, and say what would happen; write nothing.

The durable half (``Plan``) is saved once and reused on resume, so that shard
numbers never move.  The other half (``Forecast``) is for the operator: how each
field will land, what would be lossy, what the sample would quarantine.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import closing
from dataclasses import replace

from cfray.engine import throttle
from cfray.errors import ConfigError
from cfray.job.spec import JobSpec
from cfray.planning.forecast import Forecast
from cfray.planning.foresee import foresee
from cfray.planning.model_forecast import ModelForecast
from cfray.planning.sample import sample
from cfray.planning.shape import metric_of, work_out_shape
from cfray.sources.base import Context
from cfray.target.state import Plan


def forecast(job: JobSpec) -> tuple[Plan, Forecast]:
    """Plan for the operator's eyes only.

    What the source wrote down for its shards is thrown away.
    """
    with tempfile.TemporaryDirectory(prefix="cfray-plan-") as desk:
        return make_plan(job, desk)


def make_plan(job: JobSpec, scratch: str) -> tuple[Plan, Forecast]:
    """Divide the source and forecast the run.

    Args:
        job: the job file.
        scratch: an empty folder for what the source writes down for its shards (lists of ids); it
            goes where the plan goes.

    Raises:
        ConfigError: a path of the mapping that no record has, no dimension, something lossy under
            ``strict``.
        SourceError: the source cannot be read.
    """
    with job.source.session() as session:
        context = Context(
            session=session,
            scratch=scratch,
            max_record=job.limits.max_document,
            throttle=throttle.local_budget(job.source),
        )
        shards = sorted(job.source.shards(context), key=lambda shard: shard.id)
        described = job.source.describe(context, shards)
        begin = time.perf_counter()
        batches, rejects = sample(job, shards, context)
        reading = time.perf_counter() - begin
    layout = work_out_shape(job, described, batches)
    with closing(ModelForecast(job)) as embedding:
        recipe = embedding.recipe(layout)
        layout = replace(layout, dimension=recipe.dimension, source_dimension=layout.dimension)
        forecast = foresee(job, described, layout, batches, rejects)
        embedding.look(forecast, described.rows)
    rows = described.rows
    if described.size and forecast.sampled:
        seconds = (
            (reading + forecast.seconds) / forecast.sampled * 1.5
        )  # what writing and hashing add to reading and mapping
        forecast.seconds = (
            8 + seconds * (rows or 0) / (os.cpu_count() or 1) + forecast.embedding.get("seconds", 0)
        )  # 8 s: Ray's own start
    if job.strict and forecast.lossy:
        raise ConfigError(
            "strict is true and this run would lose something: " + "; ".join(forecast.lossy),
            "map or leave out these fields, or set strict: false",
        )
    notes = (*described.notes, *forecast.notes)
    facts = {one.name: one.facts for one in described.collections}
    metric = metric_of(described, layout.vector)
    made = Plan(
        shards,
        layout,
        described.consistency,
        rows,
        described.exact,
        described.size,
        metric,
        notes,
        facts,
        recipe,
        embedding.expected,
    )
    return made, forecast
