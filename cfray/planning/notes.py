"""What a sample shows that holds for the whole run: these notes are saved with the plan.

A run makes them, too, so the sample is not converted for them.  What a run counts exactly
by itself (references that dangle, texts that are cut) is only forecast, by ``cfray plan``.
"""

from __future__ import annotations

from collections import Counter

from cfray.conversion.convert import Conversion
from cfray.conversion.fields import Fields
from cfray.conversion.file_columns import FILE
from cfray.conversion.metadata_keys import metadata_key
from cfray.conversion.primary_vector import PrimaryVectors, read_primary
from cfray.errors import ConfigError
from cfray.job.mapping import FRAME_KINDS, SourceShape, dotted
from cfray.job.spec import JobSpec
from cfray.planning.copies import copy_warnings
from cfray.planning.date_findings import unread_dates
from cfray.planning.findings import float_ids
from cfray.planning.metric import choose_metric
from cfray.planning.sample import Sample
from cfray.planning.source_types import name_notes
from cfray.planning.stored_vectors import describe_vectors
from cfray.planning.vector_findings import missing_notes, vector_notes
from cfray.sources.base import Description


def plan_notes(
    job: JobSpec, description: Description, shape: SourceShape, sample: Sample
) -> list[str]:
    """Say what the operator should know of the source and of what becomes of it.

    Raises:
        ConfigError: a date is mapped that cannot be read, under ``strict``.
    """
    choice = choose_metric(job, description, shape)
    paths = Conversion(job, shape).paths
    fields = [Fields(batch, paths, blank_is_null=shape.blank_is_null) for batch in sample.batches]
    primaries = [read_primary(item, job, shape) for item in fields]
    vectors = [primary.vectors for primary in primaries]
    dates = unread_dates(job, shape, fields, has_example=False)
    if job.strict and dates:
        raise ConfigError(
            "strict is true and this run would lose something: " + "; ".join(dates),
            "correct the mapping or the source, or set strict: false",
        )
    return [
        *dates,
        *copy_warnings(sample.batches, description.copies),
        *name_notes(description),
        *_mapping_notes(job, shape),
        *choice.notes,
        *vector_notes(job, shape, fields),
        *missing_notes(job, description, _missing(job, primaries), sample.rows, choice.metric),
        *float_ids(job, fields),
        *(describe_vectors(vectors) if job.embedding.policy == "keep" else []),
    ]


def _mapping_notes(job: JobSpec, shape: SourceShape) -> list[str]:
    """Name the fields of the mapping that the sample lacks; frames have no such mapping."""
    if shape.kind in FRAME_KINDS:
        return []
    entered = Conversion(job, shape).entered
    return [
        f"mapping.{key}: no record of the sample has {dotted(path)}"
        for key, path in job.mapping.rules()
        if path[0] != FILE
        and metadata_key(path, entered) not in shape.types
        and not any(name.startswith(dotted(path) + ".") for name in shape.types)
    ]


def _missing(job: JobSpec, sample: list[PrimaryVectors]) -> Counter[str]:
    """Count the sampled records whose vector is missing or empty, as a conversion does."""
    embedding = job.embedding
    counts: Counter[str] = Counter()
    if embedding.policy == "keep" and embedding.missing_vector == "quarantine":
        return counts  # they do not come into the target
    for primary in sample:
        vectors = primary.vectors
        if primary.other_width is not None:
            counts["other_width_vectors"] += int(primary.other_width.sum())
        if vectors.empty is not None:
            counts["empty_vectors"] += int(vectors.empty.sum())
        if embedding.policy == "keep":
            counts["missing_vectors"] += int(vectors.missing.sum())
    return counts
