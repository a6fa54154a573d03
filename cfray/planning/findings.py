"""What a converted sample shows that the operator should know: vectors, ids, quarantine.

A note says what is as it should be and yet not obvious.  A warning says that the run would stop, or
that what comes out is hardly what anyone wants.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.convert import Conversion, Converted
from cfray.conversion.fields import Fields
from cfray.job.mapping import Key, Path, SourceShape, dotted, rule_paths
from cfray.job.spec import JobSpec
from cfray.planning.copies import copy_warnings
from cfray.planning.date_findings import unread_dates
from cfray.planning.references import reference_notes
from cfray.planning.sample import Sample
from cfray.planning.vector_findings import vector_warnings
from cfray.records.record import variant_texts, variant_types
from cfray.sources.base import Description

#: Begin of a warning.
WOULD_STOP = "THIS RUN WOULD STOP"


@dataclass(frozen=True, slots=True)
class Bad:
    """Records of a sample that do not come in.

    Attributes:
        sampled: records looked at.
        refused: do not fit.
        duplicates: have the id of an earlier one.
        is_whole: whether the sample is all records of the source.
    """

    sampled: int
    refused: int
    duplicates: int
    is_whole: bool


@dataclass(frozen=True)
class Findings:
    """What is found in a sample and in what became of it.

    Attributes:
        job: the job file.
        description: what the source says of itself.
        shape: what every worker agrees on.
        sample: records of the source.
        converted: the sample's batches, converted.
    """

    job: JobSpec
    description: Description
    shape: SourceShape
    sample: Sample
    converted: list[Converted]

    @cached_property
    def fields(self) -> list[Fields]:
        """Give the fields of the sample's batches."""
        paths = Conversion(self.job, self.shape).paths
        blank_is_null = self.shape.blank_is_null
        return [Fields(batch, paths, blank_is_null=blank_is_null) for batch in self.sample.batches]

    @cached_property
    def references(self) -> tuple[list[str], list[str]]:
        """Give notes and warnings about the references of the sample."""
        uuids = [batch.frames.column("uuid") for batch in self.converted]
        all_uuids = pa.chunked_array(uuids, pa.string()).combine_chunks()
        return reference_notes(self.job, self.shape, self.sample, all_uuids)

    def warnings(self, refused: int, duplicates: int) -> list[str]:
        """Warn of a run that would stop, and of what is hardly wanted.

        Args:
            refused: records of the sample that do not fit.
            duplicates: records of the sample whose id an earlier one has.
        """
        bad = Bad(self.sample.rows, refused, duplicates, is_whole=self.sample.is_complete)
        return [
            *limit_warnings(self.job, bad, self.description.rows),
            *self.description.unread,
            *copy_warnings(self.sample.batches, self.description.copies),
            *unread_dates(self.job, self.shape, self.fields, has_example=True),
            *vector_warnings(self.job, self.shape, self.sample, self.fields, self.converted),
            *self.references[1],
        ]


def limit_warnings(job: JobSpec, bad: Bad, rows: int | None) -> list[str]:
    """Warn where a run would stop for the records that do not come in.

    Args:
        job: the job file.
        bad: what the sample shows.
        rows: records of the source; None where unknown.
    """
    if bad.duplicates and job.mapping.on_duplicate == "error":
        reason = f"{bad.duplicates:,} sampled records have the id of an earlier one"
        return [f"{WOULD_STOP}: {reason}, and mapping.on_duplicate is error"]
    limit, count = job.limits.max_quarantined, bad.refused + bad.duplicates
    share = count / max(1, bad.sampled)
    records = bad.sampled if bad.is_whole else rows or bad.sampled
    if share * records <= (limit * records if isinstance(limit, float) else limit):
        return []
    shown = f"{limit:.6g} of all records" if isinstance(limit, float) else f"{limit:,} records"
    reason = (
        f"{count:,} of {bad.sampled:,} sampled records ({share:.1%}) would go to quarantine, and "
        f"limits.max_quarantined is {shown}"
    )
    return [f"{WOULD_STOP}: {reason}: correct the job file or the source, or raise the limit"]


def float_ids(job: JobSpec, sample: list[Fields]) -> list[str]:
    """Name the way out where ids are floats, of which every one is an integer."""
    if isinstance(job.mapping.id, Key):
        return []
    notes = []
    for path in rule_paths(job.mapping.id):
        numbers = [_floats(fields, path) for fields in sample if path in fields.columns]
        floats = np.concatenate([*numbers, np.empty(0)])
        if len(floats) and (np.trunc(floats) == floats).all():
            name = dotted(path)
            notes.append(
                f"{name}: a float cannot be an id, and every sampled one is an integer: make it "
                "an integer in the source (pandas: astype('Int64'); CSV: source.types: "
                f"{{{name}: int64}}), or keep it as a composite id (mapping.id: "
                f"{{key: [{name}]}})"
            )
    return notes


def _floats(fields: Fields, path: Path) -> npt.NDArray[np.float64]:
    """Give the floats of a field."""
    column = fields.columns[path]
    if path in fields.variants:
        is_float = pc.fill_null(pc.equal(variant_types(column), "double"), fill_value=False)
        column = variant_texts(column).filter(is_float).cast(pa.float64())
    if not pa.types.is_floating(column.type):
        return np.empty(0)
    numbers: npt.NDArray[np.float64] = column.drop_null().cast(pa.float64()).to_numpy()
    return numbers
