"""A migration carries columns of every Arrow type, and sets aside and replays a row of them."""

import json

import lance
import pyarrow as pa
import yaml
from pyarrow import ipc

from tests.arrow_arrays import LEAVES, make_array, make_type
from tests.restoring import plain_values, read_frames, restored_fields, unnumbered

ROWS = 40
#: Seeds of nested types that IPC files can hold as they are; without unions, whose member types
#: are recorded with each value.
NESTED = [seed for seed in range(60) if "union" not in str(make_type(seed))]


def can_be_read(kind, column):
    """Tell whether pyarrow reads what it writes; it loses dictionaries in dictionaries."""
    sink = pa.BufferOutputStream()
    batch = pa.record_batch([column], pa.schema([("x", kind)]))
    try:
        with ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        read = ipc.open_file(sink.getvalue()).get_batch(0)
        read.validate(full=True)
    except pa.ArrowException:
        return False
    return repr(plain_values(read.column(0))) == repr(plain_values(column))


def write_table(path):
    kinds = [*LEAVES, *map(make_type, NESTED)]
    names = [f"r{n}" for n in range(ROWS)]
    columns = {"id": pa.array([None, *names[1:]]), "name": pa.array(names)}
    for number, kind in enumerate(kinds):
        column = make_array(kind, ROWS + 2, number).slice(1, ROWS)
        if can_be_read(kind, column):
            columns[f"c{number}"] = column
    assert len(columns) > len(LEAVES)
    table = pa.table(columns)
    with ipc.new_file(path, table.schema) as writer:
        for batch in table.to_batches(13):
            writer.write_batch(batch)
    return table


def write_job(folder, **mapping):
    job = folder / f"job-{len(mapping)}.yaml"
    job.write_text(
        yaml.safe_dump(
            {
                "name": "types",
                "source": {"kind": "arrow", "uri": "types.arrow"},
                "target": {"uri": "types.lance"},
                "limits": {"max_quarantined": 0.5},
                "mapping": mapping,
            }
        )
    )
    return job


def read_back(target, lossy):
    """Restore the rows of a target: original id -> fields by path."""
    dataset = lance.dataset(str(target))
    types = json.loads(dataset.schema.metadata[b"cfray.types"])
    scanner = dataset.scanner(columns=["custom_metadata"], filter="record_type = 'document'")
    rows = {}
    for batch in scanner.to_batches():
        for texts, row_types in read_frames(batch):
            rows[texts["original_id"]] = restored_fields(texts, row_types, types, [], lossy)
    return rows


def check_rows(table, rows, first, without):
    """Check the rows of a target from a number on against the table that was written."""
    assert len(rows) == ROWS - first
    for name in table.column_names[2:]:
        values = [value for part in table[name].chunks for value in plain_values(part)]
        for number in range(first, ROWS if name not in without else 0):
            value = rows[f"r{number}"].get((name,))
            assert unnumbered(value) == unnumbered(values[number]), (name, number)


def test_every_type_is_migrated_set_aside_and_replayed(cfray, tmp_path):
    table = write_table(tmp_path / "types.arrow")
    job, target = write_job(tmp_path), tmp_path / "types.lance"
    plan = cfray.run("plan", job, "--json").document()
    lossy = {sentence.split(" ")[0] for sentence in plan["lossy"]}
    # the row without an id is in quarantine
    cfray.run("migrate", job).ended_with(3)
    vectors = {name.removeprefix("x_vector_") for name in lance.dataset(str(target)).schema.names}
    check_rows(table, read_back(target, lossy), 1, lossy | vectors)
    cfray.run("quarantine", "replay", write_job(tmp_path, id=["id", "name"])).ended_with(0)
    check_rows(table, read_back(target, lossy), 0, lossy | vectors)
