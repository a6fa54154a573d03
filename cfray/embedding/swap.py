"""Put the new vectors of a target in their place: one commit for all fragments.

The commit replaces the vectors' columns, adds those that are new, deletes the rows that were
refused, and carries the ledger and the recipe; every other file stays as it is.  So no reader
ever sees the vectors of two models in one column.  A field keeps its id and takes its new type,
whatever the width; the file of the old column stays for the versions that refer to it.

Operation: a Merge whose fragments name the new file for the field and mark the field as
gone (-2) in the old file, as Lance's own ``update_columns`` does; measured on pylance
14.0.2 with deletions, compaction and indexes (``tests/embedding/test_swap.py``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import pyarrow as pa
from lance import LanceDataset
from lance.fragment import FragmentMetadata
from lance.schema import LanceSchema

from cfray.embedders.recipe import RECIPE_KEY
from cfray.embedding.join import JoinedFragment
from cfray.embedding.pieces import VectorTask, state_of
from cfray.embedding.vectors import made_fields
from cfray.errors import TargetUnavailable
from cfray.target.commit import (
    SchemaChange,
    Target,
    commit,
    guard_commit,
    with_field,
    without_rows,
)
from cfray.target.ledger import EntryKind, Ledger
from cfray.target.receipts import EmbedReceipt

#: What Lance writes for a field whose column stands in another file (``update_columns``).
_TOMBSTONE = -2
#: Lance's name of the index on the column ``vector``.
_VECTOR_INDEX = "vector_idx"


def drop_vector_index(target: Target) -> None:
    """Drop the index of the old vectors, which must never answer for the new ones."""
    dataset = target.open()
    if _VECTOR_INDEX in {index.name for index in dataset.describe_indices()}:
        with guard_commit(target):
            dataset.drop_index(_VECTOR_INDEX)


class Companions(Protocol):
    """Rows that come with the vectors in the same commit: the headers with their centroids."""

    @property
    def fragments(self) -> list[dict[str, Any]]:
        """Give Lance's metadata of the new rows, with the field ids of the target."""

    def with_entry(self, ledger: Ledger) -> Ledger:
        """Put the new rows into the ledger, behind all other entries."""


def swapped_schema(task: VectorTask) -> pa.Schema:
    """Give the dataset's schema as the swap will leave it."""
    schema = task.dataset.schema
    for new_field in made_fields(task.embedding, task.recipe):
        schema = with_field(schema, new_field)
    return schema


def swap_vectors(
    task: VectorTask,
    target: Target,
    receipt: EmbedReceipt,
    joined: list[JoinedFragment],
    *,
    leaving: Sequence[int] = (),
    companions: Companions | None = None,
) -> None:
    """Commit every new file in one version, together with the ledger and the recipe.

    Args:
        task: what was made.
        target: of the command.
        receipt: of the whole embedding.
        joined: the new file of each fragment.
        leaving: row ids of the rows that leave in the same commit.
        companions: further rows of the same commit.

    Raises:
        TargetUnavailable: a fragment was added or changed since its file was written.
    """
    fields = made_fields(task.embedding, task.recipe)
    fingerprint = task.job.fingerprint

    def change(ledger: Ledger) -> Ledger | None:
        if task.name in ledger.entries:
            return None
        # The fingerprint of the last embed stands last, also if the target accepted it before.
        # A copied target is not bound by the section ``embedding`` that it was copied with.
        is_copied = EntryKind.HEADERS not in ledger.entries
        earlier = () if is_copied else _without(ledger.fingerprints, fingerprint)
        ledger = replace(ledger, fingerprints=(*earlier, fingerprint))
        ledger = ledger.with_entry(EntryKind.EMBED, task.name, 0, receipt.nonce)
        return ledger if companions is None else companions.with_entry(ledger)

    commit(
        target,
        change,
        (lambda: companions.fragments) if companions is not None else list,
        rewrite=lambda latest: replace_columns(latest, fields, joined, leaving),
        schema_change=SchemaChange({RECIPE_KEY: task.recipe.to_json()}, tuple(fields)),
    )


def _without(fingerprints: tuple[str, ...], fingerprint: str) -> tuple[str, ...]:
    return tuple(accepted for accepted in fingerprints if accepted != fingerprint)


def replace_columns(
    dataset: LanceDataset,
    fields: Sequence[pa.Field],
    joined: list[JoinedFragment],
    leaving: Sequence[int] = (),
) -> list[FragmentMetadata]:
    """Give every fragment with the new file in place of the old columns.

    Args:
        dataset: the latest version.
        fields: the columns that are replaced or added, in the order of the new files.
        joined: the new file of each fragment.
        leaving: row ids of the rows that are deleted.

    Raises:
        TargetUnavailable: a fragment was added or changed since its file was written.
    """
    schema = dataset.schema
    for field in fields:
        schema = with_field(schema, field)
    field_ids = {field.name(): field.id() for field in LanceSchema.from_pyarrow(schema).fields()}
    made_ids = [field_ids[field.name] for field in fields]
    by_fragment = {new.fragment: new for new in joined}
    present = [fragment.metadata for fragment in dataset.get_fragments()]
    remaining = without_rows(dataset, list(leaving)) if leaving else present
    fragments = []
    for fragment, kept in zip(present, remaining, strict=True):
        new = by_fragment.get(fragment.id)
        if new is None or new.state != state_of(fragment):
            raise TargetUnavailable(
                f"fragment {fragment.id} of {dataset.uri} was added or changed while its vectors "
                "were being made",
                "run the same command again",
            )
        metadata = kept.to_json()
        for file in metadata["files"]:
            file["fields"] = [
                _TOMBSTONE if field_id in made_ids else field_id for field_id in file["fields"]
            ]
        metadata["files"].append({**new.file, "fields": made_ids})
        fragments.append(FragmentMetadata.from_json(json.dumps(metadata)))
    return fragments
