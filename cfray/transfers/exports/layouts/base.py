"""What every layout of a vector database is: rows of a batch go in, rows that it imports come out.

A record is an id, vectors, a text and further fields.  Where a store cannot take one of these as it
is, the layout writes it in another way and says so; it leaves nothing out in silence.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from cfray.frames.schema import ORIGIN
from cfray.records.record import is_variant, variant_field, variant_types
from cfray.records.values import type_name
from cfray.transfers.exports.layouts.facts import Facts, VectorColumn, stored_names
from cfray.transfers.exports.layouts.values import (
    Limits,
    json_of,
    raw_json,
    raw_rows,
    stored_values,
    unquoted,
)
from cfray.transfers.exports.markdown import folder_name
from cfray.transfers.exports.texts import json_objects

#: Field -> what a layout does not say of it.
Lost = dict[str, set[str]]
UUID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
#: An object that holds nothing but nulls, and null itself: what is left of a field of vectors.
_NOTHING = r'^(null|\{("([^"\\]|\\.)*":null,?)*\})$'


@dataclass(frozen=True)
class Batch:
    """The rows of a batch.

    Attributes:
        frames: ``n`` rows of the dataset.
        records: what the source held, without vectors.
        facts: of the whole dataset.
        lost: what the layout does not say, by field; it is added to.
    """

    frames: pa.RecordBatch
    records: pa.RecordBatch
    facts: Facts
    lost: Lost = field(default_factory=dict)

    def lose(self, name: str, *reasons: str) -> None:
        """Say what is lost of a field."""
        if reasons:
            self.lost.setdefault(name, set()).update(reasons)

    @cached_property
    def id_texts(self) -> pa.StringArray:
        """Give the ids as JSON; null where no single field is the id, or ids may meet."""
        name, rows = self.facts.id_field, self.frames.num_rows
        if name not in self.records.schema.names:
            return pa.nulls(rows, pa.string())
        return json_of(self.records.column(name), self.records.schema.field(name))

    @cached_property
    def id_kinds(self) -> pa.StringArray:
        """Give the types of the ids; null where there is none."""
        name, rows = self.facts.id_field, self.frames.num_rows
        if name not in self.records.schema.names:
            return pa.nulls(rows, pa.string())
        column = self.records.column(name)
        if is_variant(self.records.schema.field(name)):
            return variant_types(column)
        return pc.if_else(column.is_valid(), type_name(column.type), None)

    @cached_property
    def may_own(self) -> pa.BooleanArray:
        """Tell in which rows an id is the only one of its kind in the collection."""
        shared = pa.array(sorted(self.facts.shared), pa.string())
        collections = pc.fill_null(self.frames.column("collection"), "")
        return pc.invert(pc.is_in(collections, value_set=shared))

    @cached_property
    def uuids(self) -> pa.StringArray:
        """Give the uuids of the frames."""
        return self.frames.column("uuid").cast(pa.string())

    def text_ids(self, pattern: str) -> pa.BooleanArray:
        """Tell which ids a store takes whose ids are texts.

        An integer is its digits, if no other id is a text.

        Args:
            pattern: that a text fits which the store takes.
        """
        texts = self.plain_ids
        is_id = pc.match_substring_regex(self.id_texts, r'^("|-?\d+$)')
        if len(self.facts.id_kinds) > 1:
            is_id = pc.and_(is_id, pc.equal(self.id_kinds, "string"))
        fits = pc.match_substring_regex(texts, pattern)
        return pc.fill_null(pc.and_(pc.and_(is_id, fits), self.may_own), fill_value=False)

    @cached_property
    def plain_ids(self) -> pa.StringArray:
        """Give the ids as texts."""
        return unquoted(self.id_texts)

    def uuid_ids(self) -> pa.BooleanArray:
        """Tell which ids are UUIDs, in the one form in which each is written once."""
        is_uuid = pc.match_substring_regex(self.plain_ids, UUID)
        if "uuid" in self.facts.id_kinds:
            is_uuid = pc.and_(is_uuid, pc.equal(self.id_kinds, "uuid"))
        return pc.fill_null(pc.and_(is_uuid, self.may_own), fill_value=False)

    def ids_or_uuids(self, is_own: pa.BooleanArray) -> pa.StringArray:
        """Give each id as a text, or the frame's uuid in its place."""
        if not self.facts.id_field:
            self.lose("id", "no single field is the id, so ids are the uuids of the frames")
        elif not pc.all(is_own).as_py():
            self.lose(
                self.facts.id_field,
                "ids that the store does not take, or that meet in a collection: these records "
                f"have the uuids of their frames, and their ids are in {self.facts.original_id}",
            )
        return pc.if_else(is_own, self.plain_ids, self.uuids)

    def vectors(self, vector: VectorColumn) -> pa.Array:
        """Give a vector of each row; null where it has none."""
        column = self.frames.column(vector.column)
        if vector.column != "vector" or ORIGIN not in self.frames.schema.names:
            return column
        has_vector = self.frames.column(ORIGIN).is_valid()
        return pc.if_else(has_vector, column, pa.scalar(None, column.type))

    def fields(self) -> Iterator[tuple[pa.Field, pa.Array]]:
        """Give the fields of the records that are neither the id nor vectors."""
        for item, column in zip(self.records.schema, self.records.columns, strict=True):
            if item.name == self.facts.id_field:
                continue
            if item.name in self.facts.vector_fields:
                texts = json_of(column, item)
                is_empty = pc.match_substring_regex(texts, _NOTHING)
                is_value = pc.fill_null(pc.invert(is_empty), fill_value=False)
                if not pc.any(is_value).as_py():
                    continue
                yield item, pc.if_else(is_value, column, pa.scalar(None, column.type))
                continue
            yield item, column

    def payload(
        self, names: dict[str, str], limits: Limits, is_own_id: pa.BooleanArray
    ) -> dict[str, pa.StringArray]:
        """Write the fields that are neither the id nor vectors, each value as JSON.

        Args:
            names: field -> its name in the store.
            limits: of the store's values.
            is_own_id: in which rows the id is the store's; in others it is a field.
        """
        members: dict[str, pa.StringArray] = {}
        for item, column in self.fields():
            stored = stored_values(column, item, limits)
            name = names.get(item.name, item.name)
            if name != item.name:
                self.lose(item.name, f"the name, written as {name}")
            self.lose(item.name, *stored.lost)
            members[name] = stored.texts
        foreign = pc.if_else(is_own_id, None, self.id_texts)
        if foreign.null_count < len(foreign):
            name = self.facts.original_id
            members[name] = stored_values(raw_json(foreign), variant_field(name), limits).texts
        return members


