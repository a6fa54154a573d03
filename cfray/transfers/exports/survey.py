"""What is found out of every row before the first one is written: types of fields, collections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.restore import Restoration
from cfray.conversion.shown_values import MetadataRows
from cfray.engine.lines import LineOptions, TaskLine
from cfray.transfers.exports.fields import Kinds
from cfray.transfers.exports.part import FragmentReader, Part


def survey_kinds(
    reader: FragmentReader, restoration: Restoration, parts: Sequence[Part], options: LineOptions
) -> Kinds:
    """Find the types that rows name for their values.  Ray must be running."""
    kinds = Kinds()
    survey = KindSurvey(reader, restoration.shape.types)
    for found in TaskLine(replace(options, step="survey"), work=survey).run(parts):
        kinds.add(found)
    return kinds


def survey_collections(
    reader: FragmentReader, parts: Sequence[Part], options: LineOptions
) -> dict[str, set[str]]:
    """Find the collections, each with the uuids of the headers that its documents name."""
    collections: dict[str, set[str]] = {}
    line = TaskLine(replace(options, step="collections"), work=CollectionSurvey(reader))
    for headers in line.run(parts):
        for name, uuids in headers.items():
            collections.setdefault(name, set()).update(uuids)
    return collections


@dataclass(frozen=True, slots=True)
class KindSurvey:
    """Finds the types that rows of a part name for their values."""

    reader: FragmentReader
    types: dict[str, str]

    def __call__(self, part: Part) -> Kinds:
        """Read the custom_metadata of a part.  Body of a task."""
        kinds = Kinds()
        for batch in self.reader.batches(part, ["custom_metadata"]):
            kinds.add_rows(MetadataRows.of(batch.column("custom_metadata")), self.types)
        return kinds


@dataclass(frozen=True, slots=True)
class CollectionSurvey:
    """Finds the collections of a part, and which source collections each holds records of."""

    reader: FragmentReader

    def __call__(self, part: Part) -> dict[str, set[str]]:
        """Give the uuids of the headers of each collection.  Body of a task."""
        found: dict[str, set[str]] = {}
        for batch in self.reader.batches(part, ["collection", "collection_id"]):
            names = pc.fill_null(batch.column("collection"), "")
            pairs = pa.table({"name": names, "header": batch.column("collection_id")})
            for pair in pairs.group_by(["name", "header"]).aggregate([]).to_pylist():
                found.setdefault(pair["name"], set()).add(pair["header"])
        return found
