"""A column of texts is divided into batches that hold every text once, in order."""

import pyarrow as pa
import pytest

from cfray.embedders.batches import divide_texts

LONG = "b" * 5_000_000


@pytest.mark.parametrize("rows", [1, 3, 512])
def test_batches_hold_every_text_once(rows):
    column = pa.array(["a", None, "", LONG, "c"])
    batches = list(divide_texts(column, rows))
    assert pa.chunked_array(batches).to_pylist() == column.to_pylist()
    assert all(len(batch) <= rows for batch in batches)
    sizes = [sum(len(text or "") for text in batch.to_pylist()) for batch in batches]
    assert all(
        len(batch) == 1 or size <= 4 * 2**20 for batch, size in zip(batches, sizes, strict=True)
    )


def test_a_column_without_texts_is_a_batch():
    (batch,) = divide_texts(pa.array([], pa.string()), 512)
    assert len(batch) == 0
