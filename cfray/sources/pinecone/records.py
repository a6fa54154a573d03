"""Pinecone's records as batches of Arrow records.

Records keep the values that the API gives: Pinecone stores every number of the metadata
as a float64, so that 5 may come back as 5.0, and drops nulls when it writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from cfray.formats import points
from cfray.sources.pinecone.types import PineconeNamespace


def build_records(
    namespace: PineconeNamespace, ids: Sequence[str], records: Sequence[Any]
) -> pa.RecordBatch:
    """Make a batch of fetched records.

    Args:
        namespace: declares the vectors.
        ids: of the records, in their order.
        records: the client's vectors, or mappings where the index holds documents.
    """
    if namespace.holds_documents:
        dense, sparse, payload = _split_documents(namespace, records)
    else:
        dense = {"": [record.values or None for record in records]}
        sparse = {"sparse": [record.sparse_values for record in records]}
        payload = [record.metadata or {} for record in records]
    columns: dict[str, pa.Array] = {}
    for name, vectors in dense.items():
        # a record may have a vector although its index declares none
        dimension = namespace.dense.get(name) or next(
            (len(vector) for vector in vectors if vector), 0
        )
        if dimension:
            columns[name] = points.dense_column(vectors, pa.list_(pa.float32(), dimension))
    for name, sparse_vectors in sparse.items():
        if name in namespace.sparse or any(vector is not None for vector in sparse_vectors):
            columns[name] = points.sparse_column(list(map(_indices_and_values, sparse_vectors)))
    return points.build_batch(
        pa.array(ids, pa.string()),
        columns,
        payload,
        payload_name="fields" if namespace.holds_documents else "metadata",
    )


def _split_documents(
    namespace: PineconeNamespace, documents: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, list[Any]], dict[str, list[Any]], list[dict[str, Any]]]:
    """Split documents into dense vectors, sparse vectors and all other fields."""
    dense = {name: [document.get(name) for document in documents] for name in namespace.dense}
    sparse = {name: [document.get(name) for document in documents] for name in namespace.sparse}
    not_payload = {"_id", *dense, *sparse}
    payload = [
        {name: value for name, value in document.items() if name not in not_payload}
        for document in documents
    ]
    return dense, sparse, payload


def _indices_and_values(vector: Any) -> tuple[Sequence[int], Sequence[float]] | None:
    if vector is None:
        return None
    if isinstance(vector, Mapping):
        return vector["indices"], vector["values"]
    return vector.indices, vector.values
