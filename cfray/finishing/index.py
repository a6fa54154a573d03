"""Build the indexes that the job file asks for, and complete those that lag behind.

Each index is built as segments over groups of fragments, a task a group, and committed at
once.  An index that covers every fragment is left alone, so the step can be interrupted
and run again.  A vector index that is another than the job file says is built anew; what
the job file leaves open (``auto``, no metric) may be as somebody else built it.  No index
changes a row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import lance
import pyarrow as pa
from lance import LanceDataset

from cfray.engine import cluster
from cfray.engine.tasks import run_tasks
from cfray.errors import ConfigError, TargetError
from cfray.job.spec import Index, VectorIndexSpec
from cfray.planning.metric import DEFAULT
from cfray.records.vectors import has_number, matrix
from cfray.runtime import filesystems
from cfray.runtime.error_text import describe_error
from cfray.target.books import Books
from cfray.target.commit import Target, guard_commit

if TYPE_CHECKING:
    from lance.lance.indices import IndexDescription

#: Vectors below which a search without a vector index is fast enough.
AUTO_FROM = 50_000
#: Rows that a segment should have at least: segments are searched one after the other.
_SEGMENT_ROWS = 100_000
#: Rows of a partition that Lance aims at where it chooses their number (pylance 14: 24 partitions
#: of 200,000 rows).
_PARTITION_ROWS = 8_192
#: Vectors of a partition from which Lance learns its centre (pylance 14, ``sample_rate``).
_SAMPLE_RATE = 256
#: Lance's name of the index on the column ``vector``.
_VECTOR_INDEX = "vector_idx"


@dataclass(frozen=True, slots=True)
class VectorCount:
    """How many rows of a dataset have a vector.

    Attributes:
        vectors: rows whose vector is not zeros.
        missing: the other documents and chunks.
    """

    vectors: int
    missing: int = 0


@dataclass(frozen=True, slots=True)
class PlannedIndex:
    """An index to build.

    Attributes:
        column, kind: as Lance calls them.
        options: keywords of ``create_index_uncommitted``.
    """

    column: str
    kind: str
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """Give the index's name, as Lance itself would."""
        return f"{self.column}_idx"

    def over(self, rows: int, vectors: int) -> PlannedIndex:
        """Give the same index for rows of which so many have a vector.

        Lance draws rows to learn the centres of the partitions from, and leaves out those whose
        vector is zeros; it ends with an error where fewer remain than there are partitions.
        """
        partitions = max(1, vectors // _PARTITION_ROWS)
        sample_rate = min(rows, -(-_SAMPLE_RATE * rows // max(1, vectors)))
        learning = {"num_partitions": partitions, "sample_rate": sample_rate}
        return replace(self, options={**self.options, **learning})


def plan_indexes(
    spec: Index, metric: str | None, vectors: int, schema: pa.Schema
) -> list[PlannedIndex]:
    """Work out the indexes for a dataset of this size.

    Args:
        spec: the job's section.
        metric: of the source's primary vector; None where it has none.
        vectors: of the dataset that are not zeros, or the expected number; of none there is no
            index, whatever the job says.
        schema: of the dataset.

    Raises:
        ConfigError: a vector index that this dimension does not allow.
    """
    indexes = [PlannedIndex(name, "INVERTED", {}) for name in spec.text]
    indexes += [
        PlannedIndex(name, _scalar_kind(schema.field(name).type, name), {}) for name in spec.scalar
    ]
    dimension = schema.field("vector").type.list_size
    kind = _vector_kind(spec, vectors, dimension)
    if kind is not None and vectors:
        options: dict[str, Any] = {"metric": choose_metric(spec, metric)[0]}
        if kind == "IVF_PQ":
            options["num_sub_vectors"] = spec.vector.num_sub_vectors or dimension // 8
        indexes.append(PlannedIndex("vector", kind, options))
    return indexes


def choose_metric(spec: Index, source_metric: str | None) -> tuple[str, str]:
    """Give the distance by which vectors are compared, and why it is this one."""
    if spec.vector.metric is not None:
        return spec.vector.metric, "index.vector.metric of the job file"
    if source_metric is not None:
        return source_metric, "the metric of the source"
    return DEFAULT, "the default: the source names no single metric"


def _scalar_kind(data_type: pa.DataType, name: str) -> str:
    if pa.types.is_list(data_type):
        return "LABEL_LIST"
    return "BITMAP" if name in ("collection", "record_type", "status") else "BTREE"


def _vector_kind(spec: Index, vectors: int, dimension: int) -> str | None:
    kind = spec.vector.type
    if kind == "auto":
        if vectors < AUTO_FROM:
            return None
        return "IVF_RQ" if dimension % 8 == 0 else "IVF_SQ"
    if kind in ("IVF_RQ", "IVF_PQ") and dimension % 8 and not spec.vector.num_sub_vectors:
        raise ConfigError(
            f"index.vector.type: {kind} needs a dimension that 8 divides; this dimension is "
            f"{dimension}",
            "use auto, IVF_SQ or IVF_FLAT",
        )
    return None if kind == "none" else kind


def build(target: Target, spec: Index, metric: str | None, count: VectorCount) -> list[str]:
    """Build every index that is missing or another, and complete every index that lags behind.

    Args:
        target: whose indexes they are.
        spec: the job's section.
        metric: of the source's primary vector; None where it has none.
        count: of the target's vectors.

    Returns:
        the names of the indexes that were built or completed.
    """
    changed: list[str] = []
    for planned, work in unfinished(target.open(), spec, metric, count):
        if work is Work.COMPLETE:
            with guard_commit(target):
                _complete(target.open(), planned)
        else:
            if work is Work.REPLACE:
                # until the new index is there, a search compares every vector
                with guard_commit(target):
                    target.open().drop_index(planned.name)
            _build_segments(target, target.open(), planned, count)
        changed.append(planned.name)
    return changed


def _complete(dataset: LanceDataset, planned: PlannedIndex) -> None:
    """Bring the fragments into an index that it does not cover.

    Lance keeps the words that come in as a part of their own, and a search goes through both: 1.25
    ms against 1.06 to 1.18 with one part (30,000 texts, 10 additions).  A small index is written
    anew.
    """
    if planned.kind == "INVERTED" and dataset.count_rows() < 2 * _SEGMENT_ROWS:
        dataset.create_scalar_index(
            planned.column, planned.kind, name=planned.name, replace=True, **planned.options
        )
        return
    dataset.optimize.optimize_indices(
        index_names=[planned.name],
        num_indices_to_merge=_small_segments(dataset, planned.name),
    )


def _small_segments(dataset: LanceDataset, name: str) -> int:
    """Count the segments of an index that are merged with what completes it.

    A search goes through every segment, and Lance merges fragments only where the same segments
    cover them: with a segment for each sync, neither would ever end.
    """
    rows = {fragment.fragment_id: fragment.count_rows() for fragment in dataset.get_fragments()}
    (described,) = [index for index in dataset.describe_indices() if index.name == name]
    sizes = [
        sum(rows.get(number, 0) for number in segment.fragment_ids)
        for segment in described.segments
    ]
    return sum(size < _SEGMENT_ROWS for size in sizes)


class Work(Enum):
    """What an index needs to be as the job file says."""

    BUILD = auto()
    COMPLETE = auto()
    REPLACE = auto()


def unfinished(
    dataset: LanceDataset, spec: Index, metric: str | None, count: VectorCount
) -> list[tuple[PlannedIndex, Work]]:
    """List the indexes that are not as the job file says, and what each needs.

    Args:
        dataset: the latest version.
        spec: the job's section.
        metric: of the source's primary vector; None where it has none.
        count: of the dataset's vectors.
    """
    covered = coverage(dataset)
    fragment_ids = {fragment.fragment_id for fragment in dataset.get_fragments()}
    indexes: list[tuple[PlannedIndex, Work]] = []
    for planned in plan_indexes(spec, metric, count.vectors, dataset.schema):
        if planned.name not in covered:
            indexes.append((planned, Work.BUILD))
        elif planned.name == _VECTOR_INDEX and _is_another(dataset, spec.vector):
            indexes.append((planned, Work.REPLACE))
        elif not fragment_ids <= covered[planned.name]:
            indexes.append((planned, Work.COMPLETE))
    return indexes


def _is_another(dataset: LanceDataset, spec: VectorIndexSpec) -> bool:
    """Tell whether the vector index differs from what the job file says outright."""
    described = vector_index(dataset)
    assert described is not None  # it covers fragments
    compression = described.details.get("compression", {})
    pairs = (
        (None if spec.type == "auto" else spec.type, described.index_type),
        (spec.metric, metric_of(described)),
        (spec.num_sub_vectors, compression.get("num_sub_vectors")),
    )
    return any(
        asked_value is not None and is_now not in (None, asked_value)
        for asked_value, is_now in pairs
    )


def vector_index(dataset: LanceDataset) -> IndexDescription | None:
    """Describe the index on the vectors; None where there is none."""
    return next(
        (index for index in dataset.describe_indices() if index.name == _VECTOR_INDEX), None
    )


def metric_of(described: IndexDescription) -> str | None:
    """Name the distance of an index: ``cosine``, ``l2`` or ``dot``; None where it does not say."""
    metric = described.details.get("metric_type")
    return None if metric is None else str(metric).lower()


def metric_notes(dataset: LanceDataset, spec: Index, source_metric: str | None) -> list[str]:
    """Say by which distance vectors are compared, and why by this one.

    Args:
        dataset: the latest version, its indexes built.
        spec: the job's section.
        source_metric: of the source's primary vector; None where it has none.
    """
    if dataset.schema.field("vector").type.list_size == 1:
        return []  # no record has a vector: the column is as narrow as can be
    metric, reason = choose_metric(spec, source_metric)
    described = vector_index(dataset)
    if described is None:
        notes = [f"no vector index; a search compares every vector, by {metric} ({reason})"]
    else:
        built = metric_of(described)
        if built not in (None, metric):
            reason = f"as it was built before; {metric} would be {reason}"
        notes = [f"vector index: {described.index_type}, by {built or metric} ({reason})"]
    if spec.vector.metric is not None and source_metric not in (None, spec.vector.metric):
        notes.append(
            f"index.vector.metric is {spec.vector.metric}; the source searches by "
            f"{source_metric}, so a search here finds other neighbours"
        )
    return notes


@dataclass(frozen=True, slots=True)
class _Segment:
    """A part of an index that one task builds: over some fragments of a version."""

    uri: str
    version: int
    index: PlannedIndex
    fragment_ids: list[int]


def _build_segments(
    target: Target, dataset: LanceDataset, planned: PlannedIndex, count: VectorCount
) -> None:
    groups = [(group, planned) for group in _fragment_groups(dataset)]
    if planned.name == _VECTOR_INDEX and count.missing:
        groups = _groups_with_vectors(target, dataset, planned)
    work = [_Segment(target.uri, dataset.version, index, group) for group, index in groups]
    segments = list(run_tasks(_build_segment, work))
    target.check_held(target.ledger())
    with guard_commit(target):
        dataset.commit_existing_index_segments(planned.name, planned.column, segments)


def _fragment_groups(dataset: LanceDataset) -> list[list[int]]:
    """Divide the fragments into groups of about equal size: at most one a core, none small."""
    rows = {fragment.fragment_id: fragment.count_rows() for fragment in dataset.get_fragments()}
    count = max(1, min(cluster.cores(), sum(rows.values()) // _SEGMENT_ROWS, len(rows)))
    groups: list[list[int]] = [[] for _ in range(count)]
    sizes = [0] * count
    for fragment_id, size in sorted(rows.items(), key=lambda item: -item[1]):
        smallest = sizes.index(min(sizes))
        groups[smallest].append(fragment_id)
        sizes[smallest] += size
    return groups


def _groups_with_vectors(
    target: Target, dataset: LanceDataset, planned: PlannedIndex
) -> list[tuple[list[int], PlannedIndex]]:
    """Divide the fragments so that no group lacks vectors, and say how each is indexed."""
    ids = [fragment.fragment_id for fragment in dataset.get_fragments()]
    work = [(target.uri, dataset.version, fragment_id) for fragment_id in ids]
    counts = dict(run_tasks(_count_vectors, work))

    def vectors(group: list[int]) -> int:
        return sum(counts[fragment_id][1] for fragment_id in group)

    groups: list[list[int]] = []
    for group in sorted(_fragment_groups(dataset), key=vectors, reverse=True):
        if groups and vectors(group) < _PARTITION_ROWS:
            groups[0] += group
        else:
            groups.append(group)
    rows = [sum(counts[fragment_id][0] for fragment_id in group) for group in groups]
    return [
        (group, planned.over(size, vectors(group)))
        for group, size in zip(groups, rows, strict=True)
    ]


def _count_vectors(work: tuple[str, int, int]) -> tuple[int, tuple[int, int]]:
    """Count the rows of a fragment, and those whose vector is not zeros.  Body of a Ray task."""
    uri, version, fragment_id = work
    options = filesystems.storage_options(uri)
    dataset = lance.dataset(uri, version=version, storage_options=options)
    rows = vectors = 0
    for batch in dataset.get_fragment(fragment_id).scanner(columns=["vector"]).to_batches():
        column = batch.column("vector")
        rows += batch.num_rows
        is_there = column.is_valid().to_numpy(zero_copy_only=False)
        vectors += int((has_number(matrix(column)) & is_there).sum())
    return fragment_id, (rows, vectors)


def _build_segment(segment: _Segment) -> Any:  # lance's Index
    """Build a segment.  Body of a Ray task.

    Raises:
        TargetError: Lance refuses the column's values.  So it does by l2 (pylance 14.0.2) where a
            vector is longer than 1.8e19, for its square is no float32.
    """
    options = filesystems.storage_options(segment.uri)
    dataset = lance.dataset(segment.uri, version=segment.version, storage_options=options)
    try:
        return dataset.create_index_uncommitted(
            segment.index.column,
            segment.index.kind,
            name=segment.index.name,
            fragment_ids=segment.fragment_ids,
            **segment.index.options,
        )
    except ValueError as error:
        raise TargetError(
            f"the index on {segment.index.column} cannot be built: {describe_error(error)[:200]}",
            "the rows are committed; set index.vector.type to none (by l2 no vector may be longer "
            "than 1.8e19), then run the same command again",
        ) from error


def count_vectors(books: Books) -> VectorCount:
    """Count the vectors of a target by what its receipts add up to."""
    vectors = sum(collection.count for collection in books.collections.values())
    return VectorCount(vectors, books.frames - vectors)


def coverage(dataset: LanceDataset) -> dict[str, set[int]]:
    """Give the fragments that each index covers."""
    return {
        index.name: {number for segment in index.segments for number in segment.fragment_ids}
        for index in dataset.describe_indices()
    }
