"""Chroma: JSON Lines, a record a line with what ``Collection.add`` takes.

Keys are ``id``, ``embedding``, ``document`` and ``metadata``; the last is left out where it would
be empty, which Chroma refuses.

Source: docs.trychroma.com, "Adding data".
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from cfray.records.values import json_texts
from cfray.transfers.exports.layouts.base import Batch, Layout, objects
from cfray.transfers.exports.layouts.values import LOGICAL, NUMBER, TEXT, Limits, raw_rows
from cfray.transfers.exports.texts import vector_json

_ID = r"^(?s:.)+$"
#: Key of the metadata that Chroma keeps the document under.
_RESERVED = "chroma:document"


class ChromaLayout(Layout):
    """Records."""

    store = "Chroma"
    limits = Limits((TEXT, LOGICAL, NUMBER), least=-(2**63), greatest=2**63 - 1)
    needs_vector = True

    def reserved_names(self) -> set[str]:
        """Give the names that the metadata have for something else."""
        return {*super().reserved_names(), _RESERVED}

    def rows(self, batch: Batch) -> pa.RecordBatch:
        """Make a record of each record."""
        is_own = batch.text_ids(_ID)
        columns = {"id": json_texts(batch.ids_or_uuids(is_own))}
        metadata = batch.payload(self.names, self.limits, is_own)
        for vector in self.facts.vectors:
            texts = vector_json(batch.vectors(vector))
            if vector.column == "vector":
                columns["embedding"] = texts
            else:
                batch.lose(vector.name, "a further vector, written as a text of the metadata")
                metadata[vector.name] = json_texts(texts)
        columns["document"] = json_texts(batch.frames.column("text_content"))
        if self.facts.text_field is not None:
            self._leave_out_text(metadata, columns["document"])
        written = objects(metadata, batch.frames.num_rows)
        columns["metadata"] = pc.if_else(pc.equal(written, "{}"), None, written)
        return raw_rows(columns)

    def _leave_out_text(
        self, metadata: dict[str, pa.StringArray], documents: pa.StringArray
    ) -> None:
        """Leave out a field that is the document itself."""
        assert self.facts.text_field is not None
        name = self.names.get(self.facts.text_field, self.facts.text_field)
        if name in metadata:
            texts = metadata[name]
            is_document = pc.fill_null(pc.equal(texts, documents), fill_value=False)
            metadata[name] = pc.if_else(is_document, None, texts)
