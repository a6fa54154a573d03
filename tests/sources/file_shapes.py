"""Small files for the tests of what is read in a folder, and counts made without our code."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import ipc

from cfray.errors import SourceError
from cfray.job.spec import JobSpec
from cfray.records.record import Reject, file_of
from cfray.sources.base import Context


def records(first, count):
    return [{"id": f"d{number}", "n": number} for number in range(first, first + count)]


def write_jsonl(path, some_records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in some_records))
    return path


def write_parquet(path, some_records, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(some_records, pa.schema([("id", pa.string()), ("n", pa.int64())]))
    for name, column in columns.items():
        table = table.append_column(name, pa.array(column))
    pq.write_table(table, path)
    return path


def write_arrow(path, some_records):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(some_records, pa.schema([("id", pa.string()), ("n", pa.int64())]))
    with ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    return path


def source_of(kind, uri, **options):
    body = {"name": "x", "source": {"kind": kind, "uri": str(uri), **options}}
    return JobSpec.model_validate({**body, "target": {"uri": "none"}}).source


def batches_of(kind, uri, **options):
    source = source_of(kind, uri, **options)
    context = Context()
    read = [item for shard in source.shards(context) for item in source.read(shard, context)]
    assert not [item for item in read if isinstance(item, Reject)]
    return read


def counts_by_file(kind, uri, **options):
    """Return how many records are read of each file."""
    counts = {}
    for batch in batches_of(kind, uri, **options):
        counts[file_of(batch)] = counts.get(file_of(batch), 0) + batch.num_rows
    return counts


def notes_of(kind, uri, **options):
    source = source_of(kind, uri, **options)
    return list(source.describe(Context(), source.shards(Context())).notes)


def refusal(kind, uri, **options):
    """Return the terminal error with which a source is refused while it is planned."""
    with pytest.raises(SourceError) as refused:
        source_of(kind, uri, **options).shards(Context())
    assert refused.value.transient is False
    assert refused.value.remedy
    return refused.value


def all_files(folder):
    """List the paths of all files below a folder, as the operating system gives them."""
    return sorted(
        os.path.relpath(os.path.join(above, name), folder)
        for above, _, names in os.walk(folder)
        for name in names
    )
