"""Weaviate: JSON Lines, an object a line as ``POST /v1/batch/objects`` takes it.

A property has one type in a whole collection, so that every field is written in the one that its
values have: what the manifest says of it is the type to create the property with.  Names are those
that Weaviate allows.  A collection ``Class/tenant`` is a tenant of a class.

Source: docs.weaviate.io, "Data types" and "Collection definition".
"""

from __future__ import annotations

import json
import re
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from cfray.records.record import canonical, is_variant, variant_types
from cfray.records.values import json_texts
from cfray.transfers.exports.fields import Column
from cfray.transfers.exports.layouts.base import Batch, Layout, cleaned, objects
from cfray.transfers.exports.layouts.facts import free_name, stored_names
from cfray.transfers.exports.layouts.values import ANYTHING, Limits, json_of, raw_rows, unquoted
from cfray.transfers.exports.texts import vector_json

#: Names that a property may not have.
_RESERVED = {"id", "_id", "_additional"}
_TENANT = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NOT_FINITE = r"NaN|Infinity"


class WeaviateLayout(Layout):
    """Objects."""

    store = "Weaviate"
    limits = Limits((ANYTHING,))

    def clean_name(self, name: str) -> str:
        """Give a name of letters, digits and underscores that begins with no capital letter."""
        plain = cleaned(name)
        return f"_{plain}" if plain in _RESERVED else plain[0].lower() + plain[1:]

    def reserved_names(self) -> set[str]:
        """Give the names that no property may have."""
        return {*super().reserved_names(), *map(self.clean_name, self._sparse), *_RESERVED}

    @property
    def _sparse(self) -> list[str]:
        return [vector.name for vector in self.facts.vectors if vector.is_sparse]

    @cached_property
    def vector_names(self) -> dict[str, str]:
        """Name the vectors."""
        return stored_names([vector.name for vector in self.facts.vectors], cleaned)

    @cached_property
    def classes(self) -> dict[str, tuple[str, str]]:
        """Give the class and the tenant of each collection; a tenant is empty where there is none.

        Two collections never go into one class, unless they are its tenants.
        """
        placed: dict[str, tuple[str, str]] = {}
        class_of: dict[str, str] = {}
        for collection in self.facts.collections:
            name, _, tenant = collection.partition("/")
            key = name if _TENANT.fullmatch(tenant) else collection
            if key not in class_of:
                plain = cleaned(key).lstrip("_") or "Collection"
                plain = plain if plain[0].isalpha() else f"C{plain}"
                class_of[key] = free_name(plain[0].upper() + plain[1:], class_of.values())
            placed[collection] = (class_of[key], tenant if key != collection else "")
        return placed

    def rows(self, batch: Batch) -> pa.RecordBatch:
        """Make an object of each record."""
        is_own = batch.uuid_ids()
        ids = batch.ids_or_uuids(is_own)
        collections = pc.fill_null(batch.frames.column("collection"), "").to_pylist()
        for name in sorted(set(collections)):
            if "/".join(filter(None, self.classes[name])) != name:
                batch.lose("collection", f"the name {name}, written as {self.classes[name][0]}")
        classes = pa.array([self.classes[name][0] for name in collections], pa.string())
        tenants = pa.array([self.classes[name][1] or None for name in collections], pa.string())
        columns = {
            "class": json_texts(classes),
            "tenant": json_texts(tenants),
            "id": json_texts(ids),
            "properties": objects(self._properties(batch, is_own), batch.frames.num_rows),
            **self._vectors(batch),
        }
        return raw_rows(columns)

    def _properties(self, batch: Batch, is_own: pa.BooleanArray) -> dict[str, pa.StringArray]:
        members: dict[str, pa.StringArray] = {}
        columns = {column.name: column for column in self.facts.columns}
        for item, values in batch.fields():
            name = self.names[item.name]
            if name != item.name:
                batch.lose(item.name, f"the name, written as {name}")
            column = self._column(columns[item.name])
            batch.lose(item.name, *filter(None, [column.lost]))
            texts = _written(column, _without_nulls(values, item), item)
            whole = _without_inner_nulls(texts, _kind(column.type))
            if not whole.equals(texts):
                batch.lose(item.name, "nulls in lists, left out")
                texts = whole
            if is_variant(item) and pc.any(pc.equal(variant_types(values), "null")).as_py():
                batch.lose(item.name, "nulls, left out")
            is_odd = pc.fill_null(pc.match_substring_regex(texts, _NOT_FINITE), fill_value=False)
            if _kind(column.type) in ("number", "number[]") and pc.any(is_odd).as_py():
                batch.lose(item.name, "NaN and infinities, left out")
                texts = pc.if_else(is_odd, None, texts)
            members[name] = texts
        foreign = pc.if_else(is_own, None, batch.plain_ids)
        if foreign.null_count < len(foreign):
            members[self.facts.original_id] = json_texts(foreign)
        for vector in self.facts.vectors:
            if vector.is_sparse:
                batch.lose(vector.name, "a sparse vector, written as a text of the properties")
                members[self.clean_name(vector.name)] = json_texts(
                    vector_json(batch.vectors(vector))
                )
        return members

    def _column(self, column: Column) -> Column:
        """Give a field's column as a property has it: what no property holds is a text."""
        kind = _kind(column.type)
        is_wide = kind == "int" and column.name in self.facts.wide
        if kind is not None and not is_wide:
            return column
        reason = (
            "integers beyond 2**53, written as text"
            if is_wide
            else (column.lost or f"{column.type}, written as text")
        )
        return Column(column.name, pa.string(), is_json=column.is_json, lost=reason)

    def _vectors(self, batch: Batch) -> dict[str, pa.StringArray]:
        vectors = [vector for vector in self.facts.vectors if not vector.is_sparse]
        if len(vectors) == 1 and not vectors[0].is_named:
            return {"vector": vector_json(batch.vectors(vectors[0]))}
        named: dict[str, pa.StringArray] = {}
        for vector in vectors:
            name = self.vector_names[vector.name]
            if name != vector.name:
                batch.lose(vector.name, f"the name, written as {name}")
            named[name] = vector_json(batch.vectors(vector))
        written = objects(named, batch.frames.num_rows)
        return {"vectors": pc.if_else(pc.equal(written, "{}"), None, written)} if named else {}

    def described(self) -> dict[str, str]:
        """Give the type of each property."""
        kinds = {
            self.names[column.name]: _kind(self._column(column).type) or "text"
            for column in self.facts.columns
            if column.name in self.names and column.name not in self.facts.vector_fields
        }
        return {**kinds, self.facts.original_id: "text"}


