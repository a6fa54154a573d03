"""Forecast: what a run would do with a source, worked out from a sample of it.

The sample is converted by the code that the run will use, so what the forecast says of fields,
quarantine and losses is what would happen, not a guess.  Only disk and time are estimates.  A
forecast is a value; ``show.py`` renders it.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass, field, replace

import pyarrow as pa

from cfray.conversion.convert import Conversion, Converted
from cfray.conversion.cut_chunks import planned_tokenizer
from cfray.conversion.file_columns import FILE, file_paths
from cfray.conversion.metadata_keys import metadata_key
from cfray.conversion.steps import Steps
from cfray.job.mapping import FRAME_KINDS, Path, SourceShape, dotted
from cfray.job.spec import JobSpec
from cfray.planning.findings import Findings
from cfray.planning.line_forecast import Disk, Lines
from cfray.planning.metric import choose_metric
from cfray.planning.notes import plan_notes
from cfray.planning.sample import Sample
from cfray.planning.source_types import lossy_fields
from cfray.sources.base import Description

#: Keys of the mapping whose column does not hold all of a field's value: it stays in
#: custom_metadata, too.
_PARTIAL_COLUMNS = {"created_at", "updated_at", "relationships.to"}
#: Stands behind a column that only the records of a case have; the case's number follows.
_OF_CASE = " (case "


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
        lines: what the copy and the embedding will do.
        disk: bytes that the target will need (estimate), as ``disk_parts`` says.
        disk_parts: what these bytes are, and what is needed beside them during the embedding.
        seconds: how long the copy will take on this machine's cores (estimate).
        warnings: sentences about a run that would stop, or whose result is hardly what is wanted.
        metric: distance of the target's vector index.
        is_whole: whether the sample is all records of the source.
        metric_origin: who says so: the job file, source collections, or nobody (the default).
        embedding: what the model will have to do: ``texts``, ``tokens``, ``truncated``,
            ``tokens_lost``, ``blank`` and ``column_texts`` (of further columns) of the sample,
            ``seconds`` and ``cost`` of the whole source (estimates).
    """

    landings: list[Landing] = field(default_factory=list)
    lossy: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sampled: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    lines: Lines = field(default_factory=Lines)
    disk: int = 0
    disk_parts: Disk = field(default_factory=Disk)
    seconds: float = 0.0
    embedding: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    metric: str = ""
    metric_origin: str = ""
    is_whole: bool = False


def make_forecast(
    job: JobSpec, description: Description, shape: SourceShape, sample: Sample
) -> tuple[Forecast, list[pa.RecordBatch]]:
    """Convert a sample and look at what comes out.

    Args:
        job: the job file.
        description: what the source says of itself.
        shape: what the sample says of the source.
        sample: records of the source.

    Returns:
        the forecast, whose ``seconds`` are those of converting the sample and which says nothing
        of lines and disk; and the frames that the copy would write.
    """
    choice = choose_metric(job, description, shape)
    forecast = Forecast(
        landings=[*_landings(job, shape), *_file_landings(job, sample.batches)],
        lossy=lossy_fields(description),
        notes=plan_notes(job, description, shape, sample),
        sampled=sample.rows,
        quarantined=Counter(reject.reason for reject in sample.rejects),
        metric=choice.metric,
        metric_origin=choice.origin,
        is_whole=sample.is_complete,
    )
    begin = time.perf_counter()
    converted, frames = _convert(job, shape, sample)
    forecast.seconds = time.perf_counter() - begin
    for batch in converted:
        forecast.quarantined.update(fault.reason for fault in batch.faults)
    uuids = pa.chunked_array([batch.frames.column("uuid") for batch in converted], pa.string())
    forecast.duplicates = len(uuids) - len(uuids.unique())
    findings = Findings(job, description, shape, sample, converted)
    forecast.notes += findings.references[0]
    forecast.warnings += findings.warnings(forecast.quarantined.total(), forecast.duplicates)
    return forecast, frames


def _convert(
    job: JobSpec, shape: SourceShape, sample: Sample
) -> tuple[list[Converted], list[pa.RecordBatch]]:
    """Convert a sample by the steps of the copy.

    Returns:
        each batch as converted, a row a record, and as the copy would write it, chunks among them.
    """
    steps = Steps(job, shape, planned_tokenizer(job.embedding))
    converted, frames = [], []
    for batch, collection in zip(sample.batches, sample.collections, strict=True):
        converted.append(steps.conversion.convert(batch, collection))
        # the steps count what they add, and these counts are the copy's
        again = replace(converted[-1], counts=Counter(converted[-1].counts))
        frames.append(steps.cut(again, collection).frames)
    return converted, frames


def _landings(job: JobSpec, shape: SourceShape) -> list[Landing]:
    """Say for each field where it goes."""
    if shape.kind in FRAME_KINDS:
        return [Landing(name, type_name, name) for name, type_name in shape.types.items()]
    rules = _rules(job, shape)
    landings = []
    for path, type_name in shape.types.items():
        columns = rules.get(path, [])
        if type_name.startswith("struct<") and not columns and _has_fields(path, shape):
            continue  # its fields have lines of their own
        # a field that only the records of a case map stays in the others' custom_metadata
        if all(column in _PARTIAL_COLUMNS or _OF_CASE in column for column in columns):
            columns = [*columns, "custom_metadata"]
        landings.append(Landing(path, type_name, ", ".join(columns)))
    return landings


def _file_landings(job: JobSpec, batches: list[pa.RecordBatch]) -> list[Landing]:
    """Say where the file of each record goes, and what rules take of its path."""
    if not any(file_paths(batch) for batch in batches):
        return []
    rules: dict[Path, list[str]] = {
        (FILE,): ["source_file"] if job.mapping.source_file is None else []
    }
    for key, path in job.mapping.rules():
        if path[0] == FILE:
            rules.setdefault(path, []).append(key)
    return [
        Landing(dotted(path), "string", ", ".join(keys)) for path, keys in rules.items() if keys
    ]


def _has_fields(path: str, shape: SourceShape) -> bool:
    return any(other.startswith(f"{path}.") for other in shape.types)


def _rules(job: JobSpec, shape: SourceShape) -> dict[str, list[str]]:
    """Give the keys of the mapping that take each field, defaults included: path -> keys."""
    rules: dict[str, list[str]] = {}
    entered = Conversion(job, shape).entered
    for key, path in job.mapping.rules():
        column = re.sub(r"^cases\.(\d+)\.(.*)", rf"\2{_OF_CASE}\1)", key)
        rules.setdefault(metadata_key(path, entered), []).append(column)
    vector = metadata_key(shape.vector, entered)
    if job.mapping.vector is None and vector in shape.types:
        rules.setdefault(vector, []).append("vector")
    if job.mapping.text_content is None and "text" in shape.types:
        rules.setdefault("text", []).append("text_content")
    for name, path in shape.vectors.items():
        rules.setdefault(metadata_key(path, entered), []).append(f"x_vector_{name}")
    return rules
