"""Milvus: files ``{"rows": [...]}`` as pymilvus's bulk writer writes them, one row a line.

A row is what ``MilvusClient.insert`` takes, too: the primary key, the vectors, and further keys,
which a collection with a dynamic field keeps.

Source: milvus.io, "Prepare Source Data" and "Dynamic Field".
"""

from __future__ import annotations

from functools import cached_property

import pyarrow as pa

from cfray.errors import ConfigError
from cfray.records.values import json_texts
from cfray.runtime.plurals import counted
from cfray.transfers.exports.layouts.base import Batch, Layout, cleaned
from cfray.transfers.exports.layouts.facts import VectorColumn, stored_names
from cfray.transfers.exports.layouts.values import ANYTHING, Limits, raw_rows
from cfray.transfers.exports.texts import vector_json

#: A VARCHAR may have 65,535 bytes; this many characters never have more.
_ID = r"(?s)^.{0,1000}$"


class MilvusLayout(Layout):
    """Rows."""

    store = "Milvus"
    limits = Limits((ANYTHING,), least=-(2**63), greatest=2**63 - 1, takes_null=True)

    @cached_property
    def primary_key(self) -> str:
        """Name the field of the primary key."""
        return cleaned(self.facts.id_field or "id")

    @cached_property
    def vector_names(self) -> dict[str, str]:
        """Name the field of each vector."""
        names = [vector.name for vector in self.facts.vectors]
        return stored_names(names, cleaned, {self.primary_key})

    def clean_name(self, name: str) -> str:
        """Give a name that does not begin with a dollar sign, which Milvus keeps for itself."""
        return f"_{name}" if name.startswith("$") else name

    def reserved_names(self) -> set[str]:
        """Give the names of the fields of the collection."""
        return {self.primary_key, self.facts.original_id, *self.vector_names.values()}

    def rows(self, batch: Batch) -> pa.RecordBatch:
        """Make a row of each record.

        Raises:
            ConfigError: a row has no id that is of the type of the others.
        """
        if self.facts.has_integer_ids and not self.facts.shared:
            is_own, ids = batch.id_texts.is_valid(), batch.id_texts
            if ids.null_count:
                raise ConfigError(
                    f"{counted(ids.null_count, 'row')} that another program wrote have no id, and "
                    "the other ids are integers, which a uuid cannot stand for",
                    "leave them out with --where, or choose another format",
                )
        else:
            is_own = batch.text_ids(_ID)
            ids = json_texts(batch.ids_or_uuids(is_own))
        if self.facts.id_field and self.primary_key != self.facts.id_field:
            batch.lose(self.facts.id_field, f"the name, written as {self.primary_key}")
        columns = {self.primary_key: ids}
        for vector in self.facts.vectors:
            columns[self.vector_names[vector.name]] = self._vectors(batch, vector)
        return raw_rows(columns | batch.payload(self.names, self.limits, is_own))

    def _vectors(self, batch: Batch, vector: VectorColumn) -> pa.StringArray:
        name, values = self.vector_names[vector.name], batch.vectors(vector)
        if name != vector.name:
            batch.lose(vector.name, f"the name, written as {name}")
        if values.null_count:
            batch.lose(
                vector.name,
                "records without it: Milvus takes them from 2.6 on, in a field that may be null",
            )
        if vector.is_multi:
            batch.lose(vector.name, "a list of vectors, written as lists of a dynamic field")
        if vector.is_sparse:
            return _positions(values)
        return vector_json(values)

    def described(self) -> dict[str, str]:
        """Give the types of the collection's fields."""
        key = "INT64" if self.facts.has_integer_ids and not self.facts.shared else "VARCHAR"
        kinds = {
            self.vector_names[vector.name]: _vector_kind(vector) for vector in self.facts.vectors
        }
        return {self.primary_key: key, **kinds}


def _vector_kind(vector: VectorColumn) -> str:
    if vector.is_multi:
        return "JSON"
    if vector.is_sparse:
        return "SPARSE_FLOAT_VECTOR"
    kinds = {pa.float16(): "FLOAT16_VECTOR", pa.int8(): "INT8_VECTOR", pa.uint8(): "BINARY_VECTOR"}
    return kinds.get(vector.type.value_type, "FLOAT_VECTOR")


def _positions(vectors: pa.StructArray) -> pa.StringArray:
    """Write sparse vectors as objects of position and number, which client and server read."""
    lists = zip(
        vectors.is_valid().to_pylist(),
        vectors.field("indices").to_pylist(),
        vectors.field("values"),
        strict=True,
    )
    texts = []
    for is_there, indices, values in lists:
        pairs = zip(indices, _numbers(values), strict=True) if is_there else ()
        members = ",".join(f'"{position}":{number}' for position, number in pairs)
        texts.append(f"{{{members}}}" if is_there else None)
    return pa.array(texts, pa.string())


def _numbers(values: pa.ListScalar) -> list[str]:
    texts: list[str] = json_texts(values.values).to_pylist()
    return texts
