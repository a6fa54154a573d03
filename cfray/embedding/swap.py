"""Put the new vectors of a finished target in their place: one commit for all fragments.

The commit replaces one column and leaves every other file as it is, together with the
ledger and the recipe, so no reader ever sees the vectors of two models in one column.  The
field keeps its id and takes its new type, whatever the width; the file of the old column
stays for the versions that refer to it.

Operation: a Merge whose fragments name the new file for the field and mark the field as
gone (-2) in the old file, as Lance's own ``update_columns`` does; measured on pylance
14.0.2 with deletions, compaction and indexes (``tests/embedding/test_swap.py``).
"""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow as pa
from lance import LanceDataset
from lance.fragment import FragmentMetadata
from lance.schema import LanceSchema

from cfray.conversion.embed import ORIGIN
from cfray.embedders.recipe import RECIPE_KEY
from cfray.embedding.join import JoinedFragment
from cfray.embedding.pieces import Reembedding, state_of
from cfray.errors import TargetUnavailable
from cfray.target.commit import SchemaChange, Target, commit, guard_commit, with_field
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


def swap_vectors(
    reembedding: Reembedding, target: Target, receipt: EmbedReceipt, joined: list[JoinedFragment]
) -> None:
    """Commit every new file in one version, together with the ledger and the recipe.

    Raises:
        TargetUnavailable: a fragment was added or changed since its vectors were made.
    """
    dimension = reembedding.embed.shape.dimension
    fields = (
        pa.field("vector", pa.list_(pa.float32(), dimension)),
        pa.field(ORIGIN, pa.string()),
    )
    fingerprint = reembedding.embed.job.fingerprint

    def change(ledger: Ledger) -> Ledger | None:
        if reembedding.name in ledger.entries:
            return None
        # The fingerprint of the last embed stands last, also if the target accepted it before.
        earlier = tuple(accepted for accepted in ledger.fingerprints if accepted != fingerprint)
        ledger = replace(ledger, fingerprints=(*earlier, fingerprint))
        return ledger.with_entry(EntryKind.EMBED, reembedding.name, 0, receipt.nonce)

    commit(
        target,
        change,
        rewrite=lambda latest: replace_columns(latest, fields, joined),
        schema_change=SchemaChange({RECIPE_KEY: reembedding.embed.recipe.to_json()}, fields),
    )


def replace_columns(
    dataset: LanceDataset, fields: tuple[pa.Field, ...], joined: list[JoinedFragment]
) -> list[FragmentMetadata]:
    """Give every fragment with the new file in place of the old columns.

    Args:
        dataset: the latest version.
        fields: the columns that are replaced, in the order of the new files.
        joined: the new file of each fragment.

    Raises:
        TargetUnavailable: a fragment was added or changed since its vectors were made.
    """
    schema = dataset.schema
    for field in fields:
        schema = with_field(schema, field)
    field_ids = {field.name(): field.id() for field in LanceSchema.from_pyarrow(schema).fields()}
    replaced_ids = [field_ids[field.name] for field in fields]
    by_fragment = {new.fragment: new for new in joined}
    fragments = []
    for fragment in dataset.get_fragments():
        new = by_fragment.get(fragment.fragment_id)
        if new is None or new.state != state_of(fragment.metadata):
            raise TargetUnavailable(
                f"fragment {fragment.fragment_id} of {dataset.uri} was added or changed while its "
                "vectors were being made",
                "run the same command again",
            )
        metadata = fragment.metadata.to_json()
        for file in metadata["files"]:
            file["fields"] = [
                _TOMBSTONE if field_id in replaced_ids else field_id for field_id in file["fields"]
            ]
        metadata["files"].append({**new.file, "fields": replaced_ids})
        fragments.append(FragmentMetadata.from_json(json.dumps(metadata)))
    return fragments
