"""Pinecone: the Parquet files of "import records", a folder a namespace.

Columns are ``id``, ``values``, ``sparse_values`` and ``metadata``, a JSON object as text.  The
source's own name of a collection is ``index/namespace``, and its default namespace is the index.

Source: docs.pinecone.io, "Import records" and "Data modeling".
"""

from __future__ import annotations

from urllib.parse import quote

import pyarrow as pa

from cfray.records.record import EXACT_INT
from cfray.records.types import SPARSE
from cfray.records.values import json_texts
from cfray.transfers.exports.layouts.base import Batch, Layout, objects
from cfray.transfers.exports.layouts.facts import VectorColumn
from cfray.transfers.exports.layouts.values import LOGICAL, NUMBER, TEXT, TEXTS, Limits
from cfray.transfers.exports.markdown import folder_name

#: What an id may be: 1 to 512 ASCII characters, none of them NUL.
_ID = r"^[\x01-\x7f]{1,512}$"
_DEFAULT_NAMESPACE = "__default__"


class PineconeLayout(Layout):
    """Records."""

    store = "Pinecone"
    limits = Limits((TEXT, LOGICAL, NUMBER, TEXTS), least=-EXACT_INT, greatest=EXACT_INT)
    needs_vector = True

    @property
    def sparse(self) -> VectorColumn | None:
        """Give the one sparse vector that a record has."""
        return next((vector for vector in self.facts.vectors if vector.is_sparse), None)

    def needed_vector(self) -> VectorColumn | None:
        """Give the dense vector, or the sparse one where there is no dense one."""
        return self.facts.primary or self.sparse

    def clean_name(self, name: str) -> str:
        """Give a name that does not begin with a dollar sign, which operators begin with."""
        return f"_{name}" if name.startswith("$") else name

    def folder(self, collection: str) -> str:
        """Name the folder of a namespace, in that of its index where the name has both."""
        index, _, namespace = collection.partition("/")
        has_namespaces = any(name.startswith(f"{index}/") for name in self.facts.collections)
        if not collection:
            return _DEFAULT_NAMESPACE
        if not has_namespaces:
            return folder_name(index)
        return f"{folder_name(index)}/{quote(namespace, safe=' ') or _DEFAULT_NAMESPACE}"

    def rows(self, batch: Batch) -> pa.RecordBatch:
        """Make a record of each record."""
        is_own = batch.text_ids(_ID)
        columns: dict[str, pa.Array] = {"id": batch.ids_or_uuids(is_own)}
        metadata = batch.payload(self.names, self.limits, is_own)
        for vector in self.facts.vectors:
            values = batch.vectors(vector)
            if vector.column == "vector":
                columns["values"] = values.cast(pa.list_(pa.float32()))
            elif vector == self.sparse:
                columns["sparse_values"] = values.cast(SPARSE)
            else:
                batch.lose(vector.name, "a further vector, written as a text of the metadata")
                metadata[vector.name] = json_texts(json_texts(values))
        columns["metadata"] = objects(metadata, batch.frames.num_rows)
        return pa.RecordBatch.from_pydict(columns)
