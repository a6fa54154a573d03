"""Records of documents as Elasticsearch and OpenSearch give them, without a server."""

import json

import numpy as np
import pytest

from cfray.sources.lucene.records import convert_page, find_value
from cfray.sources.lucene.schema import IndexSchema, VectorField
from tests.sources.corpus import CONTEXT

VECTOR = VectorField("at.v", 2)


@pytest.mark.parametrize(
    "document",
    [
        {"at": {"v": 1}},
        {"at.v": 1},
        {"at": [{"v": [1.0, 2.0]}, {"v": 1}]},
        {"at": {"v": "not a vector"}},
        {"at": {"v": [1.0, "2"]}},
        {"at": {"v": True}},
    ],
)
def test_a_scalar_where_the_mapping_declares_a_vector_is_a_reject(document):
    """Trap: OpenSearch 3.6 gives the integer 1 for some vectors in objects (OpenSearch#21184)."""
    schema = IndexSchema({}, (VECTOR,))
    hits = [
        {"_id": "good", "_source": {"at": {"v": [1.0, 2.0]}}},
        {"_id": "bad", "_source": document},
        {"_id": "none", "_source": {}},
    ]
    first, reject, last = convert_page(hits, schema, CONTEXT, "i")
    assert first["id"].to_pylist() == ["good"]
    assert last["id"].to_pylist() == ["none"]
    assert "at.v" in reject.reason
    assert json.loads(reject.content)["_id"] == "bad"


def test_a_scalar_in_a_column_of_vectors_is_a_reject():
    schema = IndexSchema({"": VectorField("v", 2)})
    hits = [{"_id": str(n), "_source": {"v": [float(n), 0.1] if n else 1}} for n in range(3)]
    reject, batch = convert_page(hits, schema, CONTEXT, "i")
    assert reject.position == "i, _id 0"
    values = np.array(batch["vector"].to_pylist(), np.float32)
    assert (values == np.array([[1, 0.1], [2, 0.1]], np.float32)).all()


def test_a_document_may_write_a_path_as_one_key():
    assert find_value({"a.b": {"c": 1}}, "a.b.c") == 1
    assert find_value({"a": {"b.c": 2}}, "a.b.c") == 2
    assert find_value({"a": {"b": {"c": 3}}}, "a.b.c") == 3


def test_lists_of_vectors_become_multi_vectors():
    schema = IndexSchema({"": VectorField("v", 2, is_multi=True)})
    hits = [
        {"_id": "two", "_source": {"v": [[1.0, 2.0], [3.0, 4.0]]}},
        {"_id": "none", "_source": {}},
    ]
    (batch,) = convert_page(hits, schema, CONTEXT, "i")
    assert str(batch.schema.field("vector").type) == ("list<item: fixed_size_list<item: float>[2]>")
    assert batch["vector"].to_pylist() == [[[1.0, 2.0], [3.0, 4.0]], None]
