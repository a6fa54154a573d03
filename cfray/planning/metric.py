"""The distance of the vector index: what the source's collections say, and what the job says.

A collection without records or without the primary vector has no say, for whatever its index is set
to, nothing was ever searched with it.  Collections that disagree give no distance, and the plan
says so: an index has one.
"""

from __future__ import annotations

from dataclasses import dataclass

from cfray.job.mapping import SourceShape, VectorField, primary_vectors
from cfray.job.spec import JobSpec
from cfray.sources.base import Collection, Description, Metric

#: What an index measures where neither the job nor the source says it.
DEFAULT: Metric = "cosine"
#: What collections say that have no index, or one whose distance Lance lacks.
_NO_METRIC = "none of cosine, l2 and dot"
#: Collections that a sentence lists for each distance.
_LISTED_COLLECTIONS = 5


@dataclass(frozen=True, slots=True)
class MetricChoice:
    """The distance that the index will be built for.

    Attributes:
        source: what the source's collections agree on; None where they say nothing or disagree.
        metric: what the index is built for.
        origin: who says so: the job, source collections by name, or nobody (the default).
        notes: sentences for the operator.
    """

    source: Metric | None
    metric: Metric
    origin: str
    notes: tuple[str, ...] = ()


def choose_metric(job: JobSpec, description: Description, shape: SourceShape) -> MetricChoice:
    """Choose the distance of the index: the job's, else the source's, else the default."""
    collections = metrics_of(description, primary_vectors(job.mapping, shape))
    source = next(iter(collections)) if len(collections) == 1 else None
    listed = "; ".join(
        f"{metric or _NO_METRIC} in {_names(names)}" for metric, names in collections.items()
    )
    job_metric = job.index.vector.metric
    notes = []
    if job_metric is not None and any(metric not in (job_metric, None) for metric in collections):
        notes.append(f"index.vector.metric is {job_metric}; the source searches by {listed}")
    if job_metric is not None:
        return MetricChoice(source, job_metric, "job file (index.vector.metric)", tuple(notes))
    if collections and source is None:
        fact = f"the source collections do not say one distance: {listed}"
        if len(collections) == 1:
            fact = (
                f"the source says no distance for {_names(collections[None])}: there is no vector "
                "index, or its distance is none of cosine, l2 and dot"
            )
        notes.append(
            f"{fact}. The index is built for {DEFAULT}; index.vector.metric in the job file says "
            "otherwise"
        )
    if source is not None:
        return MetricChoice(source, source, f"source ({_names(collections[source])})")
    return MetricChoice(None, DEFAULT, "default", tuple(notes))


def metrics_of(
    description: Description, primary: list[VectorField]
) -> dict[Metric | None, list[str]]:
    """List the source collections by the distance of their primary vector.

    None stands for no distance, and for one that is not one of Lance's.  A collection without the
    vector is left out, and so is an empty one beside others that are not.
    """
    choices = [
        (collection, metric)
        for collection in description.collections
        for has_vector, metric in [_primary_metric(collection, primary)]
        if has_vector
    ]
    filled = [choice for choice in choices if choice[0].rows != 0]
    metrics: dict[Metric | None, list[str]] = {}
    for collection, metric in filled or choices:
        metrics.setdefault(metric, []).append(collection.name)
    return metrics


def _primary_metric(
    collection: Collection, primary: list[VectorField]
) -> tuple[bool, Metric | None]:
    """Tell whether a collection has one of these vectors, and the distance of the first it has."""
    for field in primary:
        if field.path == ("vector",):
            if collection.dimension is not None or collection.metric is not None:
                return True, collection.metric
        elif field.path[-1] in collection.vectors:
            return True, collection.vectors[field.path[-1]][1]
    return False, None


def _names(names: list[str]) -> str:
    listed = ", ".join(name or "its only collection" for name in names[:_LISTED_COLLECTIONS])
    return listed if len(names) <= _LISTED_COLLECTIONS else f"{listed} and others"
