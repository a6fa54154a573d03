"""What a job makes of a file with columns of any Arrow type gives the file's values back.

Each file is described, inspected, planned, read, converted and restored; a column that cannot be
restored exactly is named by the plan, and refused under ``strict``.
"""

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import ipc

from cfray.conversion.convert import Conversion
from cfray.conversion.rejects import reject_record, row_from_text
from cfray.errors import CfrayError, ConfigError
from cfray.inspection.source import draft
from cfray.job.spec import JobSpec
from cfray.planning.plan import preview
from cfray.records.record import Reject, is_variant, variant_texts
from cfray.sources.base import Context
from tests.arrow_arrays import LEAVES, make_array, make_type
from tests.restoring import (
    plain_values,
    read_frames,
    restored_fields,
    unnumbered,
)

ROWS = 9


KINDS = {".parquet": "parquet", ".arrow": "arrow", ".lance": "lance"}


def job_of(path, **options):
    kind = KINDS[path.suffix]
    return JobSpec.model_validate(
        {
            "name": "types",
            "source": {"kind": kind, "uri": str(path)},
            "target": {"uri": str(path) + ".lance"},
            **options,
        }
    )


def table_of(kinds, seed=0, rows=ROWS):
    """Make a table of such columns, each a slice of a longer array, and ids."""
    columns = [make_array(kind, rows + 3, seed + n).slice(2, rows) for n, kind in enumerate(kinds)]
    return pa.table(
        {"id": pa.array([f"r{n}" for n in range(rows)])}
        | {f"c{n}": column for n, column in enumerate(columns)}
    )


def write_arrow(table, path):
    with ipc.new_file(path, table.schema) as writer:
        for batch in table.to_batches(4):
            writer.write_batch(batch)


def read_all(path):
    """Read a file with pyarrow alone, which does not read all as it wrote it."""
    with ipc.open_file(path) as reader:
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
    for batch in batches:
        batch.validate(full=True)
    return pa.Table.from_batches(batches)


def check_file(path, table):
    """Check that a job restores the columns of a file, or that its plan names them."""
    job = job_of(path)
    assert draft(str(path), None) is not None
    plan, forecast = preview(job)
    lossy = {sentence.split(" ")[0] for sentence in forecast.lossy}
    if lossy:
        with pytest.raises(ConfigError, match="strict"):
            preview(job_of(path, strict=True))
    conversion = Conversion(job, plan.shape)
    context = Context(batch_bytes=1 << 20)
    records = []
    for shard in job.source.shards(context):
        for batch in job.source.read(shard, context):
            assert not isinstance(batch, Reject), batch
            assert batch.schema == job.source.describe(context, [shard]).schema
            check_quarantine(conversion, batch)
            converted = conversion.convert(batch, "")
            assert not converted.faults
            converted.frames.validate(full=True)
            records += read_frames(converted.frames)
    assert [texts["original_id"] for texts, _ in records] == table.column("id").to_pylist()
    for name in table.column_names[1:]:
        if name not in lossy and name not in {path[0] for path in plan.shape.vectors.values()}:
            column = [value for part in table.column(name).chunks for value in plain_values(part)]
            restored = [
                restored_fields(texts, types, plan.shape.types, [], lossy).get((name,))
                for texts, types in records
            ]
            assert unnumbered(restored) == unnumbered(column)


def check_quarantine(conversion, batch):
    """Check that a row whose id is null is set aside with its content, and the others go on."""
    ids = pa.array([None, *batch.column(0).to_pylist()[1:]], pa.string())
    faulty = batch.set_column(0, batch.schema.field(0), ids)
    converted = conversion.convert(faulty, "")
    (fault,) = converted.faults
    assert converted.frames.num_rows == batch.num_rows - 1
    reject = reject_record(faulty, fault, "somewhere", "", conversion.job.mapping)
    assert reject.to_line()
    row = row_from_text(reject.record)
    assert row.schema == batch.schema
    for field, original in zip(row.schema, batch.schema, strict=True):
        assert (field.metadata or None) == (original.metadata or None)
    for field, column, original in zip(row.schema, row.columns, faulty.columns, strict=True):
        if is_variant(field):
            assert variant_texts(column)[0].as_py() == variant_texts(original)[0].as_py()
        else:
            assert repr(plain_values(column)) == repr(plain_values(original.slice(0, 1)))


def kinds_of(seed):
    """Make five types."""
    return [make_type(5 * seed + number) for number in range(5)]


@pytest.mark.parametrize("seed", range(12))
def test_an_arrow_file_of_any_types(tmp_path, seed):
    table = table_of(kinds_of(seed), seed)
    path = tmp_path / "a.arrow"
    write_arrow(table, path)
    try:
        table = read_all(path)
    except (pa.ArrowException, OSError):
        with pytest.raises(CfrayError, match=path.name):
            preview(job_of(path))
    else:
        check_file(path, table)


@pytest.mark.parametrize("seed", range(12))
def test_a_parquet_file_of_any_types(tmp_path, seed):
    table = table_of(kinds_of(seed), seed)
    path = tmp_path / "a.parquet"
    for name in table.column_names[1:]:
        try:
            pq.write_table(table.select(["id", name]), path)
            pq.read_table(path)
        except (pa.ArrowException, OSError):
            table = table.drop_columns([name])
    pq.write_table(table, path)
    check_file(path, pq.read_table(path))


def test_an_arrow_file_of_every_flat_type(tmp_path):
    table = table_of(LEAVES)
    write_arrow(table, tmp_path / "a.arrow")
    check_file(tmp_path / "a.arrow", table)


def test_a_lance_dataset_of_any_types(tmp_path):
    path = tmp_path / "a.lance"
    kinds = [*LEAVES, *(make_type(seed, 2) for seed in range(40))]
    table = table_of(kinds)
    for number, name in enumerate(table.column_names[1:]):
        part = table.select(["id", name])
        try:
            lance.write_dataset(part, str(tmp_path / f"{number}.lance"))
        except (OSError, ValueError, pa.ArrowException):
            table = table.drop_columns([name])
    assert table.num_columns > 20
    lance.write_dataset(table, str(path))
    check_file(path, lance.dataset(str(path)).to_table())
