"""The installed pylance supports the operation behind ``cfray embed``.

An upgrade of pylance that breaks the operation fails here.
"""

import json
from collections import Counter
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from lance import LanceDataset, LanceOperation
from lance.dataset import Transaction
from lance.fragment import FragmentMetadata, write_fragments
from lance.schema import LanceSchema

from cfray.embedding.join import JoinedFragment
from cfray.embedding.pieces import state_of
from cfray.embedding.swap import replace_columns
from cfray.errors import TargetUnavailable
from cfray.frames.schema import ORIGIN
from cfray.target.commit import with_field

OLD, NEW = 4, 6


def make_rows(first_number: int, count: int, width: int) -> pa.Table:
    numbers = np.arange(first_number, first_number + count)
    vectors = np.repeat(numbers.astype(np.float32)[:, None], width, axis=1)
    return pa.table(
        {
            "uuid": [f"u{number}" for number in numbers],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width),
            "metadata": pa.array([[{"key": "k", "value": str(number)}] for number in numbers]),
            "position": pa.array(numbers, pa.int32()),
            ORIGIN: ["kept"] * count,
        }
    )


@pytest.fixture
def dataset(tmp_path: Path) -> LanceDataset:
    """Make three fragments with stable row ids, deletions in two of them and a vector index."""
    uri = str(tmp_path / "t.lance")
    schema = make_rows(0, 1, OLD).schema
    lance.write_dataset(
        schema.empty_table(), uri, enable_stable_row_ids=True, data_storage_version="2.2"
    )
    for first_number in (0, 100, 200):
        current = lance.dataset(uri)
        new_fragments = write_fragments(
            make_rows(first_number, 100, OLD), uri, schema=schema, mode="append"
        )
        operation = LanceOperation.Merge(
            [fragment.metadata for fragment in current.get_fragments()] + new_fragments,
            LanceSchema.from_pyarrow(schema),
            preserves_nullability=True,
        )
        LanceDataset.commit(current, Transaction(current.version, operation), max_retries=0)
    lance.dataset(uri).delete("uuid IN ('u5', 'u150', 'u151')")
    lance.dataset(uri).create_index("vector", "IVF_FLAT", num_partitions=1)
    return lance.dataset(uri)


def join_fragments(
    dataset: LanceDataset, *, has_further_column: bool = False
) -> list[JoinedFragment]:
    """Write the new columns of every fragment, as the tasks do; a vector repeats minus its row."""
    joined = []
    for fragment in dataset.get_fragments():
        table = fragment.to_table(columns=["uuid"])
        numbers = np.array([int(uuid[1:]) for uuid in table["uuid"].to_pylist()], np.float32)
        vectors = pa.FixedSizeListArray.from_arrays(
            pa.array(np.repeat(-numbers[:, None], NEW, axis=1).ravel()), NEW
        )
        columns = {"v": vectors, "o": ["new"] * len(numbers)}
        if has_further_column:
            halves = vectors.values.to_numpy().astype(np.float16)
            columns["h"] = pa.FixedSizeListArray.from_arrays(pa.array(halves), NEW)
        metadata, _ = fragment.merge_columns(pa.table(columns).to_reader())
        joined.append(
            JoinedFragment(
                fragment=fragment.fragment_id,
                state=state_of(fragment.metadata),
                file=metadata.to_json()["files"][-1],
                files=[],
                sums={},
                collections={},
                counts=Counter(),
                size=0,
            )
        )
    return joined


FIELDS = (pa.field("vector", pa.list_(pa.float32(), NEW)), pa.field(ORIGIN, pa.string()))
ADDED_FIELD = pa.field("x_vector_half", pa.list_(pa.float16(), NEW))


def swap_columns(
    dataset: LanceDataset, fields: tuple[pa.Field, ...] = FIELDS, leaving: tuple[int, ...] = ()
) -> LanceDataset:
    joined = join_fragments(dataset, has_further_column=ADDED_FIELD in fields)
    fragments = replace_columns(dataset, fields, joined, leaving)
    schema = dataset.schema
    for field in fields:
        schema = with_field(schema, field)
    operation = LanceOperation.Merge(
        fragments,
        LanceSchema.from_pyarrow(schema.with_metadata({"ledger": "new"})),
        preserves_nullability=True,
    )
    LanceDataset.commit(dataset, Transaction(dataset.version, operation), max_retries=0)
    return lance.dataset(dataset.uri)


def check_rows(dataset: LanceDataset, rows: int = 297) -> None:
    table = dataset.to_table()
    assert len(table) == rows
    for uuid, vector, origin in zip(
        table["uuid"].to_pylist(),
        table["vector"].to_pylist(),
        table[ORIGIN].to_pylist(),
        strict=True,
    ):
        assert vector == [-float(uuid[1:])] * NEW
        assert origin == "new"


