"""Build the indexes the job file asks for, distributed over fragments.

Complete those that lag behind.

Each index is built as segments over groups of fragments, one task a group, and
committed in one piece.  An index that is there and covers every fragment is
left alone, so the step can be interrupted and run again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lance
import pyarrow as pa
from lance import LanceDataset

from cfray.engine import cluster
from cfray.engine.tasks import each
from cfray.errors import ConfigError
from cfray.job.spec import Index
from cfray.runtime import filesystems
from cfray.target.commit import Target, commits

#: Rows below which a search without a vector index is fast enough (issue 3; design.md, job file).
AUTO_FROM = 50_000
#: Rows a segment should have at least: segments are searched one by one.
_SEGMENT_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class PlannedIndex:
    """One index to build.

    Attributes:
        column, kind: what Lance calls them.
        options: keywords of ``create_index_uncommitted``.
    """

    column: str
    kind: str
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """Give the index's name, as Lance itself would."""
        return f"{self.column}_idx"


def planned_indexes(
    spec: Index, metric: str | None, rows: int, schema: pa.Schema
) -> list[PlannedIndex]:
    """Work out the indexes for a dataset of this size.

    Raises:
        ConfigError: a vector index that this dimension does not allow.
    """
    found = [PlannedIndex(name, "INVERTED", {}) for name in spec.text]
    found += [
        PlannedIndex(name, _scalar_kind(schema.field(name).type, name), {}) for name in spec.scalar
    ]
    vector = _vector_kind(spec, rows, schema.field("vector").type.list_size)
    if vector is not None:
        options: dict[str, Any] = {"metric": spec.vector.metric or metric or "cosine"}
        if vector == "IVF_PQ":
            options["num_sub_vectors"] = (
                spec.vector.num_sub_vectors or schema.field("vector").type.list_size // 8
            )
        found.append(PlannedIndex("vector", vector, options))
    return found


def _scalar_kind(kind: pa.DataType, name: str) -> str:
    if pa.types.is_list(kind):
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
            f"index.vector.type: {kind} needs a dimension that 8 divides; this one is {dimension}",
            "use auto, IVF_SQ or IVF_FLAT",
        )
    return None if kind == "none" else kind


def build(target: Target, spec: Index, metric: str | None) -> list[str]:
    """Build every index that is missing and complete every one that lags behind.

    Returns:
        the names of the indexes that were built or completed.
    """
    done: list[str] = []
    for one in planned_indexes(spec, metric, target.open().count_rows(), target.open().schema):
        dataset = target.open()
        covered = coverage(dataset).get(one.name)
        everything = {fragment.fragment_id for fragment in dataset.get_fragments()}
        if covered is not None and everything <= covered:
            continue
        if covered is not None:
            dataset.optimize.optimize_indices(index_names=[one.name])
        else:
            _build(target, dataset, one)
        done.append(one.name)
    return done


def _build(target: Target, dataset: LanceDataset, one: PlannedIndex) -> None:
    options = filesystems.storage_options(target.uri)
    groups = _groups(dataset)
    work = [(target.uri, dataset.version, options, one, group) for group in groups]
    segments = list(each(_segment, work))
    target.check_held(target.ledger())
    with commits(target):
        dataset.commit_existing_index_segments(one.name, one.column, segments)


def _groups(dataset: LanceDataset) -> list[list[int]]:
    """Divide the fragments into at most as many groups as there are cores, none of them small."""
    rows = {fragment.fragment_id: fragment.count_rows() for fragment in dataset.get_fragments()}
    count = max(1, min(cluster.cores(), sum(rows.values()) // _SEGMENT_ROWS, len(rows)))
    groups: list[list[int]] = [[] for _ in range(count)]
    sizes = [0] * count
    for number, size in sorted(rows.items(), key=lambda item: -item[1]):
        least = sizes.index(min(sizes))
        groups[least].append(number)
        sizes[least] += size
    return groups


def _segment(
    work: tuple[str, int, dict[str, str], PlannedIndex, list[int]],
) -> Any:  # lance's Index
    """Build one segment.  Body of a Ray task."""
    uri, version, options, one, fragments = work
    dataset = lance.dataset(uri, version=version, storage_options=options)
    return dataset.create_index_uncommitted(
        one.column, one.kind, name=one.name, fragment_ids=fragments, **one.options
    )


def coverage(dataset: LanceDataset) -> dict[str, set[int]]:
    """Give the fragments that each index covers."""
    return {
        item.name: {number for segment in item.segments for number in segment.fragment_ids}
        for item in dataset.describe_indices()
    }
