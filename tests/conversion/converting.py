"""Convert a few records as a run does, and look at the frames as plain rows."""

import json

import pyarrow as pa

from cfray.conversion.convert import Conversion
from cfray.job.spec import JobSpec
from cfray.planning.shape import work_out_shape
from cfray.records.record import from_objects
from cfray.sources.base import Description


def batch_of(given_records):
    """Make a batch of a fixed schema from a dict of columns.

    One of variants from a list of objects.
    """
    return (
        from_objects(given_records)
        if isinstance(given_records, list)
        else pa.RecordBatch.from_pydict(given_records)
    )


def convert(given_records, mapping=None, *, sample=None, **job):
    """Convert as a run does: the shape comes from the plan's look at a sample."""
    spec = JobSpec.model_validate(
        {
            "name": "articles",
            "source": {"kind": "parquet", "uri": "x"},
            "mapping": mapping or {},
            "target": {"uri": "t"},
            **job,
        }
    )
    batch, seen = batch_of(given_records), batch_of(given_records if sample is None else sample)
    described = Description(
        None if isinstance(given_records, list) else seen.schema,
        None,
        exact=False,
        size=0,
        consistency="none",
    )
    return Conversion(spec, work_out_shape(spec, described, [seen])).convert(batch, "")


def frames_of(given_records, mapping=None, **options):
    """Give the frames as rows, custom_metadata as a dict whose keys are unique.

    Cfray.types read.
    """
    converted = convert(given_records, mapping, **options)
    converted.frames.validate(full=True)
    rows = converted.frames.to_pylist()
    for row in rows:
        entries = row["custom_metadata"]
        row["meta"] = {entry["key"]: entry["value"] for entry in entries}
        assert len(row["meta"]) == len(entries), "a key stands twice in custom_metadata"
        row["types"] = json.loads(row["meta"].pop("cfray.types", "{}"))
    return rows


def only(given_records, mapping=None, **options):
    (row,) = frames_of(given_records, mapping, **options)
    return row


def faults_of(given_records, mapping=None, **options):
    return {fault.row: fault.reason for fault in convert(given_records, mapping, **options).faults}