def test_a_column_gets_new_values_and_another_width_in_one_version(dataset):
    other_columns = ["uuid", "metadata", "position"]
    columns_before = dataset.to_table(columns=other_columns, with_row_id=True)
    dataset.drop_index("vector_idx")
    dataset = lance.dataset(dataset.uri)
    old_version = dataset.version
    swapped = swap_columns(dataset)
    assert swapped.version == old_version + 1
    assert swapped.schema.metadata == {b"ledger": b"new"}
    check_rows(swapped)
    assert swapped.to_table(columns=other_columns, with_row_id=True).equals(columns_before), (
        "another column, or a stable row id, changed"
    )
    old_dataset = lance.dataset(dataset.uri, version=old_version)
    assert old_dataset.schema.field("vector").type.list_size == OLD
    assert old_dataset.to_table(filter="uuid = 'u42'")["vector"].to_pylist() == [[42.0] * OLD]


def test_a_column_comes_in_with_the_vectors(dataset):
    dataset.drop_index("vector_idx")
    swapped = swap_columns(lance.dataset(dataset.uri), (*FIELDS, ADDED_FIELD))
    check_rows(swapped)
    assert swapped.schema.field(ADDED_FIELD.name).type == ADDED_FIELD.type
    table = swapped.to_table(columns=["uuid", ADDED_FIELD.name])
    for uuid, half in zip(*table.to_pydict().values(), strict=True):
        assert half == [-float(uuid[1:])] * NEW
    assert ADDED_FIELD.name not in lance.dataset(dataset.uri, version=dataset.version).schema.names


def test_rows_leave_in_the_commit_that_brings_the_vectors(dataset):
    dataset.drop_index("vector_idx")
    dataset = lance.dataset(dataset.uri)
    before = dataset.to_table(columns=["uuid"], with_row_id=True).to_pylist()
    leaving = tuple(row["_rowid"] for row in before if row["uuid"] in ("u7", "u42", "u152"))
    swapped = swap_columns(dataset, leaving=leaving)
    assert swapped.version == dataset.version + 1
    check_rows(swapped, 294)
    after = swapped.to_table(columns=["uuid"], with_row_id=True).to_pylist()
    assert after == [row for row in before if row["_rowid"] not in leaving]
    assert lance.dataset(dataset.uri, version=dataset.version).count_rows() == 297


@pytest.mark.parametrize("first_row", [0, 100, 200])
def test_every_row_of_a_fragment_may_leave(dataset, first_row):
    dataset.drop_index("vector_idx")
    dataset = lance.dataset(dataset.uri)
    before = dataset.to_table(columns=["uuid", "position"], with_row_id=True).to_pylist()
    leaving = tuple(row["_rowid"] for row in before if row["position"] // 100 == first_row // 100)
    swapped = swap_columns(dataset, (*FIELDS, ADDED_FIELD), leaving)
    check_rows(swapped, 297 - len(leaving))
    again = swap_columns(swapped, (*FIELDS, ADDED_FIELD))
    check_rows(again, 297 - len(leaving))
    again.optimize.compact_files()
    check_rows(lance.dataset(dataset.uri), 297 - len(leaving))


def test_compaction_indexes_and_further_commits_work_on_it(dataset):
    dataset.drop_index("vector_idx")
    swapped = swap_columns(lance.dataset(dataset.uri))
    swapped.create_index("vector", "IVF_FLAT", num_partitions=1)
    swapped = lance.dataset(swapped.uri)
    assert swapped.to_table(nearest={"column": "vector", "q": [-42.0] * NEW, "k": 1})[
        "uuid"
    ].to_pylist() == ["u42"]
    new_fragments = write_fragments(
        make_rows(300, 10, NEW), swapped.uri, schema=swapped.schema, mode="append"
    )
    operation = LanceOperation.Merge(
        [fragment.metadata for fragment in swapped.get_fragments()] + new_fragments,
        LanceSchema.from_pyarrow(swapped.schema),
        preserves_nullability=True,
    )
    LanceDataset.commit(swapped, Transaction(swapped.version, operation), max_retries=0)
    row_ids = (
        lance.dataset(swapped.uri).to_table(columns=["uuid"], with_row_id=True).sort_by("uuid")
    )
    lance.dataset(swapped.uri).optimize.compact_files()
    compacted = lance.dataset(swapped.uri)
    assert len(compacted.get_fragments()) < 4
    assert compacted.to_table(columns=["uuid"], with_row_id=True).sort_by("uuid").equals(row_ids)
    table = compacted.to_table(filter="position < 300")
    assert all(
        vector == [-float(uuid[1:])] * NEW
        for uuid, vector in zip(table["uuid"].to_pylist(), table["vector"].to_pylist(), strict=True)
    )


def test_an_index_of_the_old_vectors_would_lie(dataset):
    """Lance itself would keep the index, so cfray drops it before the swap."""
    swapped = swap_columns(dataset)
    assert {index.name for index in swapped.describe_indices()} == {"vector_idx"}


def test_a_fragment_that_changed_meanwhile_is_noticed(dataset):
    joined = join_fragments(dataset)
    dataset.delete("uuid = 'u7'")
    with pytest.raises(TargetUnavailable, match="while its vectors were being made"):
        replace_columns(lance.dataset(dataset.uri), FIELDS, joined)


def test_a_tombstone_survives_json(dataset):
    """Receipts and compactions carry the metadata of a swapped fragment as JSON."""
    metadata = replace_columns(dataset, FIELDS, join_fragments(dataset))[0].to_json()
    assert [-2 in file["fields"] for file in metadata["files"]] == [True, False]
    assert FragmentMetadata.from_json(json.dumps(metadata)).to_json() == metadata
