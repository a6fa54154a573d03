"""A look at an export's first objects: how wide its vectors are, and where references point.

The files declare neither.  The definitions name the vectors and the collections of references,
but no width, and an export may come without them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from cfray.sources.files.listing import explain_read_errors, open_file
from cfray.sources.weaviate.export_files import ExportFile
from cfray.sources.weaviate.export_vectors import MULTI, SINGLE, VECTOR_COLUMNS, build_vectors
from cfray.sources.weaviate.schema import Definition
from cfray.sources.weaviate.types import beacon_collections

#: Objects that are looked at, and objects at most where a declared vector was not seen among them
#: (not of tenants, of which there may be thousands).
_SAMPLE_ROWS, _MAX_SAMPLE_ROWS = 100, 2_000


@dataclass
class ExportSample:
    """What some objects of a collection or tenant show.

    Attributes:
        vectors: column of a vector -> (width, ``SINGLE`` or ``MULTI``).
        references: reference property -> the collections that its beacons name; "" stands for
            beacons that name none.
    """

    vectors: dict[str, tuple[int, int]] = field(default_factory=dict)
    references: dict[str, set[str]] = field(default_factory=dict)

    @property
    def widths(self) -> dict[str, int]:
        """Give the width of each vector."""
        return {column: width for column, (width, _) in self.vectors.items()}


def sample_export(
    files: list[ExportFile], definitions: Mapping[str, Definition]
) -> dict[str, ExportSample]:
    """Look at some objects of each collection or tenant.

    Args:
        files: of the export.
        definitions: collection -> definition; empty where the export came without them.
    """
    files_by_name: dict[str, list[ExportFile]] = {}
    for file in files:
        files_by_name.setdefault(file.name, []).append(file)
    samples: dict[str, ExportSample] = {}
    for name, of_name in files_by_name.items():
        definition = definitions.get(of_name[0].collection)
        samples[name] = _sample_files(of_name, definition.vectors if definition else ())
    return samples


def _sample_files(files: list[ExportFile], declared_vectors: Collection[str]) -> ExportSample:
    sample, rows = ExportSample(), 0
    is_tenant = files[0].name != files[0].collection
    for batch in _batches(files):
        for column, array in build_vectors(batch, {}).items():
            depth = MULTI if pa.types.is_list(array.type) else SINGLE
            vector_type = array.type.value_type if depth == MULTI else array.type
            if pa.types.is_fixed_size_list(vector_type):
                sample.vectors.setdefault(column, (vector_type.list_size, depth))
        for text in batch.column("properties").to_pylist():
            for key, value in (orjson.loads(text) if text else {}).items():
                if is_reference(value):
                    sample.references.setdefault(key, set()).update(beacon_collections(value))
        rows += len(batch)
        all_seen = set(declared_vectors) <= sample.vectors.keys()
        if rows >= (_SAMPLE_ROWS if all_seen or is_tenant else _MAX_SAMPLE_ROWS):
            break
    return sample


def _batches(files: list[ExportFile]) -> Iterator[pa.RecordBatch]:
    for file in files:
        with explain_read_errors(file.pin), open_file(file.pin) as stream:
            yield from pq.ParquetFile(stream).iter_batches(
                _SAMPLE_ROWS, columns=[*VECTOR_COLUMNS, "properties"], use_threads=False
            )


def is_reference(value: Any) -> bool:
    """Tell the value of a reference property: a list of beacons and of nothing else."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(element, dict) and _is_beacon(element) for element in value)
    )


def _is_beacon(element: Mapping[str, Any]) -> bool:
    beacon = element.get("beacon")
    return (
        element.keys() <= {"beacon", "href"}
        and isinstance(beacon, str)
        and beacon.startswith("weaviate://")
    )
