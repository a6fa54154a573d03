"""What a compaction will merge and what frames take on disk, foretold as Lance does it."""

import lance
import numpy as np
import pyarrow as pa
import pytest
from lance.fragment import write_fragments
from lance.optimize import Compaction

from cfray.target.file_sizes import MeasuredFrames, merge_small


def fragmented(folder, sizes):
    """Write a dataset with fragments of so many rows."""
    uri = str(folder / "data.lance")
    table = pa.table({"n": np.arange(max(sizes))})
    lance.write_dataset(table.slice(0, 0), uri, enable_stable_row_ids=True)
    fragments = [
        fragment
        for rows in sizes
        for fragment in write_fragments(table.slice(0, rows), uri, schema=table.schema)
    ]
    return lance.LanceDataset.commit(uri, lance.LanceOperation.Append(fragments), read_version=1)


@pytest.mark.parametrize(
    "sizes",
    [
        [20] * 50,
        [20] * 5,
        [20],
        [300, 20, 20, 300, 1],
        [1, 104, 105, 7, 106, 3, 3, 99],
        [104] * 9 + [2],
        [500, 1],
    ],
)
def test_fragments_are_grouped_as_lance_merges_them(tmp_path, sizes):
    dataset = fragmented(tmp_path, sizes)
    foretold = merge_small(sizes, 105)
    plan = Compaction.plan(dataset, {"target_rows_per_fragment": 105})
    assert len(plan.tasks) == sum(len(group) > 1 for group in foretold)
    Compaction.commit(dataset, [task.execute(dataset) for task in plan.tasks])
    merged = [item.physical_rows for item in lance.dataset(dataset.uri).get_fragments()]
    assert sorted(merged) == sorted(sum(group) for group in foretold)


def test_the_bytes_of_a_file_are_measured_and_those_of_a_larger_one_worked_out(tmp_path):
    rng = np.random.default_rng(5)
    words = ["river", "stone", "orbit", "thread", "shard"]
    rows = 20_000
    table = pa.table(
        {
            "text": [" ".join(words[pick] for pick in picks) for picks in rng.integers(0, 5, (rows, 30))],
            "vector": pa.FixedSizeListArray.from_arrays(
                pa.array(rng.standard_normal(rows * 16).astype(np.float32)), 16
            ),
        }
    )  # fmt: skip
    measured = MeasuredFrames(table.slice(0, 1_000).to_batches())

    def written(count):
        uri = str(tmp_path / f"{count}.lance")
        lance.write_dataset(table.slice(0, count), uri, data_storage_version="2.2")
        (file,) = lance.dataset(uri).get_fragments()[0].metadata.files
        return file.file_size_bytes

    for count in (20, 1_000, rows):
        assert measured.file_bytes(count) == pytest.approx(written(count), rel=0.1)
