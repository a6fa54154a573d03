"""Build the indexes that the job file asks for, and complete those that lag behind.

Each index is built as segments over groups of fragments, a task a group, and committed at
once.  An index that covers every fragment is left alone, so the step can be interrupted
and run again.  No index changes a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lance
import pyarrow as pa
from lance import LanceDataset

from cfray.engine import cluster
from cfray.engine.tasks import run_tasks
from cfray.errors import ConfigError
from cfray.job.spec import Index
from cfray.runtime import filesystems
from cfray.target.commit import Target, guard_commit

#: Rows below which a search without a vector index is fast enough.
AUTO_FROM = 50_000
#: Rows that a segment should have at least: segments are searched one after the other.
_SEGMENT_ROWS = 100_000


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


def plan_indexes(
    spec: Index, metric: str | None, rows: int, schema: pa.Schema
) -> list[PlannedIndex]:
    """Work out the indexes for a dataset of this size.

    Args:
        spec: the job's section.
        metric: of the source's primary vector; None where it has none.
        rows: of the dataset, or the expected number.
        schema: of the dataset.

    Raises:
        ConfigError: a vector index that this dimension does not allow.
    """
    indexes = [PlannedIndex(name, "INVERTED", {}) for name in spec.text]
    indexes += [
        PlannedIndex(name, _scalar_kind(schema.field(name).type, name), {}) for name in spec.scalar
    ]
    dimension = schema.field("vector").type.list_size
    kind = _vector_kind(spec, rows, dimension)
    if kind is not None:
        options: dict[str, Any] = {"metric": spec.vector.metric or metric or "cosine"}
        if kind == "IVF_PQ":
            options["num_sub_vectors"] = spec.vector.num_sub_vectors or dimension // 8
        indexes.append(PlannedIndex("vector", kind, options))
    return indexes


def _scalar_kind(data_type: pa.DataType, name: str) -> str:
    if pa.types.is_list(data_type):
        return "LABEL_LIST"
    return "BITMAP" if name in ("collection", "record_type", "status") else "BTREE"


def _vector_kind(spec: Index, rows: int, dimension: int) -> str | None:
    kind = spec.vector.type
    if kind == "auto":
        if rows < AUTO_FROM:
            return None
        return "IVF_RQ" if dimension % 8 == 0 else "IVF_SQ"
    if kind in ("IVF_RQ", "IVF_PQ") and dimension % 8 and not spec.vector.num_sub_vectors:
        raise ConfigError(
            f"index.vector.type: {kind} needs a dimension that 8 divides; this dimension is "
            f"{dimension}",
            "use auto, IVF_SQ or IVF_FLAT",
        )
    return None if kind == "none" else kind


def build(target: Target, spec: Index, metric: str | None) -> list[str]:
    """Build every index that is missing and complete every index that lags behind.

    Returns:
        the names of the indexes that were built or completed.
    """
    changed: list[str] = []
    dataset = target.open()
    for planned in plan_indexes(spec, metric, dataset.count_rows(), dataset.schema):
        dataset = target.open()
        covered = coverage(dataset).get(planned.name)
        fragment_ids = {fragment.fragment_id for fragment in dataset.get_fragments()}
        if covered is not None and fragment_ids <= covered:
            continue
        if covered is not None:
            with guard_commit(target):
                dataset.optimize.optimize_indices(index_names=[planned.name])
        else:
            _build_segments(target, dataset, planned)
        changed.append(planned.name)
    return changed


@dataclass(frozen=True, slots=True)
class _Segment:
    """A part of an index that one task builds: over some fragments of a version."""

    uri: str
    version: int
    index: PlannedIndex
    fragment_ids: list[int]


def _build_segments(target: Target, dataset: LanceDataset, planned: PlannedIndex) -> None:
    work = [
        _Segment(target.uri, dataset.version, planned, group) for group in _fragment_groups(dataset)
    ]
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


def _build_segment(segment: _Segment) -> Any:  # lance's Index
    """Build a segment.  Body of a Ray task."""
    options = filesystems.storage_options(segment.uri)
    dataset = lance.dataset(segment.uri, version=segment.version, storage_options=options)
    return dataset.create_index_uncommitted(
        segment.index.column,
        segment.index.kind,
        name=segment.index.name,
        fragment_ids=segment.fragment_ids,
        **segment.index.options,
    )


def coverage(dataset: LanceDataset) -> dict[str, set[int]]:
    """Give the fragments that each index covers."""
    return {
        index.name: {number for segment in index.segments for number in segment.fragment_ids}
        for index in dataset.describe_indices()
    }
