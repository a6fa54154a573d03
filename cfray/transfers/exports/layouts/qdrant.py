"""Qdrant: JSON Lines, a point a line as ``PUT /collections/NAME/points`` takes it.

An id is an unsigned integer of 64 bits or a UUID; a vector is a list, or an object of named ones,
of which each may be a list, a list of lists or an object of indices and values.

Source: qdrant.tech, "Points" and "Vectors".
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from cfray.records.values import json_texts
from cfray.transfers.exports.layouts.base import Batch, Layout, objects
from cfray.transfers.exports.layouts.values import ANYTHING, Limits, raw_rows
from cfray.transfers.exports.texts import vector_json

_LONGEST_INTEGER = len(str(2**64 - 1))


class QdrantLayout(Layout):
    """Points."""

    store = "Qdrant"
    limits = Limits((ANYTHING,), least=-(2**63), greatest=2**64 - 1, takes_null=True)

    def rows(self, batch: Batch) -> pa.RecordBatch:
        """Make a point of each record."""
        is_integer = _integers(batch)
        is_own = pc.or_(is_integer, batch.uuid_ids())
        ids = pc.if_else(is_integer, batch.id_texts, json_texts(batch.ids_or_uuids(is_own)))
        payload = batch.payload(self.names, self.limits, is_own)
        count = batch.frames.num_rows
        return raw_rows(
            {"id": ids, "vector": self._vectors(batch), "payload": objects(payload, count)}
        )

    def reserved_names(self) -> set[str]:
        """Give the name of the field for ids that are no ids of points."""
        return {self.facts.original_id}

    def _vectors(self, batch: Batch) -> pa.StringArray:
        vectors = self.facts.vectors
        if len(vectors) == 1 and not vectors[0].is_named:
            return pc.fill_null(vector_json(batch.vectors(vectors[0])), "{}")
        named = {vector.name: vector_json(batch.vectors(vector)) for vector in vectors}
        return objects(named, batch.frames.num_rows)


def _integers(batch: Batch) -> pa.BooleanArray:
    """Tell which ids are integers that a point may have."""
    texts = batch.id_texts
    is_integer = pc.and_(pc.match_substring_regex(texts, r"^\d{1,20}$"), batch.may_own)
    is_long = pc.greater_equal(pc.utf8_length(texts), _LONGEST_INTEGER)
    fits = pc.or_(pc.invert(is_long), pc.less_equal(texts, str(2**64 - 1)))
    return pc.fill_null(pc.and_(is_integer, fits), fill_value=False)