def objects(members: dict[str, pa.StringArray], rows: int) -> pa.StringArray:
    """Write members as JSON objects; a null is left out."""
    if not members:
        return pa.repeat(pa.scalar("{}"), rows)
    return json_objects(raw_rows(members), with_nulls=False)


@dataclass(frozen=True)
class Layout(ABC):
    """The layout of a store.

    Attributes:
        facts: of the dataset.
    """

    facts: Facts
    #: The store's name, for sentences.
    store: ClassVar[str]
    limits: ClassVar[Limits]
    #: Whether it takes no record without a vector.
    needs_vector: ClassVar[bool] = False

    @abstractmethod
    def rows(self, batch: Batch) -> pa.RecordBatch:
        """Make the rows of a batch as the store imports them."""

    def needed_vector(self) -> VectorColumn | None:
        """Give the vector that each record must have where the store needs one."""
        return self.facts.primary

    def clean_name(self, name: str) -> str:
        """Give a field's name as the store allows it."""
        return name

    def reserved_names(self) -> set[str]:
        """Give the names that stand for something else than a field of the records."""
        return {self.facts.original_id, *(vector.name for vector in self.facts.vectors)}

    @cached_property
    def names(self) -> dict[str, str]:
        """Give each field's name in the store."""
        fields = [name for name in self.facts.names if name != self.facts.id_field]
        return stored_names(fields, self.clean_name, self.reserved_names())

    def folder(self, collection: str) -> str:
        """Name the folder of a collection."""
        return folder_name(collection)

    def described(self) -> dict[str, str]:
        """Give the store's type of each field that the layout itself has."""
        return {vector.name: type_name(vector.type) for vector in self.facts.vectors}


def cleaned(name: str) -> str:
    """Give a name of ASCII letters, digits and underscores that starts with no digit."""
    plain = re.sub(r"[^0-9A-Za-z_]", "_", name) or "_"
    return f"_{plain}" if plain[0].isdigit() else plain
