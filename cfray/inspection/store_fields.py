"""What a store says itself: the id, the vectors, their widths by collection, and references.

A store's collections may call their vectors differently, and have them in different widths.  A
dataset has one primary vector of one width: the draft takes the collections that have it, says
which it leaves out, and names for each collection the vector that it has.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from cfray.errors import SourceError
from cfray.inspection import fieldnames
from cfray.inspection.guess import Guess, rule
from cfray.inspection.ids import guess_id, keep_uuid, read_tagged
from cfray.inspection.plain_names import plain_name
from cfray.inspection.samples import Sample, take_sample
from cfray.inspection.unclaimed import Unclaimed
from cfray.job.mapping import Path, dotted
from cfray.records import vectors
from cfray.records.vector_values import is_vector_type
from cfray.sources.base import Json


def guess_store_id(unclaimed: Unclaimed) -> list[Guess]:
    """Take the id that the store gives, and offer to keep UUIDs that no collection shares."""
    field = next((field for field in unclaimed.sample.fields if field.path == ("id",)), None)
    if field is None:
        return _composite_id(unclaimed)
    unclaimed.ids = read_tagged(unclaimed.sample, "id")
    guess = unclaimed.take("id", field, "the id that the store gives it")
    return [guess, *keep_uuid(unclaimed.ids)]


def _composite_id(unclaimed: Unclaimed) -> list[Guess]:
    """Take the key of several fields that the store declares, else guess one as for files."""
    keys = {
        collection.facts.get("key", "") for collection in unclaimed.sample.description.collections
    }
    if len(keys) != 1 or not (key := keys.pop()):
        return guess_id(unclaimed)
    names: list[str] = json.loads(key)
    paths = [(name,) for name in names]
    value: Json = {"key": [rule(path) for path in paths]}
    unclaimed.ids = read_tagged(unclaimed.sample, value)
    unclaimed.used_paths.update(paths)
    return [Guess("mapping.id", value, "the key that the store declares", paths=tuple(paths))]


@dataclass(frozen=True, slots=True)
class _Choice:
    """The primary vector of a store.

    Attributes:
        width: of the vectors.
        paths: the fields that hold them; of several, the first that is present counts.
    """

    width: int
    paths: tuple[Path, ...]


def keep_one_width(sample: Sample) -> tuple[Sample, list[Guess]]:
    """Keep the collections whose vectors have one width, and say which are left out."""
    widths = _widths(sample)
    choice = _choose(sample, widths)
    if choice is None:
        return sample, []
    left_out = {
        name: sorted(set(paths.values()))
        for name, paths in widths.items()
        if paths and choice.width not in paths.values()
    }
    if not left_out:
        return sample, []
    remaining_names = [
        collection.name
        for collection in sample.description.collections
        if collection.name not in left_out
    ]
    listed = "; ".join(
        f"{name} has {' and '.join(map(str, other))}" for name, other in left_out.items()
    )
    why = (
        f"those with vectors of {choice.width} numbers, for a dataset has one width; left out, and "
        f"to be moved by another job each: {listed}"
    )
    # the job file may name a collection without its database
    for names in (remaining_names, [name.rpartition("/")[2] for name in remaining_names]):
        with suppress(SourceError):
            narrowed = take_sample(sample.source.model_copy(update={"collections": names}))
            return narrowed, [Guess("source.collections", list[Json](names), why)]
    return sample, []


def guess_store_vector(unclaimed: Unclaimed) -> list[Guess]:
    """Guess the primary vector; the others land in ``x_vector_<name>`` without a rule."""
    sample = unclaimed.sample
    fields = [
        field
        for field in unclaimed.fields("numbers", "list", "other")
        if field.path[0] in ("vector", "vectors")
    ]
    unclaimed.used_paths.update(field.path for field in fields)
    choice = _choose(sample, _widths(sample))
    if choice is None:
        return []
    why = f"a vector of the store, {choice.width} numbers"
    if len(choice.paths) > 1:
        why = (
            f"vectors of {choice.width} numbers, which the collections call differently; the first "
            "that a record has is its vector"
        )
    beside = [dotted(field.path) for field in fields if field.path not in choice.paths]
    if beside:
        why += f"; beside it: {', '.join(beside)}"
    rules = [rule(path) for path in choice.paths]
    value = rules[0] if len(rules) == 1 else rules
    return [Guess("mapping.vector", value, why, paths=choice.paths)]


def _widths(sample: Sample) -> dict[str, dict[Path, int]]:
    """Say which dense vectors each collection has, and how wide they are.

    What the store declares counts; where it declares nothing, what the sample shows.
    """
    widths: dict[str, dict[Path, int]] = {}
    for collection in sample.description.collections:
        declared: dict[Path, int | None] = {("vector",): collection.dimension}
        declared |= {("vectors", name): width for name, (width, _) in collection.vectors.items()}
        widths[collection.name] = {path: width for path, width in declared.items() if width}
    for batch, name in zip(sample.batches, sample.collections, strict=True):
        known = widths.setdefault(name, {})
        for path, width in _batch_widths(batch):
            known.setdefault(path, width)
    return widths


def _batch_widths(batch: pa.RecordBatch) -> Iterator[tuple[Path, int]]:
    """Give the dense vectors of a batch and their widths."""
    for item, column in zip(batch.schema, batch.columns, strict=True):
        if item.name == "vector":
            yield from _column_width(("vector",), column)
        elif item.name == "vectors" and pa.types.is_struct(item.type):
            for index, child in enumerate(item.type):
                values = pc.struct_field(column, [index])
                yield from _column_width(("vectors", child.name), values)


def _column_width(path: Path, column: pa.Array) -> Iterator[tuple[Path, int]]:
    is_dense = is_vector_type(column.type) and pa.types.is_floating(column.type.value_type)
    if is_dense and column.null_count < len(column):
        width = vectors.width_of(column)
        if width:
            yield path, width


def _choose(sample: Sample, widths: Mapping[str, Mapping[Path, int]]) -> _Choice | None:
    """Choose the width that most records have, and the fields that hold it."""
    rows = _rows(sample)
    covered: Counter[int] = Counter()
    for name, paths in widths.items():
        for width in set(paths.values()):
            covered[width] += rows.get(name, 0) or 1
    if not covered:
        return None

    def order(width: int) -> tuple[int, tuple[bool, int, str]]:
        named = [
            _name_order(path)
            for paths in widths.values()
            for path, other in paths.items()
            if other == width
        ]
        return -covered[width], min(named)

    width = min(covered, key=order)
    uncovered = {
        name: {path for path, other in paths.items() if other == width}
        for name, paths in widths.items()
        if width in paths.values()
    }
    chosen: list[Path] = []
    while uncovered:
        counts = Counter(path for paths in uncovered.values() for path in paths)
        path = min(counts, key=lambda path: (-counts[path], _name_order(path)))
        chosen.append(path)
        uncovered = {name: paths for name, paths in uncovered.items() if path not in paths}
    return _Choice(width, tuple(chosen))


def _rows(sample: Sample) -> dict[str, int]:
    """Count the records of each collection: the store's count, else the sample's."""
    rows: Counter[str] = Counter()
    for batch, name in zip(sample.batches, sample.collections, strict=True):
        rows[name] += batch.num_rows
    counted = {
        collection.name: collection.rows
        for collection in sample.description.collections
        if collection.rows is not None
    }
    return dict(rows) | counted


def _name_order(path: Path) -> tuple[bool, int, str]:
    """Order vectors: the unnamed one, then by name; those of a title or a picture last."""
    if path == ("vector",):
        return False, -1, ""
    name = path[-1:]
    is_secondary = bool(fieldnames.SECONDARY_VECTORS.search(plain_name(name[0])))
    return is_secondary, fieldnames.rank_path(name, fieldnames.VECTORS), path[-1]


def undeclared_references(sample: Sample) -> list[str]:
    """Name the cross-references that collections declare and the draft cannot take over."""
    drafted = sample.description.references
    left_out = {
        f"{collection.name}.{path} -> {target}"
        for collection in sample.description.collections
        for path, target in collection.references.items()
        if path not in drafted
    }
    return sorted(left_out)
