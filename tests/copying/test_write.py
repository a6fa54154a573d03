"""Copying sums the vectors of each collection, for the vector of its header.

A vector of zeros stands for no vector, so it must not count.
"""

import numpy as np
import pyarrow as pa

from cfray.copying.write import add_vectors


def test_a_vector_of_zeros_does_not_count_and_one_that_only_begins_with_zero_does():
    vectors = np.array([[0, 0, 0], [0, 0, 2], [-0.0, 1, 0], [3, 0, 0]], np.float32)
    batch = pa.record_batch(
        {
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 3),
            "collection": ["a", "b", "a", "b"],
            "collection_id": ["x", "y", "x", "y"],
        }
    )
    collections = {}
    add_vectors(collections, batch)
    assert {
        name: (vectors.count, vectors.header_uuid, vectors.total.tolist())
        for name, vectors in collections.items()
    } == {
        "a": (1, "x", [0, 1, 0]),
        "b": (2, "y", [3, 0, 2]),
    }
    add_vectors(collections, batch, sign=-1)
    assert {
        name: (vectors.count, vectors.total.tolist()) for name, vectors in collections.items()
    } == {
        "a": (0, [0, 0, 0]),
        "b": (0, [0, 0, 0]),
    }
