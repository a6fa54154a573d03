"""Plan: divide the source, look at a sample of it, and say what would happen; write nothing.

The durable half, ``Plan``, is saved once and reused on resume, so that the numbers of the shards
never move.  The other half, ``Forecast``, is for the operator: how each field will land, what
would be lossy, what the sample would send to quarantine.
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
from cfray.planning.forecast import Forecast, make_forecast
from cfray.planning.metric import choose_metric
from cfray.planning.model_forecast import ModelForecast
from cfray.planning.sample import check_sample, read_sample
from cfray.planning.shape import work_out_shape
from cfray.sources.base import Context
from cfray.target.state import Plan

#: Seconds that Ray takes to start (Ray 2.60 on a laptop).
_RAY_START = 8
#: What writing and hashing add to the time of reading and converting.
_WRITING = 1.5


def preview(job: JobSpec) -> tuple[Plan, Forecast]:
    """Plan for the operator to look at; what the source wrote down for its shards is removed.

    Raises:
        CfrayError: as ``make_plan``.
    """
    with tempfile.TemporaryDirectory(prefix="cfray-plan-") as scratch:
        return make_plan(job, scratch)


def make_plan(job: JobSpec, scratch: str) -> tuple[Plan, Forecast]:
    """Divide the source and forecast the run.

    Args:
        job: the job file.
        scratch: an empty folder for what the source writes down for its shards (lists of ids); it
            goes where the plan goes.

    Raises:
        ConfigError: the mapping names a field that no record has, the vectors have no dimension or
            another than the job file says, or something would be lost under ``strict``.
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
        description = job.source.describe(context, shards)
        begin = time.perf_counter()
        sample = read_sample(job, shards, context)
        reading = time.perf_counter() - begin
    check_sample(description, sample)
    shape = work_out_shape(job, description, sample.batches)
    with closing(ModelForecast(job)) as model:
        recipe = model.plan_recipe(shape.dimension)
        shape = replace(shape, dimension=recipe.dimension, source_dimension=shape.dimension)
        forecast, frames = make_forecast(job, description, shape, sample)
        model.measure(forecast, frames, description.rows)
    if description.size and forecast.sampled:
        forecast.seconds = _run_seconds(forecast, reading, description.rows or 0)
    if job.strict and forecast.lossy:
        raise ConfigError(
            "strict is true and this run would lose something: " + "; ".join(forecast.lossy),
            "map or leave out these fields, or set strict: false",
        )
    plan = Plan(
        shards,
        shape,
        description.consistency,
        description.rows,
        description.exact,
        description.size,
        metric=choose_metric(job, description, shape).source,
        notes=(*description.notes, *forecast.notes),
        facts={collection.name: collection.facts for collection in description.collections},
        recipe=recipe,
        expected=model.expected,
    )
    return plan, forecast


def _run_seconds(forecast: Forecast, reading: float, records: int) -> float:
    """Estimate how long the run will take on this machine's cores.

    Args:
        forecast: whose ``seconds`` are those of converting the sample.
        reading: seconds that reading the sample took.
        records: of the whole source.
    """
    record_seconds = (reading + forecast.seconds) / forecast.sampled * _WRITING
    copying = record_seconds * records / (os.cpu_count() or 1)
    return _RAY_START + copying + forecast.embedding.get("seconds", 0)
