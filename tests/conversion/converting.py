"""Convert a few records as a run does, and look at the frames as plain rows."""

import json

import pyarrow as pa

from cfray.conversion.convert import Conversion
from cfray.job.spec import JobSpec
from cfray.planning.shape import work_out_shape
from cfray.records.record import from_objects
from cfray.sources.base import Description


def batch_of(records):
    """Make a batch with a fixed schema from a dict of columns, or of variants from JSON objects."""
    return (
        from_objects(records) if isinstance(records, list) else pa.RecordBatch.from_pydict(records)
    )


def convert(records, mapping=None, *, sample=None, **job):
    """Convert records as a run does: their shape comes from the sample that the plan reads."""
    return _conversion(records, mapping, sample, job).convert(batch_of(records), "")


def shape_of(records, mapping=None, *, sample=None, **job):
    """Give the shape that the plan works out for a conversion of these records."""
    return _conversion(records, mapping, sample, job).shape


def _conversion(records, mapping, sample, job):
    spec = JobSpec.model_validate(
        {
            "name": "articles",
            "source": {"kind": "parquet", "uri": "x"},
            "mapping": mapping or {},
            "target": {"uri": "t"},
            **job,
        }
    )
    sample_batch = batch_of(records if sample is None else sample)
    description = Description(
        None if isinstance(records, list) else sample_batch.schema,
        None,
        exact=False,
        size=0,
        consistency="none",
    )
    return Conversion(spec, work_out_shape(spec, description, [sample_batch]))


def frames_of(records, mapping=None, **options):
    """Give the frames as rows, with ``meta`` and ``types`` beside the columns.

    ``meta`` is ``custom_metadata`` as a dict, whose keys must be unique; ``types`` is the parsed
    value of its key ``cfray.types``.
    """
    converted = convert(records, mapping, **options)
    converted.frames.validate(full=True)
    rows = converted.frames.to_pylist()
    for row in rows:
        entries = row["custom_metadata"]
        row["meta"] = {entry["key"]: entry["value"] for entry in entries}
        assert len(row["meta"]) == len(entries), "a key stands twice in custom_metadata"
        row["types"] = json.loads(row["meta"].pop("cfray.types", "{}"))
    return rows


def single_frame(records, mapping=None, **options):
    (row,) = frames_of(records, mapping, **options)
    return row


def faults_of(records, mapping=None, **options):
    return {fault.row: fault.reason for fault in convert(records, mapping, **options).faults}
