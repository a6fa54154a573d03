"""Forecast: what a run would do with a source, worked out from a sample of it.

The sample is converted by the code that the run will use, so what the forecast says of fields,
quarantine and losses is what would happen, not a guess.  Only disk and time are estimates.  A
forecast is a value; ``show.py`` renders it.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa

from cfray.conversion.convert import Conversion
from cfray.job.mapping import SourceShape, dotted, primary_vector
from cfray.job.spec import JobSpec
from cfray.planning.vector_columns import metric_of
from cfray.records import values
from cfray.records.record import Reject
from cfray.sources.base import Description

#: Keys of the mapping whose column does not hold all of a field's value: it stays in
#: custom_metadata, too.
_PARTIAL_COLUMNS = {"created_at", "updated_at", "relationships.to"}


@dataclass(frozen=True, slots=True)
class Landing:
    """Where a field of the source will land.

    Attributes:
        field: dotted path.
        type: name of its type.
        lands: the keys of the mapping that take it, or ``custom_metadata``.
    """

    field: str
    type: str
    lands: str


@dataclass(slots=True)
class Forecast:
    """What ``plan`` says beyond the plan itself; its fields are keys of ``plan --json``.

    Attributes:
        landings: where each field of the source will land.
        lossy: sentences about what cannot be carried exactly.
        notes: facts that lose nothing but that the operator should know.
        sampled: records looked at.
        quarantined: reason -> records of the sample.
        duplicates: records of the sample whose id an earlier record has, too.
        disk: bytes that the target will need (estimate).
        seconds: how long the copy will take on this machine's cores (estimate).
        embedding: what the model will have to do: ``texts``, ``tokens``, ``truncated``,
            ``tokens_lost`` and ``blank`` of the sample, ``seconds`` and ``cost`` of the whole
            source (estimates).
    """

    landings: list[Landing] = field(default_factory=list)
    lossy: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sampled: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    disk: int = 0
    seconds: float = 0.0
    embedding: dict[str, float] = field(default_factory=dict)


def make_forecast(
    job: JobSpec,
    description: Description,
    shape: SourceShape,
    batches: list[pa.RecordBatch],
    rejects: list[Reject],
) -> tuple[Forecast, list[pa.RecordBatch]]:
    """Convert a sample and look at what comes out.

    Args:
        job: the job file.
        description: what the source says of itself.
        shape: what the sample says of the source.
        batches: the records of the sample.
        rejects: the rows of the sample that became no record.

    Returns:
        the forecast, whose ``seconds`` are those of converting the sample, and the frames.
    """
    forecast = Forecast(
        landings=_landings(job, shape),
        lossy=_lossy_fields(description),
        notes=_vector_notes(job, shape) + _mapping_notes(job, description, shape),
        sampled=len(rejects) + sum(batch.num_rows for batch in batches),
        quarantined=Counter(reject.reason for reject in rejects),
    )
    conversion = Conversion(job, shape)
    begin = time.perf_counter()
    converted = [conversion.convert(batch, "") for batch in batches]
    forecast.seconds = time.perf_counter() - begin
    frames = [batch.frames for batch in converted]
    for batch in converted:
        forecast.quarantined.update(fault.reason for fault in batch.faults)
    uuids = Counter(uuid for batch in frames for uuid in batch.column("uuid").to_pylist())
    forecast.duplicates = uuids.total() - len(uuids)
    rows = sum(batch.num_rows for batch in frames)
    if rows:
        row_bytes = sum(batch.nbytes for batch in frames) / rows
        # a model's vectors are wider or narrower than the source's, which the frames have
        row_bytes += 4 * (shape.dimension - shape.read_dimension)
        forecast.disk = int(row_bytes * (description.rows or 0))
    return forecast, frames


def _landings(job: JobSpec, shape: SourceShape) -> list[Landing]:
    """Say for each field where it goes."""
    rules = _rules(job, shape)
    landings = []
    for path, type_name in shape.types.items():
        columns = rules.get(path, [])
        if set(columns) <= _PARTIAL_COLUMNS:
            columns = [*columns, "custom_metadata"]
        landings.append(Landing(path, type_name, ", ".join(columns)))
    return landings


def _rules(job: JobSpec, shape: SourceShape) -> dict[str, list[str]]:
    """Give the keys of the mapping that take each field, defaults included: path -> keys."""
    rules: dict[str, list[str]] = {}
    for key, path in job.mapping.rules():
        rules.setdefault(dotted(path), []).append(key)
    if job.mapping.vector is None and dotted(shape.vector) in shape.types:
        rules.setdefault(dotted(shape.vector), []).append("vector")
    if job.mapping.text_content is None and "text" in shape.types:
        rules.setdefault("text", []).append("text_content")
    for name, path in shape.vectors.items():
        rules.setdefault(dotted(path), []).append(f"x_vector_{name}")
    return rules


def _lossy_fields(description: Description) -> list[str]:
    """Name the fields whose values cannot be carried exactly."""
    return [
        f"{item.name} ({item.type}): {reason}"
        for item in description.schema or []
        if (reason := values.lossy_reason(item.type)) is not None
    ]


def _vector_notes(job: JobSpec, shape: SourceShape) -> list[str]:
    """Say what becomes of the source's primary vectors, where it is not what they are."""
    notes = []
    path = dotted(primary_vector(job.mapping, shape))
    if "double" in shape.types.get(path, ""):
        notes.append(f"vectors of type {shape.types[path]} are rounded to float32")
    if job.embedding.policy == "regenerate" and path in shape.types:
        notes.append(
            f"the source's vectors ({path}) are replaced by the model's; mapping.vectors: "
            f"{{old: {path}}} in place of mapping.vector would carry them along"
        )
    return notes


def _mapping_notes(job: JobSpec, description: Description, shape: SourceShape) -> list[str]:
    """Name the fields of the mapping that the sample lacks, and a metric that zeros disturb."""
    notes = [
        f"mapping.{key}: no record of the sample has {dotted(path)}"
        for key, path in job.mapping.rules()
        if not any(
            name == dotted(path) or name.startswith(dotted(path) + ".") for name in shape.types
        )
    ]
    metric = job.index.vector.metric or metric_of(description, shape.vector)
    if metric == "l2" and job.embedding.missing_vector == "zero":
        notes.append(
            "metric l2 with missing_vector: zero: rows without a vector will rank among the best "
            "hits, for the zero vector is near to many queries"
        )
    return notes
