"""Plan: divide the source, look at a sample of it, and say what would happen; write nothing.

The durable half, ``Plan``, is saved once and reused on resume, so that the numbers of the shards
never move.  The other half, ``Forecast``, is for the operator alone: how each field will land,
what the sample would send to quarantine, what the run will cost.  ``migrate`` makes none.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, replace

import pyarrow as pa

from cfray.conversion.convert import Conversion
from cfray.conversion.cut_chunks import planned_tokenizer
from cfray.engine import throttle
from cfray.errors import ConfigError
from cfray.job.mapping import SourceShape
from cfray.job.spec import JobSpec
from cfray.planning.date_findings import NOT_READ
from cfray.planning.findings import WOULD_STOP, Bad, limit_warnings
from cfray.planning.forecast import Forecast, make_forecast
from cfray.planning.line_forecast import RunShape, forecast_lines
from cfray.planning.metric import choose_metric
from cfray.planning.model_forecast import ModelForecast, model_note
from cfray.planning.notes import plan_notes
from cfray.planning.sample import Sample, check_sample, read_sample
from cfray.planning.shape import work_out_shape
from cfray.planning.source_types import lossy_fields
from cfray.planning.stored_vectors import compare_with_model
from cfray.planning.vector_columns import check_column_names
from cfray.sources.base import Context, Description, Session, Shard
from cfray.sources.session import SourceSession
from cfray.target.state import Plan

#: Seconds that Ray takes to start (Ray 2.60 on a laptop).
_RAY_START = 8
#: What writing and hashing add to the time of reading and converting.
_WRITING = 1.5


@dataclass(frozen=True, slots=True)
class Survey:
    """What was seen of a source.

    Attributes:
        shards: sorted by id.
        description: what the source says of itself.
        sample: of its records.
        seconds: that reading the sample took.
    """

    shards: list[Shard]
    description: Description
    sample: Sample
    seconds: float


def preview(job: JobSpec) -> tuple[Plan, Forecast]:
    """Plan for the operator to look at; what the source wrote down for its shards is removed.

    Raises:
        CfrayError: as ``make_plan``.
    """
    with (
        tempfile.TemporaryDirectory(prefix="cfray-plan-") as scratch,
        SourceSession(job.source) as session,
    ):
        survey = take_survey(job, scratch, session)
    with closing(ModelForecast(job)) as model:
        plan = _plan(job, survey, session, model)
        forecast, frames = make_forecast(job, survey.description, plan.shape, survey.sample)
        _forecast_lines(job, plan, forecast, frames)
        model.measure(forecast, frames, forecast.lines.frames)
    _warn_of_limit(job, forecast, plan.rows)
    if plan.size and forecast.sampled:
        forecast.seconds = _run_seconds(forecast, survey.seconds, plan.rows or 0)
    # the warning says it with an example, which no saved plan holds
    notes = [note for note in plan.notes if not note.startswith(NOT_READ)]
    further_notes = [note for note in forecast.notes if note not in plan.notes]
    return replace(plan, notes=(*notes, *further_notes)), forecast


def _warn_of_limit(job: JobSpec, forecast: Forecast, rows: int | None) -> None:
    """Judge anew whether the run would stop, now that the model has said what it refuses."""
    refused = forecast.quarantined.total()
    bad = Bad(forecast.sampled, refused, forecast.duplicates, is_whole=forecast.is_whole)
    others = [warning for warning in forecast.warnings if not warning.startswith(WOULD_STOP)]
    forecast.warnings = [*limit_warnings(job, bad, rows), *others]


def _forecast_lines(
    job: JobSpec, plan: Plan, forecast: Forecast, frames: list[pa.RecordBatch]
) -> None:
    """Add to a forecast what the copy and the embedding will do, and the disk that they need."""
    records = forecast.sampled if forecast.is_whole else plan.rows or 0
    rows = sum(batch.num_rows for batch in frames)
    shape = RunShape(
        job.embedding,
        plan.recipe,
        plan.shape.dimension,
        len(plan.shards),
        round(records * rows / max(1, forecast.sampled)),
        len(plan.to_json()),
    )
    # Lance writes the metadata of the schema into each file
    metadata = {"types": json.dumps(plan.shape.types), "recipe": plan.recipe.to_json()}
    frames = [batch.replace_schema_metadata(metadata) for batch in frames]
    forecast.lines, forecast.disk_parts = forecast_lines(shape, frames)
    forecast.disk = forecast.disk_parts.total


def make_plan(job: JobSpec, scratch: str, session: Session) -> Plan:
    """Divide the source, and settle what every worker must agree on.

    Args:
        job: the job file.
        scratch: an empty folder for what the source writes down for its shards (lists of ids); it
            goes where the plan goes.
        session: of the source.

    Raises:
        ConfigError: the mapping names a field that no record has, the vectors have no dimension or
            another than the job file says, or something would be lost under ``strict``.
        SourceError: the source cannot be read.
    """
    survey = take_survey(job, scratch, session)
    with closing(ModelForecast(job)) as model:
        return _plan(job, survey, session, model)


def take_survey(job: JobSpec, scratch: str, session: Session) -> Survey:
    """Divide a source, let it describe itself, and read a sample of it.

    Raises:
        ConfigError: no sampled row can be read, or the target lies in the source.
        SourceError: the source cannot be read, or holds no record.
    """
    if job.source.would_read(job.target.uri):
        name = job.target.uri.rstrip("/").rpartition("/")[2]
        raise ConfigError(
            f"the target {job.target.uri} lies in the folder that the source reads: its files "
            "would be files of the source",
            "give a target.uri outside of source.uri; a tree of documents may also leave out "
            f"{name}/ and {name}.cfray/, by source.exclude",
        )
    context = Context(
        session=session.state,
        scratch=scratch,
        max_record=job.limits.max_document,
        throttle=throttle.local_budget(job.source),
    )
    shards = sorted(job.source.shards(context), key=lambda shard: shard.id)
    description = job.source.describe(context, shards)
    begin = time.perf_counter()
    sample = read_sample(job, shards, context)
    seconds = time.perf_counter() - begin
    check_sample(description, sample)
    return Survey(shards, description, sample, seconds)


def _plan(job: JobSpec, survey: Survey, session: Session, model: ModelForecast) -> Plan:
    description, sample = survey.description, survey.sample
    shape = work_out_shape(job, description, sample.batches)
    lossy = lossy_fields(description)
    if job.strict and lossy:
        raise ConfigError(
            "strict is true and this run would lose something: " + "; ".join(lossy),
            "map or leave out these fields, or set strict: false",
        )
    recipe = model.plan_recipe(shape.dimension)
    # the width of the target changes with its vectors, that of the source does not
    shape = replace(shape, source_dimension=shape.dimension)
    notes = [*description.notes, *plan_notes(job, description, shape, sample), *model.notes()]
    expected, comparison = _compare_vectors(job, shape, sample)
    return Plan(
        survey.shards,
        shape,
        session.consistency or description.consistency,
        description.rows,
        description.exact,
        description.size,
        metric=choose_metric(job, description, shape).source,
        notes=(*notes, *comparison),
        facts={collection.name: collection.facts for collection in description.collections},
        recipe=recipe,
        expected=expected,
        fingerprint=job.fingerprint,
        tokenizer=planned_tokenizer(job.embedding),
    )


def with_other_vectors(job: JobSpec, plan: Plan) -> Plan:
    """Plan the vectors of a copied target anew, for a job with another section ``embedding``.

    Raises:
        ConfigError: a new column has the name of a column of the source, or the job declares
            another width than that of the copied vectors.
        CfrayError: as ``ModelForecast.plan_recipe``.
    """
    check_column_names(job.embedding.columns, plan.shape.vectors)
    declared, width = job.embedding.dimension, plan.shape.read_dimension
    if declared not in (None, width):
        raise ConfigError(
            f"embedding.dimension is {declared}, and what was copied is {width} wide",
            "undo the change, or migrate into a new target.uri",
        )
    with closing(ModelForecast(job)) as model:
        recipe = model.plan_recipe(plan.shape.read_dimension)
        old_notes = [] if plan.recipe.model is None else [model_note(plan.recipe.model)]
        notes = [note for note in plan.notes if note not in old_notes] + model.notes()
    return replace(plan, recipe=recipe, notes=tuple(notes), fingerprint=job.fingerprint)


def _compare_vectors(
    job: JobSpec, shape: SourceShape, sample: Sample
) -> tuple[dict[str, float], list[str]]:
    """Compare the stored vectors with ``embedding.expect``, if the job file says so.

    Raises:
        ConfigError: the stored vectors cannot be those of the model.
    """
    if job.embedding.expect is None:
        return {}, []
    conversion = Conversion(job, shape)
    frames = [
        conversion.convert(batch, collection).frames
        for batch, collection in zip(sample.batches, sample.collections, strict=True)
    ]
    expected, comparison = compare_with_model(job.embedding.expect, frames)
    return expected, [comparison]


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
