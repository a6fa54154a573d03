"""Foresee a run: convert a sample.

Say how each field lands and what would be lost or quarantined.
"""

from __future__ import annotations

import time
from collections import Counter

import pyarrow as pa

from cfray.conversion.convert import Conversion
from cfray.job.mapping import SourceShape, dotted, primary_vector
from cfray.job.spec import JobSpec
from cfray.planning.forecast import Forecast, Landing
from cfray.planning.shape import metric_of
from cfray.records import values
from cfray.records.record import Reject
from cfray.sources.base import Description


def foresee(
    job: JobSpec,
    described: Description,
    layout: SourceShape,
    batches: list[pa.RecordBatch],
    rejects: list[Reject],
) -> Forecast:
    """Convert the sample and look at what comes out."""
    forecast = Forecast(sampled=len(rejects))
    forecast.quarantined.update(reject.reason for reject in rejects)
    conversion = Conversion(job, layout)
    wider = 4 * (layout.dimension - layout.read_dimension)  # bytes a row that other vectors add
    begin = time.perf_counter()
    size = good = 0
    ids: Counter[str] = Counter()
    for batch in batches:
        converted = conversion.convert(batch, "")
        forecast.frames.append(converted.frames)
        forecast.sampled += batch.num_rows
        forecast.quarantined.update(fault.reason for fault in converted.faults)
        ids.update(converted.frames.column("uuid").to_pylist())
        size += converted.frames.nbytes
        good += converted.frames.num_rows
    forecast.seconds = time.perf_counter() - begin
    forecast.duplicates = sum(count - 1 for count in ids.values())
    if good:
        forecast.disk = int((size / good + wider) * (described.rows or 0))
    _land(job, described, layout, forecast)
    return forecast


def _land(job: JobSpec, described: Description, layout: SourceShape, forecast: Forecast) -> None:
    """Say for every field where it goes, and what is worth knowing about it."""
    rules = _rules(job, layout)
    for key, kind in layout.types.items():
        columns = rules.get(key, [])
        kept = not columns or set(columns) <= {"created_at", "updated_at", "relationships.to"}
        forecast.landings.append(
            Landing(key, kind, ", ".join([*columns, *(["custom_metadata"] if kept else [])]))
        )
    for item in described.schema or []:
        reason = values.lossy_reason(item.type)
        if reason is not None:
            forecast.lossy.append(f"{item.name} ({item.type}): {reason}")
    for path in [primary_vector(job.mapping, layout)]:
        if "double" in layout.types.get(dotted(path), ""):
            forecast.notes.append(
                f"vectors of type {layout.types[dotted(path)]} are rounded to float32"
            )
        if job.embedding.policy == "regenerate" and dotted(path) in layout.types:
            forecast.notes.append(
                f"the source's vectors ({dotted(path)}) are replaced by the model's; mapping.vectors: {{old: {dotted(path)}}} in place of mapping.vector would carry them along"
            )
    for key, path in job.mapping.rules():
        if dotted(path) not in layout.types and not any(
            name.startswith(dotted(path) + ".") for name in layout.types
        ):
            forecast.notes.append(f"mapping.{key}: no record of the sample has {dotted(path)}")
    if (
        job.index.vector.metric or metric_of(described, layout.vector)
    ) == "l2" and job.embedding.missing_vector == "zero":
        forecast.notes.append(
            "metric l2 with missing_vector: zero: rows without a vector will rank among the best hits (contextframe.md)"
        )


def _rules(job: JobSpec, layout: SourceShape) -> dict[str, list[str]]:
    """Give, for each source field that a rule names, the keys of these rules; defaults included."""
    rules: dict[str, list[str]] = {}
    for key, path in job.mapping.rules():
        rules.setdefault(dotted(path), []).append(key)
    if job.mapping.vector is None and dotted(layout.vector) in layout.types:
        rules.setdefault(dotted(layout.vector), []).append("vector")
    if job.mapping.text_content is None and "text" in layout.types:
        rules.setdefault("text", []).append("text_content")
    for name, path in layout.vectors.items():
        rules.setdefault(dotted(path), []).append(f"x_vector_{name}")
    return rules