def _without_nulls(values: pa.Array, item: pa.Field) -> pa.Array:
    """Take the nulls of variants out, which Weaviate does not tell from keys that are missing."""
    if not is_variant(item):
        return values
    is_value = pc.fill_null(pc.not_equal(variant_types(values), "null"), fill_value=False)
    return pc.if_else(is_value, values, pa.scalar(None, values.type))


def _written(column: Column, values: pa.Array, item: pa.Field) -> pa.StringArray:
    """Write values as JSON; those of which a property has no type are texts."""
    if _kind(column.type) == "text" and not column.is_json:
        return json_texts(unquoted(json_of(values, item)))
    return json_texts(column.of(values, item, len(values)))


def _without_inner_nulls(texts: pa.StringArray, kind: str | None) -> pa.StringArray:
    """Take the nulls out of lists, which Weaviate's have none of."""
    if kind is None or not kind.endswith("[]"):
        return texts
    may_have = pc.fill_null(pc.match_substring_regex(texts, r"[\[,]null[,\]]"), fill_value=False)
    lists: list[str | None] = texts.to_pylist() if pc.any(may_have).as_py() else []
    for row in pc.indices_nonzero(may_have).to_pylist():
        items = json.loads(lists[row] or "[]")
        lists[row] = canonical([item for item in items if item is not None])
    return pa.array(lists, pa.string()) if lists else texts


def _kind(kind: pa.DataType) -> str | None:
    """Name Weaviate's type for values of Arrow's; None where it has none."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = _kind(kind.value_type)
        return None if inner is None or inner.endswith("[]") else f"{inner}[]"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind):
        return "int" if kind != pa.uint64() else None
    return "number" if pa.types.is_floating(kind) else None
