"""The vector columns of a source: which is the primary vector, and which travel beside it.

A frame has one primary vector, and all frames of a dataset have it in one width.  Every other
vector that a source holds lands in a column ``x_vector_<name>``.
"""

from __future__ import annotations

import re

import pyarrow as pa

from cfray.errors import ConfigError
from cfray.job.mapping import Path, as_path, dotted
from cfray.job.spec import JobSpec
from cfray.records import vectors
from cfray.records.record import is_variant
from cfray.records.types import SPARSE
from cfray.sources.base import Description, Metric

#: The column of a store's named vectors (``vectors.<name>``).
_NAMED = "vectors"
#: Collections that a message lists for each width.
_LISTED_COLLECTIONS = 5


def typed_columns(batches: list[pa.RecordBatch]) -> dict[Path, pa.DataType]:
    """List the columns that are no variants, with a store's named vectors as columns."""
    types: dict[Path, pa.DataType] = {}
    for batch in batches:
        for item in batch.schema:
            if is_variant(item):
                continue
            if item.name == _NAMED and pa.types.is_struct(item.type):
                for child in item.type:
                    types.setdefault((_NAMED, child.name), child.type)
            else:
                types.setdefault((item.name,), item.type)
    return types


def choose_primary(types: dict[Path, pa.DataType]) -> Path:
    """Choose the primary vector where the mapping does not.

    It is the column ``vector``, or the only dense vector among a store's named vectors.

    Raises:
        ConfigError: the store has several named dense vectors.
    """
    named = [
        path
        for path, kind in types.items()
        if path[0] == _NAMED
        and pa.types.is_fixed_size_list(kind)
        and pa.types.is_floating(kind.value_type)
    ]
    if ("vector",) in types or not named:
        return ("vector",)
    if len(named) > 1:
        listed = ", ".join(f"{dotted(path)} ({types[path].list_size} wide)" for path in named)
        raise ConfigError(
            f"the source has several vectors: {listed}",
            f"choose the primary vector (mapping.vector: {dotted(named[0])}); the others land in "
            "x_vector_<name>",
        )
    return named[0]


def check_widths(description: Description, primary: Path) -> None:
    """Refuse source collections whose primary vectors have different widths.

    Raises:
        ConfigError: names the widths and the collections.
    """
    collections: dict[int, list[str]] = {}
    for collection in description.collections:
        width, _ = collection.vectors.get(primary[-1], (None, None))
        if primary == ("vector",):
            width = collection.dimension
        if width:
            collections.setdefault(width, []).append(collection.name)
    if len(collections) > 1:
        listed = "; ".join(
            f"{width} in {', '.join(names[:_LISTED_COLLECTIONS])}"
            for width, names in sorted(collections.items())
        )
        raise ConfigError(
            f"the source collections have {dotted(primary)} of different widths: {listed}",
            "a dataset has one width: name the collections of one width in source.collections, and "
            "write another job for each other width",
        )


def metric_of(description: Description, primary: Path) -> Metric | None:
    """Give the distance of the primary vector; None where the collections do not agree on it."""
    metrics = {
        collection.metric
        if primary == ("vector",)
        else collection.vectors.get(primary[-1], (0, None))[1]
        for collection in description.collections
    }
    return metrics.pop() if len(metrics) == 1 else None


def further_vectors(
    job: JobSpec, types: dict[Path, pa.DataType], primary: Path, schema: pa.Schema | None
) -> dict[str, Path]:
    """Name the vectors beside the primary vector: name behind ``x_vector_`` -> path.

    They are the vectors that the mapping names, every vector column that no rule takes, and the
    primary vector itself where its numbers are narrower than the target's float32.

    Raises:
        ConfigError: the mapping names a column that holds no vectors.
    """
    further = {name: as_path(rule) for name, rule in job.mapping.vectors.items()}
    for name, path in further.items():
        _check_vector_type(name, path, schema)
    used = {path for _, path in job.mapping.rules()} | {primary, *further.values()}
    for path, kind in types.items():
        if path not in used and _is_further_vector(kind, named=path[0] == _NAMED):
            name = _column_name(path)
            further[name if name not in further else f"{name}_{len(further)}"] = path
    kind = types.get(primary)
    if kind is not None and pa.types.is_fixed_size_list(kind) and _is_narrow(kind.value_type):
        further.setdefault(_column_name(primary), primary)
    return further


def _check_vector_type(name: str, path: Path, schema: pa.Schema | None) -> None:
    """Refuse a rule of ``mapping.vectors`` that names a column of another type."""
    if schema is None or len(path) != 1 or path[0] not in schema.names:
        return
    kind = schema.field(path[0]).type
    if not vectors.is_vector_type(kind):
        raise ConfigError(
            f"mapping.vectors.{name}: {path[0]} is of type {kind}, not a list of numbers",
            f"for CSV, declare it: source.types: {{{path[0]}: list<double>}}",
        )


def _column_name(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", path[-1])


def _is_further_vector(kind: pa.DataType, *, named: bool) -> bool:
    """Tell whether a column that no rule takes holds vectors.

    That is a fixed-size list of numbers; among a store's named vectors, a sparse vector or a
    multi-vector, too.
    """
    if pa.types.is_fixed_size_list(kind):
        return vectors.is_vector_type(kind) and (
            pa.types.is_floating(kind.value_type) or _is_narrow(kind.value_type)
        )
    return named and (
        kind.equals(SPARSE)
        or (pa.types.is_list(kind) and pa.types.is_fixed_size_list(kind.value_type))
    )


def _is_narrow(kind: pa.DataType) -> bool:
    """Tell the numbers that vectors may be stored in and that are narrower than float32."""
    return bool(pa.types.is_float16(kind) or pa.types.is_int8(kind) or pa.types.is_uint8(kind))
